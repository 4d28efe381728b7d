//! The flow table when it is full, when two keys look alike, and when processors want the same of it at once.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::thread;

use evenkeel_ebpf::abi::{Event, Tuple, state};
use evenkeel_ebpf::select;
use evenkeel_ebpf::table::{CHUNK, Place, WAYS};

use crate::wire::{ACK, RST, SYN, Tcp};
use crate::world::{BOTH, Hook, SEED, SERVICE, Setup, Verdict, World, tuple};

/// A table of a single chunk: all of it is looked at for room.
const SMALL: u32 = CHUNK;

fn small(hook: Hook) -> World {
    World::new(
        hook,
        Setup {
            flows: SMALL,
            ..Setup::default()
        },
    )
}

/// The address and port of the `number`-th client.
fn client(number: u32) -> (Ipv4Addr, u16) {
    let [_, _, high, low] = (number / 50_000).to_be_bytes();
    let port = 10_000 + (number % 50_000) as u16;
    (Ipv4Addr::new(10, 78, high, low), port)
}

fn key(number: u32) -> Tuple {
    tuple(client(number), SERVICE)
}

#[track_caller]
fn send(world: &mut World, number: u32, flags: u8) {
    let frame = Tcp::new(client(number), SERVICE, flags).frame();
    assert_eq!(world.send(&frame).0, Verdict::Redirect, "client {number}");
}

/// Opens flows until the table is full; half a handshake more makes them established.
fn fill(world: &mut World) {
    for number in 0..SMALL {
        send(world, number, SYN);
        send(world, number, ACK);
    }
}

/// Makes a flow look as if it had been silent since `last_seen`.
fn age(world: &World, number: u32, last_seen: u64) {
    let mut flow = world.flow(key(number)).expect("the flow");
    flow.last_seen = last_seen;
    assert!(world.flows.insert(&key(number), flow, SEED));
}

/// The clients whose flows are there, of those below `count`.
fn present(world: &World, count: u32) -> Vec<u32> {
    (0..count)
        .filter(|number| world.flow(key(*number)).is_some())
        .collect()
}

/// Fails unless the tables are whole.
#[track_caller]
fn whole(world: &World) {
    assert_eq!(world.flows.faults(SEED), Vec::<String>::new(), "flows");
    assert_eq!(world.replies.faults(SEED), Vec::<String>::new(), "replies");
}

#[test]
fn a_full_table_gives_up_a_closed_flow_before_any_other() {
    for hook in BOTH {
        let mut world = small(hook);
        fill(&mut world);
        age(&world, 3, 1);
        send(&mut world, 7, RST);
        send(&mut world, SMALL, SYN);
        let expected: Vec<u32> = (0..=SMALL).filter(|number| *number != 7).collect();
        assert_eq!(present(&world, SMALL + 1), expected);
        assert_eq!(world.event(Event::FlowEvicted), 0, "it was closed");
        assert_eq!(world.service().flows_closed, 1);
        whole(&world);
    }
}

#[test]
fn then_one_that_was_never_established() {
    for hook in BOTH {
        let mut world = small(hook);
        for number in 0..SMALL {
            send(&mut world, number, SYN);
            if number != 5 {
                send(&mut world, number, ACK);
                age(&world, number, 1);
            }
        }
        send(&mut world, SMALL, SYN);
        let expected: Vec<u32> = (0..=SMALL).filter(|number| *number != 5).collect();
        assert_eq!(present(&world, SMALL + 1), expected);
        assert_eq!(world.event(Event::FlowEvicted), 1);
        whole(&world);
    }
}

#[test]
fn then_the_one_that_was_silent_for_longest_and_it_goes_on_where_it_was() {
    for hook in BOTH {
        let mut world = small(hook);
        fill(&mut world);
        let port = world.flow(key(11)).expect("the flow").nat_port;
        age(&world, 11, 1);
        send(&mut world, SMALL, SYN);
        assert_eq!(world.flow(key(11)), None);
        assert_eq!(world.event(Event::FlowEvicted), 1);
        assert_eq!(world.service().flows_closed, 1);
        // It speaks again: the hash gives it the backend that it had, and its claim the port.
        send(&mut world, 11, ACK);
        let flow = world.flow(key(11)).expect("it is back");
        assert_eq!(flow.nat_port, port);
        assert_eq!(flow.state & state::SYN, 0, "adopted");
        whole(&world);
    }
}

#[test]
fn of_two_keys_that_look_alike_the_later_one_is_found_and_the_other_comes_back() {
    // With eight buckets, bucket and tag are 34 bits: of 600,000 keys ten pairs are alike (birthday paradox).
    let buckets = evenkeel_ebpf::table::buckets(SMALL);
    let mut seen = HashMap::new();
    let (one, other) = (0..600_000)
        .find_map(|number| {
            let place = Place::of(select::hash(&key(number), SEED), buckets);
            let before = seen.insert((place.first, place.tag), number)?;
            Some((before, number))
        })
        .expect("a pair");
    for hook in BOTH {
        let mut world = small(hook);
        for (now, gone) in [(one, other), (other, one), (one, other)] {
            send(&mut world, now, ACK);
            assert!(world.flow(key(now)).is_some(), "{now} was opened");
            assert_eq!(world.flow(key(gone)), None, "{gone} looks like {now}");
            whole(&world);
        }
    }
}

/// So many clients whose flows all belong into one bucket.
fn crowd(count: usize) -> Vec<u32> {
    let buckets = evenkeel_ebpf::table::buckets(SMALL);
    let first = |number: u32| Place::of(select::hash(&key(number), SEED), buckets).first;
    (0..10_000)
        .filter(|number| first(*number) == 2)
        .take(count)
        .collect()
}

#[test]
fn entries_that_their_bucket_has_no_room_for_are_found_in_its_neighbours() {
    // They fill two buckets, and some are in a third.
    const CROWD: usize = SMALL as usize;
    const { assert!(CROWD > 2 * WAYS) };
    for hook in BOTH {
        let mut world = small(hook);
        let crowd = crowd(CROWD);
        for number in &crowd {
            send(&mut world, *number, SYN);
        }
        for number in &crowd {
            assert!(world.flow(key(*number)).is_some(), "client {number}");
            send(&mut world, *number, ACK);
        }
        assert_eq!(world.service().flows_opened, CROWD as u64, "none twice");
        whole(&world);
    }
}

#[test]
fn a_slot_that_a_killed_daemon_had_in_hand_is_free_again() {
    for hook in BOTH {
        let mut world = small(hook);
        fill(&mut world);
        let mut flow = world.flow(key(4)).expect("the flow");
        flow.state |= state::CLOSED | state::BUSY;
        assert!(world.flows.insert(&key(4), flow, SEED));
        assert_eq!(world.flows.recover(SEED), 1);
        whole(&world);
        send(&mut world, SMALL, SYN);
        let expected: Vec<u32> = (0..=SMALL).filter(|number| *number != 4).collect();
        assert_eq!(present(&world, SMALL + 1), expected);
        assert_eq!(world.flows.recover(SEED), 0);
    }
}

/// Three times what fits.
const MANY: u32 = 3 * SMALL;

#[test]
fn a_table_stays_whole_whatever_processors_and_the_daemon_do_to_it_at_once() {
    let clients: Vec<u32> = (0..MANY).collect();
    for hook in BOTH {
        all_at_once(hook, &clients);
    }
}

#[test]
fn so_does_one_whose_entries_all_belong_into_one_bucket() {
    for hook in BOTH {
        all_at_once(hook, &crowd(MANY as usize));
    }
}

/// Three processors send for these clients what comes to mind, and the daemon removes what is closed.
fn all_at_once(hook: Hook, clients: &[u32]) {
    const PACKETS: u32 = 30_000;
    let mut world = small(hook);
    world.keep_time(4_000_000);
    let shared = &world;
    thread::scope(|scope| {
        for seed in 1..=3_u32 {
            scope.spawn(move || {
                let mut random = seed;
                for _ in 0..PACKETS {
                    // xorshift (Marsaglia, 2003).
                    random ^= random << 13;
                    random ^= random >> 17;
                    random ^= random << 5;
                    let flags = [SYN, ACK, ACK, RST][(random >> 24) as usize % 4];
                    let number = clients[random as usize % clients.len()];
                    let frame = Tcp::new(client(number), SERVICE, flags).frame();
                    shared.send(&frame);
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..3_000 {
                let closed = |state: u8| state & state::CLOSED != 0;
                shared.flows.remove_where(SEED, |held| closed(held.state()));
                shared
                    .replies
                    .remove_where(SEED, |held| closed(held.state()));
                thread::yield_now();
            }
        });
    });
    whole(&world);
}
