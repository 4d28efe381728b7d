//! Which backend a flow gets, by the hash that its service has.

use std::net::Ipv4Addr;

use evenkeel_ebpf::abi::{MAGLEV_SLOTS, hash};
use evenkeel_ebpf::select;

use crate::wire::{SYN, Tcp};
use crate::world::{BOTH, CLIENT, SERVICE, Setup, Verdict, World, tuple};

const BACKENDS: u16 = 4;
/// As the world's settings have it.
const SEED: u64 = 7;

/// Opens a flow from `client` and gives the backend that it got.
fn backend_of(world: &mut World, client: (Ipv4Addr, u16)) -> u32 {
    let (verdict, _) = world.send(&Tcp::new(client, SERVICE, SYN).frame());
    assert_eq!(verdict, Verdict::Redirect);
    let flow = world.flow(tuple(client, SERVICE)).expect("recorded");
    flow.backend
}

fn world(hook: crate::world::Hook, hash: u8) -> World {
    let mut world = World::new(
        hook,
        Setup {
            hash,
            ..Setup::default()
        },
    );
    world.spread_over(BACKENDS);
    world
}

/// What `evenkeel explain` computes, with the table of [`World::spread_over`].
fn explained(client: (Ipv4Addr, u16), kind: u8) -> u32 {
    let tuple = tuple(client, SERVICE);
    let slot = select::slot(select::choice(&tuple, SEED, kind));
    assert!((slot as usize) < MAGLEV_SLOTS);
    slot % u32::from(BACKENDS)
}

#[test]
fn source_ip_keeps_the_flows_of_an_address_together_and_spreads_addresses() {
    for hook in BOTH {
        let mut world = world(hook, hash::SOURCE_IP);
        let mut hits = [0_u32; BACKENDS as usize];
        for last in 10..74 {
            let address = Ipv4Addr::new(10, 77, 0, last);
            let first = backend_of(&mut world, (address, 1000));
            assert_eq!(first, explained((address, 1000), hash::SOURCE_IP));
            for port in [1001, 2000, 40_000, 65_535] {
                assert_eq!(backend_of(&mut world, (address, port)), first, "{hook:?}");
            }
            hits[first as usize] += 1;
        }
        // 16 each on average; none with less than 6 in one of 300 seeds, and the seed is fixed.
        assert!(hits.iter().all(|hits| *hits >= 6), "{hits:?}");
    }
}

#[test]
fn five_tuple_spreads_the_flows_of_one_address() {
    for hook in BOTH {
        let mut world = world(hook, hash::FIVE_TUPLE);
        let mut hits = [0_u32; BACKENDS as usize];
        for port in 1000..1064 {
            let client = (CLIENT.0, port);
            let backend = backend_of(&mut world, client);
            assert_eq!(backend, explained(client, hash::FIVE_TUPLE));
            hits[backend as usize] += 1;
        }
        assert!(hits.iter().all(|hits| *hits >= 6), "{hits:?}");
    }
}

#[test]
fn flows_that_go_together_still_have_nat_ports_of_their_own() {
    let mut world = world(crate::world::Hook::Tc, hash::SOURCE_IP);
    let mut ports = std::collections::HashSet::new();
    for port in 1000..1064 {
        let client = (CLIENT.0, port);
        backend_of(&mut world, client);
        ports.insert(
            world
                .flow(tuple(client, SERVICE))
                .expect("recorded")
                .nat_port,
        );
    }
    assert_eq!(ports.len(), 64);
}
