//! What `evenkeel observe` counts of connections that are older than the observation: only what was opened since.

#[allow(dead_code, reason = "shared with other tests, which use all of it")]
mod stream;

use evenkeel_ebpf::exchange::{Change, Read, Reader, Side};
use evenkeel_ebpf::http2::{self, Segment};
use evenkeel_ebpf::watch::{Half, baseline};
use proptest::prelude::*;
use stream::{Connection, Frame, encode, requests};

/// Headers before the payload.
const HEADROOM: usize = 54;
/// Streams that the client had opened before.
const OLD: u32 = 100_000;

/// The client's direction of a flow found in its middle, read as the kernel side reads it.
struct Late {
    half: Half,
    sequence: u32,
}

impl Late {
    fn new() -> Self {
        Self {
            half: Half::default(),
            sequence: u32::MAX - 40,
        }
    }

    /// One segment with these frames; streams opened since observation began.
    fn feed(&mut self, frames: &[Frame]) -> u32 {
        self.feed_bytes(&encode(frames))
    }

    fn feed_bytes(&mut self, payload: &[u8]) -> u32 {
        let packet = [vec![0xff; HEADROOM], payload.to_vec()].concat();
        let segment = Segment {
            offset: HEADROOM as u32,
            length: payload.len() as u32,
            sequence: self.sequence,
        };
        self.sequence = self.sequence.wrapping_add(segment.length);
        let first = self.read(packet.as_slice(), segment);
        self.half.rebase(first);
        self.half.before_and_since().1
    }

    /// The first stream whose beginning was read.
    fn read(&mut self, bytes: &[u8], segment: Segment) -> u32 {
        let state = &mut self.half.http2;
        let Some(mut reader) = Reader::begin(state, &bytes, segment) else {
            http2::walk::<1024, _>(state, &bytes, segment);
            return 0;
        };
        let mut first = 0;
        while reader.fetch(&bytes) == Read::Frame {
            let opened = reader.frame.plain().or_else(|| reader.frame.opened());
            reader.pass(opened.expect("frames of a client"));
            if let Change::Opens(id) = reader.change(Side::Client)
                && first == 0
            {
                first = id;
            }
        }
        assert!(reader.finish(state, &bytes));
        first
    }
}

/// Frames that tell nothing of how many streams there were.
fn tells_nothing(choice: u8) -> Frame {
    match choice % 6 {
        0 => Frame::new(6, 0, 0, 8),
        1 => Frame::new(6, 1, 0, 8),
        2 => Frame::new(4, 1, 0, 0),
        3 => Frame::new(8, 0, 0, 4),
        // An upload that is as old as the connection, and the window of such a download.
        4 => Frame::new(0, 0, 1, 300),
        _ => Frame::new(8, 0, 3, 4),
    }
}

#[test]
fn streams_from_before_are_not_new_whatever_the_first_frame_is() {
    for choice in 0..6 {
        let mut late = Late::new();
        assert_eq!(late.feed(&[tells_nothing(choice)]), 0);
        for request in 0..3 {
            let since = late.feed(&requests(2 * (OLD + request) + 1, 1));
            assert!(
                since <= request + 1,
                "{choice}: {since} after {}",
                request + 1
            );
        }
        let (before, since) = late.half.before_and_since();
        assert_eq!(before + since, OLD + 3, "all are told");
        // What the search finds counts as from before: at most the request that ends it, and one it did not believe.
        assert!(before <= OLD + 2, "{choice}: {before}");
    }
}

#[test]
fn after_a_ping_of_its_own_every_request_is_new() {
    for choice in 0..4 {
        let mut late = Late::new();
        late.feed(&[tells_nothing(choice)]);
        assert_eq!(late.half.baseline, baseline::OPEN, "the frame is believed");
        assert_eq!(late.feed(&requests(2 * OLD + 1, 5)), 5);
        assert_eq!(late.half.before_and_since(), (OLD, 5));
    }
}

proptest! {
    #[test]
    fn a_connection_attached_to_anywhere_never_counts_more_than_was_opened_since(
        choices in prop::collection::vec((any::<bool>(), any::<u8>()), 2..40),
        lengths in prop::collection::vec(1_usize..400, 1..8),
    ) {
        let mut frames = Vec::new();
        let mut next = 2 * OLD + 1;
        for (opens, choice) in choices {
            if opens {
                frames.extend(requests(next, 1));
                next += 2;
            } else {
                frames.push(tells_nothing(choice));
            }
        }
        let opened = (next >> 1) - OLD;
        let bytes = encode(&frames);
        let mut late = Late::new();
        for piece in Connection::new(&frames).pieces(&lengths) {
            // The preface is of another connection: only its frames are sent.
            let start = piece.start.saturating_sub(http2::PREFACE.len());
            let end = piece.end.saturating_sub(http2::PREFACE.len());
            if start < end {
                late.feed_bytes(&bytes[start..end]);
            }
        }
        let (before, since) = late.half.before_and_since();
        prop_assert!(since <= opened, "{since} of {opened}");
        prop_assert!(before == 0 || before + since <= OLD + opened);
        // Once in step nothing is missed.
        let more = late.feed(&requests(next, 1));
        if late.half.baseline == baseline::KNOWN {
            let again = late.feed(&requests(next + 2, 3));
            prop_assert_eq!(again, more + 3);
        }
    }
}
