//! Flows that nobody ends: the program that closes those that userspace found, and NAT ports that floods of SYNs held.

use evenkeel_ebpf::abi::{Event, state};

use crate::wire::{ACK, SYN, Tcp};
use crate::world::{BACKEND, BOTH, CLIENT, Hook, SEED, SERVICE, Setup, Verdict, World, tuple};
use crate::{flow, from_client, open};

/// More than 2^33 ns.
const UNANSWERED: u64 = 9_000_000_000;

/// A list of one: the first flow of a world is in slot 0.
fn list(last_seen: u64) -> Vec<u8> {
    let mut bytes = vec![0; 14];
    bytes.extend(0_u64.to_le_bytes());
    bytes.extend(last_seen.to_le_bytes());
    bytes
}

#[test]
fn a_flow_that_is_as_it_was_found_is_closed_and_counted_once() {
    let mut world = World::new(Hook::Tc, Setup::default());
    open(&mut world, Setup::default());
    let found = flow(&mut world).last_seen;
    world.expire(&list(found.wrapping_sub(1)));
    assert_eq!(
        flow(&mut world).state & state::CLOSED,
        0,
        "it was seen since"
    );
    for _ in 0..2 {
        world.expire(&list(found));
        assert_ne!(flow(&mut world).state & state::CLOSED, 0);
        assert_eq!(world.event(Event::FlowExpired), 1);
        assert_eq!(
            (world.service().flows_closed, world.backend().flows_closed),
            (1, 1)
        );
    }
}

#[test]
fn a_cut_list_or_a_slot_that_is_none_does_nothing() {
    let mut world = World::new(Hook::Tc, Setup::default());
    open(&mut world, Setup::default());
    let whole = list(flow(&mut world).last_seen);
    world.expire(&whole[..whole.len() - 1]);
    let mut beyond = whole.clone();
    beyond[14..18].fill(0xff);
    world.expire(&beyond);
    let mut empty = whole;
    empty[14] = 1;
    world.expire(&empty);
    assert_eq!(world.events(), 0);
}

#[test]
fn what_was_never_answered_loses_its_port_to_a_new_flow_and_what_was_keeps_it() {
    let only = Setup {
        nat_ports: (20_000, 20_000),
        ..Setup::default()
    };
    let other = (CLIENT.0, CLIENT.1 + 1);
    let syn = Tcp::new(other, SERVICE, SYN).frame();
    for hook in BOTH {
        for (answered, silence, taken) in [
            (false, UNANSWERED, true),
            (false, UNANSWERED / 2, false),
            (true, UNANSWERED, false),
        ] {
            let mut world = World::new(hook, only);
            let peer = open(&mut world, only);
            if answered {
                world.send(&Tcp::new(BACKEND, peer, SYN | ACK).frame());
                world.send(&from_client(ACK).frame());
            }
            let key = tuple(BACKEND, peer);
            let mut reply = world.reply(key).expect("the claim");
            reply.last_seen = reply.last_seen.wrapping_sub(silence);
            assert!(world.replies.insert(&key, reply, SEED));
            if taken {
                assert_eq!(world.send(&syn).0, Verdict::Redirect, "{hook:?}");
                let claim = world.reply(key).expect("the claim");
                assert_eq!(claim.client_port, other.1.to_be(), "{hook:?}");
            } else {
                world.drops(&syn, Event::DropNatPortsExhausted);
            }
        }
    }
}

#[test]
fn xdp_leaves_to_tc_what_the_next_interface_would_lose() {
    let mut world = World::new(Hook::Xdp, Setup::default());
    world.take_xdp_from_interfaces();
    let syn = from_client(SYN);
    world.passes(&syn.frame());
    assert_eq!(world.event(Event::PassNotByXdp), 1);
    assert_eq!(world.backend().packets, 0, "TC counts it");
    let mut world = World::new(Hook::Tc, Setup::default());
    world.take_xdp_from_interfaces();
    open(&mut world, Setup::default());
    assert_eq!(world.events(), 0);
}
