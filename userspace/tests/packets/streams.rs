//! Streams in the payload of single packets: however the bytes are cut, and whoever meets them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::{hint, thread};

use evenkeel_ebpf::abi::{Counters, Event};

use crate::wire::{ACK, RST, SYN, Tcp};
use crate::world::{BACKEND, BOTH, CLIENT, Hook, NAT_SOURCE, SERVICE, Setup, World, tuple};
use crate::{flow, from_client, open};

/// The preface, SETTINGS, and so many requests.
fn http2(requests: u32) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    bytes.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
    for index in 0..requests {
        bytes.extend([0, 0, 3, 1, 5]);
        bytes.extend((2 * index + 1).to_be_bytes());
        bytes.extend([0x82, 0x84, 0x86]);
    }
    bytes
}

#[test]
fn streams_are_counted_however_the_bytes_are_cut() {
    let bytes = http2(5);
    for hook in BOTH {
        let world = World::new(hook, Setup::default());
        let cuts = [1, 7, 24, 30, 33, 40, 41, 50, 60];
        for (round, cut) in (1_u16..).zip(cuts) {
            let client = (CLIENT.0, CLIENT.1 + round);
            world.send(&Tcp::new(client, SERVICE, SYN).frame());
            let mut sequence = 1001;
            for part in [&bytes[..cut], &bytes[cut..]] {
                let packet = Tcp {
                    sequence,
                    ..Tcp::new(client, SERVICE, ACK).payload(part)
                };
                world.send(&packet.frame());
                // Once more: a retransmission counts nothing.
                world.send(&packet.frame());
                sequence += part.len() as u32;
            }
            let round = u64::from(round);
            for counters in [world.service(), world.backend()] {
                assert_eq!(
                    (counters.streams, counters.flows_http2),
                    (5 * round, round),
                    "{hook:?}, cut at {cut}"
                );
            }
        }
    }
}

/// Each of two processors gets every segment, at the same time as the other: as a retransmission may come that was
/// sent by another processor's timer.
#[test]
fn segments_that_two_processors_meet_at_once_count_once() {
    const REQUESTS: u32 = 8000;
    let bytes = http2(REQUESTS);
    for hook in BOTH {
        let mut world = World::new(hook, Setup::default());
        open(&mut world, Setup::default());
        // Some segments end with a frame and some inside of one, so that both ways through the walker meet.
        let mut sequence = 1001;
        let mut frames = Vec::new();
        let cuts = [24 + 9, 12, 12, 24, 12, 36, 5, 7, 12, 17, 7];
        let mut rest = &bytes[..];
        for cut in cuts.into_iter().cycle() {
            let (part, others) = rest.split_at(cut.min(rest.len()));
            if part.is_empty() {
                break;
            }
            let packet = Tcp {
                sequence,
                ..from_client(ACK).payload(part)
            };
            frames.push(packet.frame());
            sequence += part.len() as u32;
            rest = others;
        }
        let reached = [AtomicUsize::new(0), AtomicUsize::new(0)];
        thread::scope(|scope| {
            for (mine, other) in [(0, 1), (1, 0)] {
                let (world, frames, reached) = (&world, &frames, &reached);
                scope.spawn(move || {
                    for (index, frame) in frames.iter().enumerate() {
                        reached[mine].store(index, Ordering::Release);
                        for spins in 1_u32.. {
                            if reached[other].load(Ordering::Acquire) >= index {
                                break;
                            }
                            if spins.is_multiple_of(1024) {
                                thread::yield_now();
                            }
                            hint::spin_loop();
                        }
                        // Who waited is late by a little: by how much must vary for the two to meet.
                        for _ in 0..index * (7 * mine + 5) % 32 {
                            hint::spin_loop();
                        }
                        world.send(frame);
                    }
                    reached[mine].store(usize::MAX, Ordering::Release);
                });
            }
        });
        let streams = u64::from(REQUESTS);
        assert_eq!(
            [world.service().streams, world.backend().streams],
            [streams; 2],
            "{hook:?}"
        );
        assert_eq!(flow(&mut world).http2.highest, 2 * REQUESTS - 1, "{hook:?}");
        // A virtual processor that its host takes away holds the flow for longer than the other waits: now and then, where
        // the host is busy.
        let busy = world.event(Event::WalkerBusy);
        assert!(busy * 100 <= frames.len() as u64, "{hook:?}: {busy} times");
    }
}

#[test]
fn a_hundred_streams_in_one_packet_are_counted() {
    for hook in BOTH {
        let mut world = World::new(hook, Setup::default());
        open(&mut world, Setup::default());
        let packet = Tcp {
            sequence: 1001,
            ..from_client(ACK).payload(&http2(100))
        };
        world.send(&packet.frame());
        assert_eq!(world.service().streams, 100);
        assert_eq!(world.event(Event::WalkerBound), 0);
    }
}

#[test]
fn streams_that_the_proxy_opens_are_the_backends() {
    let mut world = World::new(Hook::Egress, Setup::default());
    let proxy = (NAT_SOURCE, 50_000);
    world.passes(&Tcp::new(proxy, BACKEND, SYN).frame());
    let packet = Tcp {
        sequence: 1001,
        ..Tcp::new(proxy, BACKEND, ACK).payload(&http2(3))
    };
    world.passes(&packet.frame());
    let counted = world.backend();
    assert_eq!(
        (counted.flows_opened, counted.packets, counted.streams),
        (1, 2, 3)
    );
    assert_eq!(world.service().streams, 0);
}

#[test]
fn a_connection_to_a_backend_is_counted_from_its_first_payload_on_and_a_check_never() {
    let mut world = World::new(Hook::Egress, Setup::default());
    let (proxy, check) = ((NAT_SOURCE, 50_000), (NAT_SOURCE, 50_001));
    for source in [proxy, check] {
        world.passes(&Tcp::new(source, BACKEND, SYN).frame());
        world.passes(&Tcp::new(source, BACKEND, ACK).frame());
    }
    world.passes(&Tcp::new(check, BACKEND, RST | ACK).frame());
    let silent = world.backend();
    assert_eq!(silent, Counters::default());
    let first = Tcp {
        sequence: 1001,
        ..Tcp::new(proxy, BACKEND, ACK).payload(&http2(1))
    };
    world.passes(&first.frame());
    let counted = world.backend();
    assert_eq!(
        (
            counted.flows_opened,
            counted.flows_closed,
            counted.packets,
            counted.streams
        ),
        (1, 0, 3, 1),
        "with its handshake"
    );
    world.passes(&Tcp::new(proxy, BACKEND, RST | ACK).frame());
    assert_eq!(world.backend().flows_closed, 1);
}

#[test]
fn a_check_is_forgotten_with_the_reset_that_ends_it() {
    let mut world = World::new(Hook::Egress, Setup::default());
    let check = (NAT_SOURCE, 50_000);
    for flags in [SYN, ACK] {
        world.passes(&Tcp::new(check, BACKEND, flags).frame());
        assert!(world.upstream(tuple(check, BACKEND)).is_some());
    }
    world.passes(&Tcp::new(check, BACKEND, RST | ACK).frame());
    assert!(world.upstream(tuple(check, BACKEND)).is_none());
}

#[test]
fn a_check_is_forgotten_when_it_is_refused_but_not_a_connection_that_was_made() {
    let mut world = World::new(Hook::Egress, Setup::default());
    let (refused, made) = ((NAT_SOURCE, 50_000), (NAT_SOURCE, 50_001));
    for source in [refused, made] {
        world.passes(&Tcp::new(source, BACKEND, SYN).frame());
    }
    world.passes(&Tcp::new(made, BACKEND, ACK).frame());
    world.turn_to(Hook::Tc);
    for source in [refused, made] {
        world.passes(&Tcp::new(BACKEND, source, RST | ACK).frame());
    }
    assert!(world.upstream(tuple(refused, BACKEND)).is_none());
    // Its first request crosses the reset.
    world.turn_to(Hook::Egress);
    let first = Tcp {
        sequence: 1001,
        ..Tcp::new(made, BACKEND, ACK).payload(&http2(1))
    };
    world.passes(&first.frame());
    let counted = world.backend();
    assert_eq!(
        (
            counted.flows_opened,
            counted.flows_closed,
            counted.flows_adopted
        ),
        (1, 1, 0)
    );
}

#[test]
fn a_connection_of_the_proxy_that_was_evicted_is_counted_as_adopted() {
    let mut world = World::new(Hook::Egress, Setup::default());
    let proxy = (NAT_SOURCE, 50_000);
    world.passes(&Tcp::new(proxy, BACKEND, SYN).frame());
    assert_eq!(world.event(Event::UpstreamAdopted), 0, "opened by a SYN");
    // As after an eviction: of a connection that has no entry a packet comes from the middle.
    let other = (NAT_SOURCE, 50_001);
    world.passes(&Tcp::new(other, BACKEND, ACK).payload(&http2(1)).frame());
    world.passes(&Tcp::new(other, BACKEND, ACK).frame());
    assert_eq!(world.event(Event::UpstreamAdopted), 1, "once");
    assert_eq!(world.backend().flows_adopted, 1);
}
