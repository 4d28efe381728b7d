//! What the frame walker promises, on byte streams cut, lost, repeated and reordered in every way.

mod stream;

use evenkeel_ebpf::abi::{Http2, http2_phase as phase};
use evenkeel_ebpf::http2::{self, PREFACE, streams};
use proptest::prelude::*;
use stream::{Connection, Frame, Receiver, frames};

/// Where sequence numbers start; near the wrap, so that every test crosses it.
const FIRST: u32 = u32::MAX - 300;

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_segmentation_counts_every_stream(
        frames in frames(1..60),
        cuts in prop::collection::vec(1_usize..200, 1..50),
        first: u32,
    ) {
        let connection = Connection::new(&frames);
        let mut receiver = Receiver::new(first, &connection);
        receiver.feed_in_pieces(0, connection.bytes.len(), &cuts);
        prop_assert_eq!(receiver.opened, connection.streams());
        prop_assert_eq!(receiver.state.phase, phase::SYNCHRONISED);
        prop_assert_eq!(receiver.lost, 0);
    }

    #[test]
    fn retransmissions_and_overlaps_count_once(
        frames in frames(1..60),
        steps in prop::collection::vec((1_usize..200, 0_usize..300), 1..60),
    ) {
        let connection = Connection::new(&frames);
        let mut receiver = Receiver::new(FIRST, &connection);
        let mut reached = 0;
        for (forward, back) in steps.iter().cycle() {
            let start = reached - reached.min(*back);
            let end = (reached + forward).min(connection.bytes.len());
            receiver.feed(start, end);
            reached = end;
            if reached == connection.bytes.len() {
                break;
            }
        }
        prop_assert_eq!(receiver.opened, connection.streams());
        prop_assert_eq!(receiver.lost, 0);
    }

    #[test]
    fn one_hole_filled_later_costs_no_stream_of_a_connection_that_goes_on(
        frames in frames(1..60),
        cuts in prop::collection::vec(1_usize..200, 1..50),
        hole: prop::sample::Index,
        delay in 0_usize..20,
    ) {
        let connection = Connection::new(&frames);
        let mut receiver = Receiver::new(FIRST, &connection);
        let pieces = connection.pieces(&cuts);
        let hole = hole.index(pieces.len());
        let mut order: Vec<usize> = (0..pieces.len()).filter(|piece| *piece != hole).collect();
        order.insert((hole + delay).min(order.len()), hole);
        for piece in order {
            receiver.feed(pieces[piece].start, pieces[piece].end);
        }
        prop_assert!(receiver.opened <= connection.streams());
        receiver.feed_more(&stream::requests(connection.next_id(), 2));
        prop_assert_eq!(receiver.opened, connection.streams() + 2);
    }

    #[test]
    fn loss_of_a_few_percent_costs_no_stream_of_requests(
        count in 1_u32..200,
        cuts in prop_oneof![
            // As written, request by request.
            prop::collection::vec(Just(0_usize), 1),
            // As segments when the congestion window holds them back.
            prop::collection::vec(1400_usize..1449, 1..9),
        ],
        losses in prop::collection::vec((0_u32..50, 3_usize..12), 1..500),
    ) {
        let connection = Connection::new(&stream::requests(1, count));
        let pieces = if cuts == [0] {
            connection.requests()
        } else {
            connection.pieces(&cuts)
        };
        let mut receiver = Receiver::new(FIRST, &connection);
        for piece in stream::deliver(&pieces, &losses) {
            receiver.feed(piece.start, piece.end);
        }
        prop_assert_eq!(receiver.opened, count);
    }

    #[test]
    fn whatever_arrives_is_never_overcounted_and_caught_up_with(
        frames in frames(1..60),
        cuts in prop::collection::vec(1_usize..200, 1..50),
        order in prop::collection::vec((any::<prop::sample::Index>(), 1_usize..4), 0..200),
    ) {
        let connection = Connection::new(&frames);
        let mut receiver = Receiver::new(FIRST, &connection);
        let pieces = connection.pieces(&cuts);
        for (index, run) in order {
            let index = index.index(pieces.len());
            let last = (index + run).min(pieces.len()) - 1;
            receiver.feed(pieces[index].start, pieces[last].end);
            prop_assert!(receiver.opened <= connection.streams());
        }
        // Whatever was lost is sent again, in order, and the client goes on.
        for piece in &pieces {
            receiver.feed(piece.start, piece.end);
        }
        receiver.feed_more(&stream::requests(connection.next_id(), 4));
        prop_assert_eq!(receiver.opened, connection.streams() + 4);
    }

    #[test]
    fn attached_in_the_middle_counts_from_the_birth_of_the_connection(
        frames in frames(20..60),
        cuts in prop::collection::vec(1_usize..200, 1..50),
        attach: prop::sample::Index,
    ) {
        let connection = Connection::new(&frames);
        let pieces = connection.pieces(&cuts);
        let attach = attach.index(pieces.len());
        let mut receiver = Receiver::attached_late(FIRST, &connection);
        for piece in &pieces[attach..] {
            receiver.feed(piece.start, piece.end);
            prop_assert!(receiver.opened <= connection.streams());
        }
        receiver.feed_more(&stream::requests(connection.next_id(), 4));
        prop_assert_eq!(receiver.opened, connection.streams() + 4);
    }

    #[test]
    fn garbage_neither_panics_nor_counts(
        segments in prop::collection::vec(
            (prop::collection::vec(any::<u8>(), 0..2000), any::<u32>()), 1..20),
        begun: bool,
    ) {
        let mut receiver = Receiver::bare();
        if begun {
            receiver.state = http2::opened(segments[0].1);
        }
        for (bytes, sequence) in &segments {
            receiver.walk(bytes, *sequence);
        }
        prop_assert_eq!(receiver.opened, 0);
    }

    #[test]
    fn any_state_of_the_map_is_survived(
        words in any::<([u32; 4], [u64; 3])>(),
        bytes_of_state in any::<[u8; 6]>(),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        sequence: u32,
    ) {
        let ([next, highest, hole, candidate_highest], [partial, hole_partial, island_head]) = words;
        let [partial_length, hole_partial_length, phase, flags, score, misses] = bytes_of_state;
        let mut receiver = Receiver::bare();
        receiver.state = Http2 {
            next, highest, partial, hole_partial, island_head, hole, candidate_highest,
            partial_length, hole_partial_length, phase, flags, score, misses, island: next as u16,
        };
        receiver.walk(&bytes, sequence);
    }
}

#[test]
fn a_state_that_no_walk_leaves_lowers_no_count() {
    // A candidate that is confirmed already, with a lower id than what was counted.
    let mut receiver = Receiver::bare();
    receiver.state = Http2 {
        highest: 1_661_498_853,
        flags: 242,
        score: 4,
        ..Http2::default()
    };
    receiver.walk(&[0, 0, 0, 5, 0, 0, 0, 0, 1], 1);
    assert!(receiver.state.highest >= 1_661_498_853);
}

#[test]
fn a_header_split_at_every_offset_counts() {
    let connection = Connection::new(&stream::requests(1, 6));
    let length = connection.bytes.len();
    for first in 1..length {
        for second in [first + 1, first + 2, first + 5, first + 8, first + 9] {
            let mut receiver = Receiver::new(FIRST, &connection);
            receiver.feed(0, first);
            receiver.feed(first, second.min(length));
            receiver.feed(second.min(length), length);
            assert_eq!(receiver.opened, 6, "cut at {first} and {second}");
        }
    }
    let mut receiver = Receiver::new(FIRST, &connection);
    receiver.feed_in_pieces(0, length, &[1]);
    assert_eq!(receiver.opened, 6, "one byte a segment");
}

#[test]
fn a_hole_of_every_place_and_length_counts_once_filled() {
    let connection = Connection::new(&stream::requests(1, 5));
    let length = connection.bytes.len();
    for start in 0..length {
        for end in start + 1..length {
            let mut receiver = Receiver::new(FIRST, &connection);
            receiver.feed(0, start);
            receiver.feed(end, length);
            receiver.feed(start, end);
            assert_eq!(receiver.opened, 5, "{start}..{end} lost, then sent again");
        }
    }
}

#[test]
fn attached_at_every_byte_of_a_connection_counts_its_streams() {
    let connection = Connection::new(&stream::requests(1, 40));
    let length = connection.bytes.len();
    for start in 0..connection.start_of(30) {
        let mut receiver = Receiver::attached_late(FIRST, &connection);
        receiver.feed(start, length);
        assert_eq!(receiver.opened, 40, "attached at byte {start}");
    }
}

#[test]
fn attached_after_ten_thousand_streams_one_request_alone_tells_them_all() {
    let connection = Connection::new(&stream::requests(20_001, 1));
    let mut receiver = Receiver::attached_late(FIRST, &connection);
    receiver.feed(connection.start_of(0), connection.bytes.len());
    assert_eq!(receiver.opened, 10_001);
    assert!(receiver.recognised);
}

#[test]
fn frames_that_open_no_stream_count_none() {
    let connection = Connection::new(&[
        Frame::new(4, 0, 0, 18),
        Frame::new(8, 0, 0, 4),
        Frame::new(2, 0, 13, 5),
        Frame::new(6, 0, 0, 8),
        Frame::new(0x10, 0, 0, 20),
        Frame::new(0xfe, 0xff, 77, 3),
        // Types that end in the bits of DATA, HEADERS and CONTINUATION.
        Frame::new(0x40, 0, 0x7fff_ffff, 3),
        Frame::new(0x41, 4, 77, 3),
        Frame::new(0x89, 0, 79, 0),
        Frame::new(5, 4, 8, 20),
        Frame::new(8, 0, 8, 4),
        Frame::new(7, 0, 0, 8),
    ]);
    let mut receiver = Receiver::new(FIRST, &connection);
    receiver.feed_in_pieces(0, connection.bytes.len(), &[50]);
    assert_eq!(receiver.opened, 0);
    assert_eq!(receiver.state.phase, phase::SYNCHRONISED);
}

#[test]
fn payload_that_looks_like_frames_is_not_counted_in_step() {
    let inner = Connection::new(&stream::requests(1, 30));
    let connection = Connection::new(&[
        Frame::new(1, 4, 1, 30),
        Frame::with_payload(0, 1, 1, &inner.bytes),
    ]);
    let mut receiver = Receiver::new(FIRST, &connection);
    receiver.feed_in_pieces(0, connection.bytes.len(), &[100, 37]);
    assert_eq!(receiver.opened, 1);
}

#[test]
fn frames_larger_than_the_default_are_followed_in_step() {
    let mut frames = vec![Frame::new(1, 4, 1, 30), Frame::new(0, 0, 1, 1_000_000)];
    frames.extend(stream::requests(3, 2));
    let connection = Connection::new(&frames);
    let mut receiver = Receiver::new(FIRST, &connection);
    receiver.feed_in_pieces(0, connection.bytes.len(), &[1448]);
    assert_eq!(receiver.opened, 3);
}

#[test]
fn http1_and_tls_are_named_and_left_alone() {
    let get = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let post = b"POST / HTTP/1.1\r\nhost: a\r\n\r\n";
    let client_hello = [0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];
    for (bytes, expected) in [
        (&get[..], phase::OTHER),
        (&post[..], phase::OTHER),
        (&client_hello[..], phase::TLS),
        (&client_hello[..2], phase::TLS),
    ] {
        let mut receiver = Receiver::bare();
        receiver.state = http2::opened(FIRST);
        receiver.walk(bytes, FIRST + 1);
        receiver.walk(
            &stream::encode(&stream::requests(1, 9)),
            FIRST + 1 + bytes.len() as u32,
        );
        assert_eq!(receiver.state.phase, expected);
        assert_eq!(receiver.opened, 0);
        assert!(!receiver.recognised);
    }
}

#[test]
fn tls_found_in_the_middle_is_named() {
    let mut receiver = Receiver::bare();
    receiver.walk(&[0x17, 3, 3, 0, 40, 1, 2, 3, 4, 5, 6, 7], FIRST);
    assert_eq!(receiver.state.phase, phase::TLS);
}

#[test]
fn an_upgrade_to_h2c_is_noticed() {
    let get = b"GET / HTTP/1.1\r\nupgrade: h2c\r\n\r\n";
    let connection = Connection::new(&stream::requests(3, 4));
    let mut receiver = Receiver::bare();
    receiver.state = http2::opened(FIRST);
    receiver.walk(get, FIRST.wrapping_add(1));
    receiver.walk(&connection.bytes, FIRST.wrapping_add(1 + get.len() as u32));
    assert_eq!(receiver.opened, 5, "the upgraded request is stream 1");
    assert!(receiver.recognised);
}

#[test]
fn a_preface_split_at_every_offset_is_recognised() {
    let connection = Connection::new(&stream::requests(1, 2));
    for cut in 1..PREFACE.len() + 9 {
        let mut receiver = Receiver::new(FIRST, &connection);
        receiver.feed(0, cut);
        receiver.feed(0, cut);
        receiver.feed(cut / 2, connection.bytes.len());
        assert_eq!(receiver.opened, 2, "cut at {cut}");
        assert_eq!(receiver.lost, 0);
    }
}

#[test]
fn a_bound_reached_is_reported_and_recovered_from() {
    let connection = Connection::new(&stream::requests(1, 5000));
    let mut receiver = Receiver::new(FIRST, &connection);
    receiver.feed_in_pieces(0, connection.bytes.len(), &[60_000]);
    assert!(receiver.bounds > 0);
    receiver.feed_more(&stream::requests(10_001, 3));
    assert_eq!(receiver.opened, 5003);
}

#[test]
fn keepalive_probes_change_nothing() {
    let connection = Connection::new(&stream::requests(1, 20));
    let mut receiver = Receiver::new(FIRST, &connection);
    for cut in (0..connection.bytes.len()).step_by(7) {
        let next = (cut + 7).min(connection.bytes.len());
        receiver.feed(cut, next);
        // One byte of no meaning before the next byte (RFC 9293 section 3.8.4).
        receiver.walk(&[0xff], connection.sequence(FIRST, next).wrapping_sub(1));
    }
    assert_eq!(receiver.opened, 20);
    assert_eq!(receiver.lost, 0);
}

#[test]
fn streams_of_ids() {
    assert_eq!(
        [0, 1, 3, 5, 0x7fff_ffff].map(streams),
        [0, 1, 2, 3, 1 << 30]
    );
}
