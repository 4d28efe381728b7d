//! The programs on single packets: verdict, every byte that leaves, checksums, counters.
//!
//! Each test has maps of its own and runs the programs by `BPF_PROG_TEST_RUN` in a network namespace of its own,
//! where the routes and neighbours are real. Needs root and the BPF program; fails without them and says so.

mod again;
mod answers;
mod clock;
mod connection;
mod expire;
#[path = "../datapath/lab.rs"]
#[allow(dead_code, reason = "the data path's tests use all of it")]
mod lab;
mod moving;
mod ports;
mod shapes;
mod spread;
mod streams;
mod table;
mod wire;
mod world;

use evenkeel_ebpf::abi::{Flow, forwarding, hash, mode};
use wire::{SYN, Tcp};
use world::{BACKEND, CLIENT, NAT_SOURCE, SERVICE, Setup, TO_BACKEND, Verdict, World, tuple};

const DNAT: Setup = Setup {
    mode: mode::L4,
    forwarding: forwarding::DNAT,
    hash: hash::FIVE_TUPLE,
    backend: true,
    nat_ports: (10_240, 32_767),
    flows: 1024,
};

fn from_client(flags: u8) -> Tcp {
    Tcp::new(CLIENT, SERVICE, flags)
}

/// Sends a SYN, checks every byte of what leaves, and gives what the backend sees as its peer.
#[track_caller]
fn open(world: &mut World, setup: Setup) -> (std::net::Ipv4Addr, u16) {
    let syn = from_client(SYN);
    let (verdict, out) = world.send(&syn.frame());
    assert_eq!(verdict, Verdict::Redirect);
    let flow = world
        .flow(tuple(CLIENT, SERVICE))
        .expect("the flow is recorded");
    let peer = if setup.forwarding == forwarding::NAT {
        (NAT_SOURCE, u16::from_be(flow.nat_port))
    } else {
        CLIENT
    };
    assert_eq!(out, syn.forwarded(TO_BACKEND, peer, BACKEND).frame());
    peer
}

fn flow(world: &mut World) -> Flow {
    world.flow(tuple(CLIENT, SERVICE)).expect("the flow")
}
