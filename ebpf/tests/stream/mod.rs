//! Byte streams of HTTP/2 clients, and a receiver that feeds the walker with pieces of them.

use evenkeel_ebpf::abi::Http2;
use evenkeel_ebpf::http2::{self, PREFACE, Segment};
use proptest::prelude::*;
use std::ops::Range;

/// Turns of the walker's loop in these tests.
const FRAMES: u32 = 2048;
/// Headers before the payload.
const HEADROOM: usize = 54;

/// One frame.
#[derive(Clone)]
pub struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    payload: Vec<u8>,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            kind,
            flags,
            stream,
            payload,
        } = self;
        write!(
            f,
            "type {kind} flags {flags:#x} stream {stream} length {}",
            payload.len()
        )
    }
}

impl Frame {
    /// With a payload of `length` bytes that look like nothing.
    pub fn new(kind: u8, flags: u8, stream: u32, length: usize) -> Self {
        let payload = (0..length)
            .map(|i| 0x80 | (i * 7 + 3) as u8)
            .collect::<Vec<_>>();
        Self::with_payload(kind, flags, stream, &payload)
    }

    pub fn with_payload(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Self {
        Self {
            kind,
            flags,
            stream,
            payload: payload.to_vec(),
        }
    }
}

/// `count` requests from stream `first` on, as gRPC clients send them.
pub fn requests(first: u32, count: u32) -> Vec<Frame> {
    (0..count)
        .flat_map(|index| {
            let stream = first + 2 * index;
            [
                Frame::new(1, 4, stream, 20 + (stream as usize % 13)),
                Frame::new(0, 1, stream, 5 + (stream as usize % 7)),
            ]
        })
        .collect()
}

/// What clients send, in any mixture.
pub fn frames(count: Range<usize>) -> impl Strategy<Value = Vec<Frame>> {
    prop::collection::vec((0_u32..13, 1_usize..300, any::<u8>()), count).prop_map(|choices| {
        let mut next = 1;
        let mut frames = vec![Frame::new(4, 0, 0, 18)];
        for (choice, length, noise) in choices {
            // Any stream opened so far.
            let open = |noise: u8| {
                if next == 1 {
                    None
                } else {
                    Some(u32::from(noise) % (next / 2) * 2 + 1)
                }
            };
            match (choice, open(noise)) {
                (0..=3, _) => {
                    frames.push(Frame::new(1, 4 | (noise & 0x29), next, length));
                    next += 2;
                }
                (4, _) => {
                    frames.push(Frame::new(1, 0, next, length));
                    frames.push(Frame::new(9, 0, next, length / 2));
                    frames.push(Frame::new(9, 4, next, length / 3));
                    next += 2;
                }
                (5 | 6, Some(open)) => frames.push(Frame::new(0, noise & 9, open, length * 20)),
                (7, Some(open)) => frames.push(Frame::new(3, 0, open, 4)),
                (8, Some(open)) => frames.push(Frame::new(8, 0, open, 4)),
                (9, _) => frames.push(Frame::new(2, 0, u32::from(noise) | 1, 5)),
                (10, _) => frames.push(Frame::new(4, 1, 0, 0)),
                (11, _) => frames.push(Frame::new(6, noise & 1, 0, 8)),
                _ => frames.push(Frame::new(8, 0, 0, 4)),
            }
        }
        frames
    })
}

/// The frames as bytes.
pub fn encode(frames: &[Frame]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in frames {
        bytes.extend_from_slice(&(frame.payload.len() as u32).to_be_bytes()[1..]);
        bytes.extend_from_slice(&[frame.kind, frame.flags]);
        bytes.extend_from_slice(&frame.stream.to_be_bytes());
        bytes.extend_from_slice(&frame.payload);
    }
    bytes
}

/// What one client sends.
pub struct Connection {
    pub bytes: Vec<u8>,
    frames: Vec<Frame>,
}

impl Connection {
    pub fn new(frames: &[Frame]) -> Self {
        let mut bytes = PREFACE.to_vec();
        bytes.extend(encode(frames));
        Self {
            bytes,
            frames: frames.to_vec(),
        }
    }

    /// The ground truth.
    pub fn streams(&self) -> u32 {
        self.next_id() / 2
    }

    /// The id of the next stream.
    pub fn next_id(&self) -> u32 {
        let opened = self.frames.iter().filter(|frame| frame.kind == 1);
        opened.map(|frame| frame.stream + 2).max().unwrap_or(1)
    }

    /// Where frame `index` starts.
    pub fn start_of(&self, index: usize) -> usize {
        PREFACE.len() + encode(&self.frames[..index]).len()
    }

    /// Sequence number of the byte at `offset`, where `first` is that of the SYN.
    pub fn sequence(&self, first: u32, offset: usize) -> u32 {
        first.wrapping_add(1).wrapping_add(offset as u32)
    }

    /// Cut before every HEADERS frame.
    pub fn requests(&self) -> Vec<Range<usize>> {
        let starts = (0..self.frames.len()).filter(|index| self.frames[*index].kind == 1);
        let mut cuts: Vec<usize> = starts.map(|index| self.start_of(index)).collect();
        cuts.push(self.bytes.len());
        cuts[0] = 0;
        cuts.windows(2).map(|pair| pair[0]..pair[1]).collect()
    }

    /// Cut into segments with these lengths, repeated.
    pub fn pieces(&self, lengths: &[usize]) -> Vec<Range<usize>> {
        pieces(0, self.bytes.len(), lengths)
    }
}

/// The order in which pieces arrive if piece `i` is lost where `losses[i]` begins with 0, and then sent again after
/// so many others; a retransmission is not lost.
pub fn deliver(pieces: &[Range<usize>], losses: &[(u32, usize)]) -> Vec<Range<usize>> {
    let mut order = Vec::new();
    let mut waiting: Vec<(usize, Range<usize>)> = Vec::new();
    for (index, (piece, (loss, delay))) in pieces.iter().zip(losses.iter().cycle()).enumerate() {
        if *loss == 0 {
            waiting.push((index + delay, piece.clone()));
        } else {
            order.push(piece.clone());
        }
        waiting.retain(|(due, piece)| {
            if *due <= index {
                order.push(piece.clone());
            }
            *due > index
        });
    }
    order.extend(waiting.into_iter().map(|(_, piece)| piece));
    order
}

fn pieces(start: usize, end: usize, lengths: &[usize]) -> Vec<Range<usize>> {
    let mut pieces = Vec::new();
    let mut reached = start;
    for length in lengths.iter().cycle() {
        if reached == end {
            break;
        }
        let next = (reached + length).min(end);
        pieces.push(reached..next);
        reached = next;
    }
    pieces
}

/// The walker, and the sum of what it reported.
pub struct Receiver {
    pub state: Http2,
    pub opened: u32,
    pub recognised: bool,
    pub lost: u32,
    pub bounds: u32,
    first: u32,
    bytes: Vec<u8>,
}

impl Receiver {
    /// On nothing in particular.
    pub fn bare() -> Self {
        Self {
            state: Http2::default(),
            opened: 0,
            recognised: false,
            lost: 0,
            bounds: 0,
            first: 0,
            bytes: Vec::new(),
        }
    }

    /// On `connection`, whose SYN was seen and had sequence number `first`.
    pub fn new(first: u32, connection: &Connection) -> Self {
        Self {
            state: http2::opened(first),
            ..Self::attached_late(first, connection)
        }
    }

    /// On `connection`, whose SYN was not seen.
    pub fn attached_late(first: u32, connection: &Connection) -> Self {
        Self {
            first,
            bytes: connection.bytes.clone(),
            ..Self::bare()
        }
    }

    /// One segment with these bytes of the connection.
    pub fn feed(&mut self, start: usize, end: usize) {
        let bytes = self.bytes[start..end].to_vec();
        self.walk(
            &bytes,
            self.first.wrapping_add(1).wrapping_add(start as u32),
        );
    }

    /// Segments of these lengths, repeated.
    pub fn feed_in_pieces(&mut self, start: usize, end: usize, lengths: &[usize]) {
        for piece in pieces(start, end, lengths) {
            self.feed(piece.start, piece.end);
        }
    }

    /// The client sends more, in one segment.
    pub fn feed_more(&mut self, frames: &[Frame]) {
        let start = self.bytes.len();
        self.bytes.extend(encode(frames));
        self.feed(start, self.bytes.len());
    }

    /// A segment of anything.
    pub fn walk(&mut self, payload: &[u8], sequence: u32) {
        let mut packet = vec![0xff; HEADROOM];
        packet.extend_from_slice(payload);
        let segment = Segment {
            offset: HEADROOM as u32,
            length: payload.len() as u32,
            sequence,
        };
        let before = self.state;
        let walk = http2::walk::<FRAMES, _>(&mut self.state, &packet.as_slice(), segment);
        assert_eq!(
            walk.opened,
            http2::streams(self.state.highest) - http2::streams(before.highest),
            "the increase is that of the highest id"
        );
        self.opened += walk.opened;
        self.recognised |= walk.recognised;
        self.lost += u32::from(walk.lost);
        self.bounds += u32::from(walk.bound_reached);
    }
}
