//! How long a closed flow keeps its NAT port: `nat.port_hold` where there are others, `flows.closed_hold` where not.

use std::net::Ipv4Addr;

use evenkeel_ebpf::abi::Event;
use evenkeel_ebpf::select::{self, Ports};

use crate::wire::{RST, SYN, Tcp};
use crate::world::{
    BACKEND, BOTH, CLIENT, CLOSED_HOLD, Hook, NAT_SOURCE, PORT_HOLD, SEED, SERVICE, Setup, Verdict,
    World, tuple,
};

const PORTS: (u16, u16) = (20_000, 20_001);

/// A client whose flow tries `port` first.
fn client_that_tries(port: u16) -> (Ipv4Addr, u16) {
    (1_000..2_000)
        .map(|number| (CLIENT.0, number))
        .find(|client| {
            let hash = select::hash(&tuple(*client, SERVICE), SEED);
            let ports = Ports::new(hash, PORTS.0, PORTS.1);
            ports.is_some_and(|mut ports| ports.advance() == port)
        })
        .expect("one of a thousand")
}

#[track_caller]
fn send(world: &mut World, client: (Ipv4Addr, u16), flags: u8) {
    let frame = Tcp::new(client, SERVICE, flags).frame();
    assert_eq!(world.send(&frame).0, Verdict::Redirect, "{client:?}");
}

/// A world in which a flow that had `PORTS.0` closed `ago`.
fn closed(hook: Hook, ports: (u16, u16), ago: u64) -> World {
    let mut world = World::new(
        hook,
        Setup {
            nat_ports: ports,
            ..Setup::default()
        },
    );
    let client = (Ipv4Addr::new(10, 77, 0, 8), 999);
    send(&mut world, client, SYN);
    send(&mut world, client, RST);
    let flow = world.flow(tuple(client, SERVICE)).expect("the flow");
    let key = tuple(BACKEND, (NAT_SOURCE, u16::from_be(flow.nat_port)));
    let mut reply = world.reply(key).expect("the claim");
    assert!(world.replies.remove(&key, SEED) && world.flows.remove(&tuple(client, SERVICE), SEED));
    // Modulo 2^64, as the data path has it: a machine may have been up for less.
    reply.last_seen = reply.last_seen.wrapping_sub(ago);
    let first = tuple(BACKEND, (NAT_SOURCE, PORTS.0));
    assert!(world.replies.insert(&first, reply, SEED));
    world
}

#[track_caller]
fn port_of(world: &World, client: (Ipv4Addr, u16)) -> u16 {
    let flow = world.flow(tuple(client, SERVICE)).expect("the flow");
    u16::from_be(flow.nat_port)
}

#[test]
fn a_closed_flow_keeps_its_port_for_port_hold_while_there_is_another() {
    let client = client_that_tries(PORTS.0);
    for hook in BOTH {
        for (ago, expected) in [(PORT_HOLD / 2, PORTS.1), (PORT_HOLD + 1_000_000, PORTS.0)] {
            let mut world = closed(hook, PORTS, ago);
            send(&mut world, client, SYN);
            assert_eq!(port_of(&world, client), expected, "closed {ago} ns ago");
        }
    }
}

#[test]
fn where_there_is_no_other_port_it_keeps_it_for_closed_hold() {
    let only = (PORTS.0, PORTS.0);
    for hook in BOTH {
        let mut world = closed(hook, only, CLOSED_HOLD + 1_000_000);
        send(&mut world, CLIENT, SYN);
        assert_eq!(port_of(&world, CLIENT), PORTS.0);
        let mut world = closed(hook, only, CLOSED_HOLD / 2);
        let syn = Tcp::new(CLIENT, SERVICE, SYN).frame();
        world.drops(&syn, Event::DropNatPortsExhausted);
    }
}
