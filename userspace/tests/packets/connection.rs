//! A connection from its SYN to its end: translated both ways, kept, counted, adopted where nobody knows it.

use evenkeel_ebpf::abi::{Event, forwarding, mode, state};

use crate::wire::{ACK, FIN, RST, SYN, Tcp};
use crate::world::{
    BACKEND, BOTH, CLIENT, Hook, NAT_SOURCE, SEED, SERVICE, Setup, TO_BACKEND, TO_CLIENT, Verdict,
    World, tuple,
};
use crate::{DNAT, flow, from_client, open};

#[test]
fn a_connection_is_translated_both_ways_and_counted_once() {
    for setup in [Setup::default(), DNAT] {
        for hook in BOTH {
            let mut world = World::new(hook, setup);
            let peer = open(&mut world, setup);
            if setup.forwarding == forwarding::NAT {
                assert!((10_240..=32_767).contains(&peer.1));
            }
            let answer = Tcp::new(BACKEND, peer, SYN | ACK);
            world.leaves_as(
                &answer.frame(),
                &answer.forwarded(TO_CLIENT, SERVICE, CLIENT).frame(),
            );
            let mut bytes = from_client(SYN).length();
            for payload in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", b"odd"] {
                let packet = from_client(ACK).payload(payload);
                bytes += packet.length();
                world.leaves_as(
                    &packet.frame(),
                    &packet.forwarded(TO_BACKEND, peer, BACKEND).frame(),
                );
            }
            for counters in [world.service(), world.backend()] {
                assert_eq!(counters.flows_opened, 1);
                assert_eq!((counters.packets, counters.bytes), (4, bytes));
                assert_eq!(
                    (counters.reply_packets, counters.reply_bytes),
                    (1, answer.length())
                );
                assert_eq!((counters.streams, counters.flows_closed), (0, 0));
            }
            assert_eq!(
                flow(&mut world).state,
                state::USED | state::SYN | state::ESTABLISHED
            );
            assert_eq!(world.events(), 0);
        }
    }
}

#[test]
fn a_connection_closes_once_both_sides_did() {
    for hook in BOTH {
        let mut world = World::new(hook, Setup::default());
        let peer = open(&mut world, Setup::default());
        world.send(&from_client(ACK).frame());
        world.send(&from_client(FIN | ACK).frame());
        assert_eq!(world.service().flows_closed, 0);
        world.send(&Tcp::new(BACKEND, peer, FIN | ACK).frame());
        assert_eq!(world.service().flows_closed, 0);
        for _ in 0..3 {
            let last = from_client(ACK);
            world.leaves_as(
                &last.frame(),
                &last.forwarded(TO_BACKEND, peer, BACKEND).frame(),
            );
        }
        assert_eq!(world.service().flows_closed, 1);
        assert_eq!(world.backend().flows_closed, 1);
        assert_ne!(flow(&mut world).state & state::CLOSED, 0);
        let reply = world.reply(tuple(BACKEND, peer)).expect("the other half");
        assert_ne!(reply.state & state::CLOSED, 0);
    }
}

#[test]
fn a_reset_of_either_side_closes_at_once_and_is_forwarded() {
    for hook in BOTH {
        for by_client in [true, false] {
            let mut world = World::new(hook, Setup::default());
            let peer = open(&mut world, Setup::default());
            let (reset, expected) = if by_client {
                let reset = from_client(RST);
                let expected = reset.forwarded(TO_BACKEND, peer, BACKEND);
                (reset, expected)
            } else {
                let reset = Tcp::new(BACKEND, peer, RST);
                let expected = reset.forwarded(TO_CLIENT, SERVICE, CLIENT);
                (reset, expected)
            };
            world.leaves_as(&reset.frame(), &expected.frame());
            world.send(&reset.frame());
            assert_eq!(world.service().flows_closed, 1);
            assert_ne!(flow(&mut world).state & state::CLOSED, 0);
        }
    }
}

#[test]
fn a_retransmitted_syn_meets_the_same_decision() {
    for hook in BOTH {
        let mut world = World::new(hook, Setup::default());
        let first = open(&mut world, Setup::default());
        let second = open(&mut world, Setup::default());
        assert_eq!(first, second);
        assert_eq!(world.service().flows_opened, 1);
        assert_eq!(world.service().packets, 2);
    }
}

#[test]
fn a_syn_on_a_closed_flow_begins_a_new_one() {
    for hook in BOTH {
        let mut world = World::new(hook, Setup::default());
        open(&mut world, Setup::default());
        world.send(&from_client(RST).frame());
        open(&mut world, Setup::default());
        assert_eq!(world.service().flows_opened, 2);
        assert_eq!(world.event(Event::FlowReused), 1);
        assert_eq!(flow(&mut world).state & state::CLOSED, 0);
        assert_eq!(flow(&mut world).packets, 1);
    }
}

#[test]
fn two_flows_never_share_a_nat_port_and_the_last_one_is_refused() {
    for hook in BOTH {
        let setup = Setup {
            nat_ports: (20_000, 20_001),
            ..Setup::default()
        };
        let mut world = World::new(hook, setup);
        let mut ports = Vec::new();
        for port in [1000, 1001] {
            let client = (CLIENT.0, port);
            assert_eq!(
                world.send(&Tcp::new(client, SERVICE, SYN).frame()).0,
                Verdict::Redirect
            );
            let flow = world.flow(tuple(client, SERVICE)).expect("the flow");
            ports.push(u16::from_be(flow.nat_port));
        }
        ports.sort_unstable();
        assert_eq!(ports, [20_000, 20_001]);
        world.drops(
            &Tcp::new((CLIENT.0, 1002), SERVICE, SYN).frame(),
            Event::DropNatPortsExhausted,
        );
        assert_eq!(world.service().flows_opened, 2);
    }
}

#[test]
fn a_packet_without_its_flow_is_adopted_and_counted_as_such() {
    for hook in BOTH {
        let mut world = World::new(hook, Setup::default());
        let packet = from_client(ACK).payload(b"in the middle");
        let (verdict, out) = world.send(&packet.frame());
        assert_eq!(verdict, Verdict::Redirect);
        let port = u16::from_be(flow(&mut world).nat_port);
        assert_eq!(
            out,
            packet
                .forwarded(TO_BACKEND, (NAT_SOURCE, port), BACKEND)
                .frame()
        );
        assert_eq!(world.service().flows_adopted, 1);
        assert_eq!(flow(&mut world).state & state::SYN, 0);
    }
}

#[test]
fn a_lost_half_is_put_back_by_the_other() {
    for hook in BOTH {
        let mut world = World::new(hook, Setup::default());
        let peer = open(&mut world, Setup::default());
        world.send(&from_client(ACK).frame());
        let half = tuple(BACKEND, peer);
        assert!(world.replies.remove(&half, SEED), "it was there");
        // As if the flow had been quiet for a while.
        let mut quiet = flow(&mut world);
        quiet.last_seen = 0;
        assert!(world.flows.insert(&tuple(CLIENT, SERVICE), quiet, SEED));
        world.send(&from_client(ACK).frame());
        assert_eq!(world.event(Event::PairRepaired), 1);
        let answer = Tcp::new(BACKEND, peer, ACK);
        world.leaves_as(
            &answer.frame(),
            &answer.forwarded(TO_CLIENT, SERVICE, CLIENT).frame(),
        );
    }
}

#[test]
fn a_service_that_changes_is_another_for_the_next_packet() {
    for hook in BOTH {
        let mut world = World::new(hook, Setup::default());
        let opening = |port| Tcp::new((CLIENT.0, port), SERVICE, SYN).frame();
        // What a processor found out about the service it remembers.
        for port in [40_001, 40_002] {
            assert_eq!(world.send(&opening(port)).0, Verdict::Redirect);
        }
        world.write_service(Setup {
            mode: mode::L7,
            ..Setup::default()
        });
        assert_eq!(world.send(&opening(40_003)).0, Verdict::Pass);
        world.write_service(Setup::default());
        assert_eq!(world.send(&opening(40_004)).0, Verdict::Redirect);
    }
}

#[test]
fn a_flow_of_the_proxy_passes_untouched_and_only_tc_counts_it() {
    for hook in BOTH {
        let setup = Setup {
            mode: mode::L7,
            ..Setup::default()
        };
        let mut world = World::new(hook, setup);
        world.passes(&from_client(SYN).frame());
        world.passes(&from_client(ACK).payload(b"request").frame());
        let expected = if hook == Hook::Tc { (2, 1) } else { (0, 0) };
        let counted = world.service();
        assert_eq!((counted.packets, counted.flows_local), expected);
        assert_eq!(world.event(Event::PassLocal), expected.0);
    }
}
