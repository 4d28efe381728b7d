//! SYNs on flows that are not over, and halves of flows that met others meanwhile.

use evenkeel_ebpf::abi::{Event, Flow, state};

use crate::wire::{ACK, FIN, RST, SYN, Tcp};
use crate::world::{
    BACKEND, BOTH, CLIENT, Hook, NAT_SOURCE, SEED, SERVICE, Setup, Verdict, World, tuple,
};
use crate::{flow, from_client, open};

/// Longer than the halves of a flow go without news of each other: 17 s and some.
const SILENCE: u64 = 18_000_000_000;

/// Makes the flow, as far as it is told, one whose client last sent something so long ago.
fn silent_for(world: &World, silence: u64, change: impl FnOnce(&mut Flow)) {
    let key = tuple(CLIENT, SERVICE);
    let mut flow = world.flow(key).expect("the flow");
    flow.last_seen = flow.last_seen.wrapping_sub(silence);
    change(&mut flow);
    assert!(world.flows.insert(&key, flow, SEED));
}

#[track_caller]
fn opened_and_closed(world: &World, expected: (u64, u64)) {
    for counters in [world.service(), world.backend()] {
        let seen = (counters.flows_opened, counters.flows_closed);
        assert_eq!(seen, expected, "{:?}", world.hook);
    }
}

/// A world with an established flow, and what the backend sees as its peer.
fn established(hook: Hook) -> (World, (std::net::Ipv4Addr, u16)) {
    let mut world = World::new(hook, Setup::default());
    let peer = open(&mut world, Setup::default());
    world.send(&Tcp::new(BACKEND, peer, SYN | ACK).frame());
    world.send(&from_client(ACK).frame());
    (world, peer)
}

#[test]
fn a_syn_on_a_half_closed_flow_is_a_new_connection() {
    for hook in BOTH {
        let (mut world, peer) = established(hook);
        world.send(&Tcp::new(BACKEND, peer, FIN | ACK).frame());
        assert_eq!(open(&mut world, Setup::default()), peer, "the same choice");
        opened_and_closed(&world, (2, 1));
        assert_eq!(flow(&mut world).state, state::USED | state::SYN);
        let reply = world.reply(tuple(BACKEND, peer)).expect("the other half");
        assert_eq!(reply.state, state::USED | state::SYN, "begins anew, too");
    }
}

#[test]
fn a_syn_on_an_established_flow_is_a_new_connection_only_after_a_silence() {
    for hook in BOTH {
        for (silence, expected) in [(0, (1, 0)), (SILENCE, (2, 1))] {
            let (world, _) = established(hook);
            silent_for(&world, silence, |_| {});
            world.send(&from_client(SYN).frame());
            opened_and_closed(&world, expected);
        }
    }
}

#[test]
fn a_syn_that_was_never_answered_goes_to_the_backend_that_the_table_has_by_now() {
    for hook in BOTH {
        for (was, expected) in [(0, (1, 0)), (5, (2, 1))] {
            let mut world = World::new(hook, Setup::default());
            open(&mut world, Setup::default());
            world.spread_over(1);
            silent_for(&world, SILENCE, |flow| flow.backend = was);
            world.send(&from_client(SYN).frame());
            assert_eq!(flow(&mut world).backend, 0, "{hook:?}");
            let service = world.service();
            let seen = (service.flows_opened, service.flows_closed);
            assert_eq!(seen, expected, "{hook:?}, was on backend {was}");
        }
    }
}

#[test]
fn streams_are_counted_from_the_last_syn_of_a_client_that_tried_twice() {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    bytes.extend([0, 0, 3, 1, 5, 0, 0, 0, 1, 0x82, 0x84, 0x86]);
    for hook in BOTH {
        // Before and after the number that the first one had.
        for first in [1_000_u32, 0x9000_0000] {
            let world = World::new(hook, Setup::default());
            world.send(&from_client(SYN).frame());
            let again = |flags, sequence| Tcp {
                sequence,
                ..from_client(flags)
            };
            world.send(&again(SYN, first).frame());
            world.send(&again(SYN, 500).frame());
            world.send(&again(ACK, 501).payload(&bytes).frame());
            assert_eq!(world.service().streams, 1, "{hook:?}, after {first}");
            opened_and_closed(&world, (1, 0));
        }
    }
}

#[test]
fn a_flow_whose_port_was_given_to_another_is_over_and_leaves_that_alone() {
    for hook in BOTH {
        let (mut world, peer) = established(hook);
        let key = tuple(BACKEND, peer);
        let mut reply = world.reply(key).expect("the other half");
        reply.client_port = 4321_u16.to_be();
        assert!(world.replies.insert(&key, reply, SEED));
        silent_for(&world, SILENCE, |_| {});
        world.send(&from_client(RST).frame());
        opened_and_closed(&world, (1, 1));
        assert_ne!(flow(&mut world).state & state::CLOSED, 0, "{hook:?}");
        let other = world.reply(key).expect("the other's half");
        assert_eq!(other.state & state::CLOSED, 0, "{hook:?}");
    }
}

#[test]
fn a_late_reset_of_an_old_backend_does_not_close_a_newer_flow() {
    for hook in BOTH {
        let (mut world, peer) = established(hook);
        silent_for(&world, 0, |flow| flow.backend = 5);
        world.send(&Tcp::new(BACKEND, peer, RST).frame());
        assert_eq!(flow(&mut world).state & state::CLOSED, 0, "{hook:?}");
        assert_eq!(world.service().flows_closed, 0, "{hook:?}");
    }
}

#[test]
fn a_segment_that_no_host_would_answer_opens_no_flow() {
    for hook in BOTH {
        let mut world = World::new(hook, Setup::default());
        for flags in [0, FIN, RST, RST | ACK] {
            world.drops(&from_client(flags).frame(), Event::DropNoFlow);
        }
        opened_and_closed(&world, (0, 0));
    }
}

#[test]
fn an_adopted_flow_is_established_once_its_backend_sends_something() {
    for hook in BOTH {
        let mut world = World::new(hook, Setup::default());
        for _ in 0..2 {
            world.send(&from_client(ACK).frame());
            assert_eq!(flow(&mut world).state, state::USED, "{hook:?}");
        }
        let peer = (NAT_SOURCE, u16::from_be(flow(&mut world).nat_port));
        let answer = Tcp::new(BACKEND, peer, ACK);
        assert_eq!(world.send(&answer.frame()).0, Verdict::Redirect);
        let expected = state::USED | state::ESTABLISHED;
        assert_eq!(flow(&mut world).state, expected, "{hook:?}");
        let reply = world.reply(tuple(BACKEND, peer)).expect("the other half");
        assert_eq!(reply.state, expected, "{hook:?}");
    }
}
