//! What docs/accuracy.md promises of the walker where every frame and every segment must be under control: frames
//! that only odd clients send, cut anywhere.

#[allow(dead_code, reason = "shared with other tests, which use all of it")]
mod stream;

use evenkeel_ebpf::http2::streams;
use proptest::prelude::*;
use stream::{Connection, Frame, Receiver, requests};

/// Where sequence numbers start; near the wrap, so that every test crosses it.
const FIRST: u32 = u32::MAX - 300;

/// Frames that open no stream of a client, whatever stream they name.
fn opens_nothing() -> impl Strategy<Value = Frame> {
    let priority = any::<u32>().prop_map(|stream| Frame::new(2, 0, stream >> 1 | 1, 5));
    // A server's streams are even; the client resets them and opens their windows.
    let of_push = (any::<u32>(), prop::bool::ANY).prop_map(|(stream, reset)| {
        let stream = (stream >> 1 & !1) + 2;
        Frame::new(if reset { 3 } else { 8 }, 0, stream, 4)
    });
    let connection = prop_oneof![Just((4, 0)), Just((4, 18)), Just((6, 8)), Just((8, 4))]
        .prop_map(|(kind, length)| Frame::new(kind, 0, 0, length));
    prop_oneof![priority, of_push, connection]
}

/// A request in one of the shapes that RFC 9113 allows: padded, with priority, its header block in pieces.
fn request(stream: u32, shape: u8, length: usize) -> Vec<Frame> {
    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;
    const PADDED: u8 = 8;
    const PRIORITY: u8 = 0x20;
    match shape % 4 {
        0 => vec![Frame::new(1, END_STREAM | END_HEADERS, stream, length)],
        1 => vec![
            Frame::new(1, END_HEADERS | PADDED | PRIORITY, stream, length + 6),
            Frame::new(0, END_STREAM | PADDED, stream, 3 * length),
        ],
        2 => vec![
            Frame::new(1, END_STREAM, stream, 0),
            Frame::new(9, 0, stream, length),
            Frame::new(9, END_HEADERS, stream, 0),
        ],
        _ => vec![
            Frame::new(1, END_HEADERS, stream, length),
            Frame::new(0, 0, stream, 0),
            Frame::new(0, 0, stream, 5 * length),
            Frame::new(1, END_STREAM | END_HEADERS, stream, length),
        ],
    }
}

/// Uploads: most segments hold no header at all.
fn uploads(count: u32, body: usize) -> Connection {
    let frames: Vec<Frame> = (0..count)
        .flat_map(|index| {
            let stream = 1 + 2 * index;
            [Frame::new(1, 4, stream, 25), Frame::new(0, 1, stream, body)]
        })
        .collect();
    Connection::new(&frames)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_shape_of_request_among_frames_that_open_nothing_counts_once(
        shapes in prop::collection::vec((any::<u8>(), 1_usize..80), 1..40),
        between in prop::collection::vec(opens_nothing(), 1..40),
        cuts in prop::collection::vec(1_usize..200, 1..30),
    ) {
        let mut frames = Vec::new();
        let others = between.iter().cycle();
        for ((index, (shape, length)), other) in shapes.iter().enumerate().zip(others) {
            frames.push(other.clone());
            frames.extend(request(2 * index as u32 + 1, *shape, *length));
        }
        let connection = Connection::new(&frames);
        let mut receiver = Receiver::new(FIRST, &connection);
        receiver.feed_in_pieces(0, connection.bytes.len(), &cuts);
        prop_assert_eq!(receiver.opened as usize, shapes.len());
        prop_assert_eq!(receiver.lost, 0);
    }

    #[test]
    fn ids_left_out_count_as_streams_and_nothing_else_does(
        steps in prop::collection::vec(1_u32..100_000, 1..60),
        cuts in prop::collection::vec(1_usize..200, 1..30),
    ) {
        let mut highest = 1;
        let mut frames = Vec::new();
        for step in steps {
            frames.extend(requests(highest, 1));
            highest += 2 * step;
        }
        frames.extend(requests(highest, 1));
        let connection = Connection::new(&frames);
        let mut receiver = Receiver::new(FIRST, &connection);
        receiver.feed_in_pieces(0, connection.bytes.len(), &cuts);
        prop_assert_eq!(receiver.opened, streams(highest));
    }

    #[test]
    fn requests_that_come_up_to_three_segments_late_count_once(
        count in 10_u32..100,
        late in prop::collection::vec((4_usize..30, 1_usize..4), 1..10),
    ) {
        let connection = Connection::new(&requests(1, count));
        let mut order = connection.requests();
        let mut at = 0;
        for (ahead, delay) in late {
            at += ahead;
            // The last ones are in order: a connection that ends out of step may lack its end.
            if at + delay + 4 > order.len() {
                break;
            }
            let piece = order.remove(at);
            at += delay;
            order.insert(at, piece);
        }
        let mut receiver = Receiver::new(FIRST, &connection);
        for piece in order {
            receiver.feed(piece.start, piece.end);
            prop_assert!(receiver.opened <= count);
        }
        prop_assert_eq!(receiver.opened, count);
    }

    #[test]
    fn a_full_segment_of_an_upload_that_comes_late_costs_nothing_once_requests_follow(
        late in 0_usize..28,
        delay in 1_usize..4,
        body in 2500_usize..3500,
    ) {
        let connection = uploads(20, body);
        let mut order = connection.pieces(&[1448]);
        let piece = order.remove(late);
        order.insert(late + delay, piece);
        let mut receiver = Receiver::new(FIRST, &connection);
        for piece in &order {
            receiver.feed(piece.start, piece.end);
            prop_assert!(receiver.opened <= 20);
        }
        prop_assert_eq!(receiver.opened, 20);
    }

    #[test]
    fn two_full_segments_of_an_upload_that_come_late_cost_nothing_once_requests_follow(
        late in 0_usize..15,
        again in 16_usize..28,
        delay in 1_usize..4,
        delay_again in 1_usize..4,
        body in 2500_usize..3500,
    ) {
        let connection = uploads(20, body);
        let mut order = connection.pieces(&[1448]);
        for (late, delay) in [(late, delay), (again, delay_again)] {
            let piece = order.remove(late);
            order.insert(late + delay, piece);
        }
        let mut receiver = Receiver::new(FIRST, &connection);
        for piece in &order {
            receiver.feed(piece.start, piece.end);
            prop_assert!(receiver.opened <= 20);
        }
        prop_assert_eq!(receiver.opened, 20);
    }
}
