//! What a peer can do to the stream counter: segments of any bytes, anywhere.

use arbitrary::Arbitrary;
use evenkeel_ebpf::abi::Http2;
use evenkeel_ebpf::http2::{self, PREFACE, Segment};

/// Turns of the stream counter's loop.
pub const FRAMES: u32 = 256;
/// Headers before a payload: Ethernet, IPv4, TCP.
const HEADROOM: usize = 54;

/// A flow and what comes in it.
#[derive(Arbitrary, Debug)]
pub struct Connection {
    /// The sequence number of its SYN.
    first: u32,
    /// Whether that SYN was seen.
    seen: bool,
    /// Whether it begins as HTTP/2 connections of clients do.
    preface: bool,
    segments: Vec<Piece>,
}

/// A segment: where it is, as seen from where the one before ended, and what it holds.
#[derive(Arbitrary, Debug)]
struct Piece {
    moved: i16,
    frames: Vec<Frame>,
    rest: Vec<u8>,
}

/// A frame header, whose length is mostly that of what follows.
#[derive(Arbitrary, Debug)]
struct Frame {
    kind: u8,
    flags: u8,
    stream: u32,
    length: Option<u32>,
    payload: u8,
}

impl Connection {
    /// The state of the stream counter before the first segment.
    pub fn state(&self) -> Http2 {
        if self.seen {
            http2::opened(self.first)
        } else {
            Http2::default()
        }
    }

    /// Packets with their segments, in the order in which they come.
    pub fn packets(&self) -> impl Iterator<Item = (Vec<u8>, Segment)> {
        let mut sequence = self.first.wrapping_add(1);
        let preface = self.preface.then(|| (PREFACE.to_vec(), 0));
        let pieces = self.segments.iter();
        let pieces = pieces.map(|piece| (piece.bytes(), piece.moved));
        preface
            .into_iter()
            .chain(pieces)
            .map(move |(bytes, moved)| {
                sequence = sequence.wrapping_add_signed(moved.into());
                let segment = Segment {
                    offset: HEADROOM as u32,
                    length: bytes.len() as u32,
                    sequence,
                };
                sequence = sequence.wrapping_add(segment.length);
                let mut packet = vec![0xff; HEADROOM];
                packet.extend(bytes);
                (packet, segment)
            })
    }
}

impl Piece {
    fn bytes(&self) -> Vec<u8> {
        let mut bytes: Vec<u8> = self.frames.iter().flat_map(Frame::bytes).collect();
        bytes.extend(&self.rest);
        bytes
    }
}

impl Frame {
    fn bytes(&self) -> Vec<u8> {
        let length = self.length.unwrap_or(self.payload.into());
        let mut bytes = length.to_be_bytes()[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.resize(bytes.len() + usize::from(self.payload), 0x82);
        bytes
    }
}
