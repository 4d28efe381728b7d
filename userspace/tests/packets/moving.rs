//! Flows that are moved from their backend to the proxy.

use evenkeel_ebpf::abi::{Event, flag, state};

use crate::wire::{ACK, RST, SYN, Tcp};
use crate::world::{
    BACKEND, BOTH, CLIENT, Hook, SEED, SERVICE, Setup, TO_BACKEND, Verdict, World, tuple,
};
use crate::{flow, from_client, open};

/// Marks the flow, as userspace does.
fn mark(world: &mut World) {
    let mut moved = flow(world);
    moved.flags |= flag::MOVED;
    let key = tuple(CLIENT, SERVICE);
    assert!(world.flows.insert(&key, moved, SEED), "marked");
}

#[test]
fn what_the_client_of_a_moved_flow_sends_goes_to_the_stack_but_its_reset_to_the_backend() {
    for hook in BOTH {
        let mut world = World::new(hook, Setup::default());
        let peer = open(&mut world, Setup::default());
        world.send(&from_client(ACK).frame());
        mark(&mut world);
        let before = world.backend();
        world.passes(&from_client(ACK).payload(b"a request").frame());
        // XDP leaves the packet to TC, which says so.
        let told = u64::from(hook == Hook::Tc);
        assert_eq!(world.event(Event::PassMoved), told, "{hook:?}");
        assert_eq!(world.backend().packets, before.packets, "{hook:?}");
        let answer = Tcp::new(BACKEND, peer, ACK).payload(b"an answer");
        assert_eq!(world.send(&answer.frame()).0, Verdict::Redirect, "{hook:?}");
        let reset = from_client(RST);
        world.leaves_as(
            &reset.frame(),
            &reset.forwarded(TO_BACKEND, peer, BACKEND).frame(),
        );
        assert_eq!(world.backend().flows_closed, 1, "{hook:?}");
    }
}

#[test]
fn the_reset_of_a_moved_flows_backend_closes_it() {
    for hook in BOTH {
        let mut world = World::new(hook, Setup::default());
        let peer = open(&mut world, Setup::default());
        mark(&mut world);
        let reset = Tcp::new(BACKEND, peer, RST);
        assert_eq!(world.send(&reset.frame()).0, Verdict::Redirect, "{hook:?}");
        assert_eq!(world.backend().flows_closed, 1, "{hook:?}");
    }
}

#[test]
fn a_client_that_comes_again_from_the_port_of_a_moved_flow_has_a_new_one() {
    for hook in BOTH {
        let mut world = World::new(hook, Setup::default());
        open(&mut world, Setup::default());
        mark(&mut world);
        assert_eq!(world.send(&from_client(SYN).frame()).0, Verdict::Redirect);
        let new = flow(&mut world);
        assert_eq!((new.flags, new.packets), (0, 1), "{hook:?}");
        let backend = world.backend();
        assert_eq!(
            (backend.flows_opened, backend.flows_closed),
            (2, 1),
            "{hook:?}"
        );
    }
}

#[test]
fn the_reset_of_the_stack_closes_both_halves_of_a_moved_flow() {
    let mut world = World::new(Hook::Tc, Setup::default());
    let peer = open(&mut world, Setup::default());
    let (moved, reply) = (flow(&mut world), tuple(BACKEND, peer));
    let half = world.replies.get(&reply, SEED).expect("the reply half");
    drop(world);
    // What goes out is another program's.
    let mut world = World::new(Hook::Egress, Setup::default());
    assert!(world.flows.insert(&tuple(CLIENT, SERVICE), moved, SEED));
    assert!(world.replies.insert(&reply, half, SEED));
    mark(&mut world);
    world.passes(&Tcp::new(SERVICE, CLIENT, RST).frame());
    assert_ne!(flow(&mut world).state & state::CLOSED, 0, "the flow");
    let half = world.replies.get(&reply, SEED).expect("the reply half");
    assert_ne!(half.state & state::CLOSED, 0, "the reply half");
    assert_eq!(world.backend().flows_closed, 1);
}
