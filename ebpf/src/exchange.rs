//! When streams open and end: the frames of one direction of a flow, one by one, as long as the walker is in step.
//!
//! [`crate::http2`] counts: it survives loss and late attach because every later frame repairs what was missed. This
//! module tells of each frame as it goes by, so that a stream's latency can be taken, and only where its boundaries
//! are certain: [`Reader::begin`] refuses a segment that does not continue where the state says, and the caller leaves
//! that segment to the walker, which finds the boundaries again. What opened or ended in such a segment is not timed.
//!
//! # Both directions
//! A server's frames have the same shape as a client's, without the preface. [`answers`] is the state of a server whose
//! SYN-ACK was seen. Frames name client streams by odd ids in both directions (RFC 9113 section 5.1.1); pushed streams
//! are even and no concern of ours.
//!
//! # What opens and ends a stream
//! - A HEADERS frame of the client with an id above all before opens it (its trailers come with an id known).
//! - END_STREAM of the server, on DATA or on HEADERS (trailers, or an answer without a body), ends it: RFC 9113
//!   section 8.1. A client may still be sending; the answer is complete.
//! - RST_STREAM of either side ends it without an answer (RFC 9113 section 6.4).
//!
//! # Who is the client
//! Where the handshake was not seen, the first field of a HEADERS frame tells: a request's is `:authority`, `:method`,
//! `:path` or `:scheme`, an answer's is `:status` (RFC 9113 section 8.3: pseudo-header fields come first), and these
//! have fixed places in HPACK's static table (RFC 7541 appendix A). Fields that an encoder put into its dynamic table
//! tell nothing; the `:status` 200 is in the static table, so the first ordinary answer settles it.

use crate::abi::{Http2, http2_phase as phase};
use crate::http2::frame::{HEADER, Header};
use crate::http2::{PREFACE, Segment, flag};
use crate::packet::Bytes;

const HEADERS: u64 = 1;
const RST_STREAM: u64 = 3;
const END_STREAM: u64 = 0x1;
const PADDED: u64 = 0x8;
const PRIORITY: u64 = 0x20;

/// The flags that say whether a flow is in step, which is where [`flag::RECOGNISED`] alone is set.
const STEP: u8 = flag::RECOGNISED | flag::HOLE | flag::PREFACE;

/// Bytes of the connection preface.
const PREFACE_LENGTH: u32 = PREFACE.len() as u32;

/// The state of the walker for a server's direction, whose SYN-ACK has sequence number `sequence`: in step from the
/// first byte, as a server sends no preface but SETTINGS (RFC 9113 section 3.4).
#[inline(always)]
#[must_use]
pub fn answers(sequence: u32) -> Http2 {
    Http2 {
        next: sequence.wrapping_add(1),
        phase: phase::SYNCHRONISED,
        flags: flag::FROM_START | flag::RECOGNISED,
        ..Http2::default()
    }
}

/// Moves a server's direction on to `to`, over answers that are no frames: the first frame is taken to start there.
#[inline(always)]
pub fn skip(state: &mut Http2, to: u32) {
    let ahead = to.wrapping_sub(state.next) as i32 > 0;
    if state.phase == phase::SYNCHRONISED && ahead {
        state.next = to;
        state.partial_length = 0;
    }
}

/// Leaves a direction to the walker's search from `at` on, if what comes before was passed over. Else it would wait, as
/// after a loss, for bytes that nobody sends again, and nothing would be timed until then.
#[inline(always)]
pub fn forsake(state: &mut Http2, at: u32) {
    let known = state.next.wrapping_add(u32::from(state.partial_length));
    let missing = at.wrapping_sub(known) as i32 > 0;
    if state.phase == phase::SYNCHRONISED && state.flags & flag::HOLE == 0 && missing {
        state.phase = phase::SEARCHING;
        state.score = 0;
        state.misses = 0;
        // Not a hole to be filled; the limit for ids is reckoned from here.
        state.hole = state.next;
        state.next = at;
        state.partial_length = 0;
    }
}

/// A side of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Side {
    /// Not told yet.
    Unknown = 0,
    /// Opens streams.
    Client = 1,
    /// Answers.
    Server = 2,
}

/// A frame header, and where it is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// See [`Header::word`].
    pub word: u64,
    /// See [`Header::last`].
    pub last: u64,
    /// Offset of the frame's payload in the segment.
    pub payload: u32,
    /// Zero.
    pub reserved: u32,
}

/// What a frame does to its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing that is looked at.
    None,
    /// Opens it.
    Opens(u32),
    /// The answer is complete.
    Ends(u32),
    /// It was given up.
    Resets(u32),
}

impl Frame {
    #[inline(always)]
    const fn header(&self) -> Header {
        Header {
            word: self.word,
            last: self.last,
        }
    }

    /// DATA or HEADERS on a stream, which most frames are: the client's stream that they prove to be open, 0 if it is
    /// none. `None` says nothing of the others.
    #[inline(always)]
    #[must_use]
    pub fn plain(&self) -> Option<u32> {
        let stream = self.header().request_frame()?;
        Some(stream & (stream & 1).wrapping_neg())
    }

    /// The client's stream that this frame proves to be open, 0 if there is none; `None` if no frame can start like
    /// this: the boundaries were wrong.
    #[inline(always)]
    #[must_use]
    pub fn opened(&self) -> Option<u32> {
        let header = self.header();
        header.is_possible().then(|| header.opened())
    }

    /// The client's stream that this frame gives up.
    #[inline(always)]
    #[must_use]
    pub fn resets(&self) -> Option<u32> {
        let header = self.header();
        let stream = header.stream() as u32;
        (header.kind() == RST_STREAM && stream & 1 == 1).then_some(stream)
    }

    /// Offset in the segment of the first field, for a HEADERS frame: behind padding length and priority.
    #[inline(always)]
    #[must_use]
    pub fn fields(&self) -> Option<u32> {
        let header = self.header();
        if header.kind() != HEADERS {
            return None;
        }
        let padded = if header.flags() & PADDED != 0 { 1 } else { 0 };
        let priority = if header.flags() & PRIORITY != 0 { 5 } else { 0 };
        Some(self.payload.wrapping_add(padded).wrapping_add(priority))
    }

    /// Who sends HEADERS whose first field starts with the byte `first`.
    #[inline(always)]
    #[must_use]
    pub const fn sender(first: u8) -> Side {
        // 0x80: indexed. 0x40: literal, added to the table; 0x00, 0x10: literal, not added. With the index of the name.
        let index = match first {
            0x80..=0xff => first & 0x7f,
            0x40..=0x7f => first & 0x3f,
            0x00..=0x1f => first & 0x0f,
            _ => 0,
        };
        match index {
            1..=7 => Side::Client,
            8..=14 => Side::Server,
            _ => Side::Unknown,
        }
    }
}

/// What [`Reader::fetch`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Read {
    /// The segment's end.
    End = 0,
    /// A frame.
    Frame = 1,
    /// The segment goes on, but the next header is not among the bytes given.
    Beyond = 2,
}

/// A position among the frames of a segment.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Reader {
    segment: Segment,
    /// Offset in the segment of the next header; before the segment (wrapped) if its first bytes came earlier.
    at: u32,
    /// Highest client stream id so far.
    highest: u32,
    /// The same without the frame read last.
    before: u32,
    /// The next header lies between segments and is already in `frame`.
    carried: u32,
    /// The frame read last.
    pub frame: Frame,
}

impl Reader {
    /// Where `state` says that the next header starts, right or wrong: see [`Self::continues`]. The frame is left as it is.
    #[inline(always)]
    pub fn restart(&mut self, state: &Http2, segment: Segment) {
        self.segment = segment;
        self.at = state.next.wrapping_sub(segment.sequence);
        self.highest = state.highest;
        self.before = state.highest;
        self.carried = 0;
    }

    #[inline(always)]
    fn at_front(state: &Http2, segment: Segment) -> Self {
        let mut reader = Self {
            segment,
            at: 0,
            highest: 0,
            before: 0,
            carried: 0,
            frame: Frame::default(),
        };
        reader.restart(state, segment);
        reader
    }

    /// Whether [`Self::restart`] leads where [`Self::begin`] would: the common case of a flow in step, with no header
    /// split before the segment. False says nothing of the others.
    #[inline(always)]
    #[must_use]
    pub fn continues(&self, state: &Http2) -> bool {
        state.flags & STEP == flag::RECOGNISED
            && state.phase == phase::SYNCHRONISED
            && state.partial_length == 0
            && self.at as i32 >= 0
    }

    /// At the first header in `segment`; `None` if the state is not in step with it.
    #[inline(always)]
    pub fn begin<B: Bytes>(state: &mut Http2, bytes: &B, segment: Segment) -> Option<Self> {
        let mut reader = Self::at_front(state, segment);
        let given = state.flags & STEP;
        if given == flag::PREFACE && state.phase == phase::UNKNOWN && state.partial_length == 0 {
            if reader.at != 0 || bytes.load(segment.offset) != Some(*PREFACE) {
                return None;
            }
            if segment.length < PREFACE_LENGTH {
                return None;
            }
            state.flags = (state.flags & !flag::PREFACE) | flag::RECOGNISED;
            state.phase = phase::SYNCHRONISED;
            state.next = segment.sequence.wrapping_add(PREFACE_LENGTH);
            reader.at = PREFACE_LENGTH;
            return Some(reader);
        }
        if given != flag::RECOGNISED || state.phase != phase::SYNCHRONISED {
            return None;
        }
        let known = u32::from(state.partial_length);
        if known == 0 {
            return (reader.at as i32 >= 0).then_some(reader);
        }
        // The header's other bytes: at most 8, so that they come in one load of the eight bytes that end with them;
        // before a payload there are always headers.
        let rest = HEADER.wrapping_sub(known);
        let end = reader.at.wrapping_add(HEADER);
        if known > 8 || (end.wrapping_sub(rest) as i32) < 0 || end > segment.length {
            return None;
        }
        let start = segment.offset.wrapping_add(end).wrapping_sub(8);
        let word = u64::from_be_bytes(bytes.load(start)?);
        let word = word.wrapping_shl(64_u32.wrapping_sub(rest.wrapping_mul(8)));
        let header = Header::join(state.partial, known, word);
        reader.frame.word = header.word;
        reader.frame.last = header.last;
        reader.carried = 1;
        Some(reader)
    }

    /// Reads the next header, which is then in [`Self::frame`]. Whether there can be such a frame is not judged here but
    /// by [`Frame::plain`] or [`Frame::opened`]; then it is to be [passed](Self::pass).
    #[inline(always)]
    pub fn fetch<B: Bytes>(&mut self, bytes: &B) -> Read {
        let end = self.at.wrapping_add(HEADER);
        if self.carried == 0 {
            if end > self.segment.length {
                return Read::End;
            }
            let Some(found) = bytes.load(self.offset()) else {
                return Read::Beyond;
            };
            let header = Header::new(found);
            self.frame.word = header.word;
            self.frame.last = header.last;
        }
        self.carried = 0;
        Read::Frame
    }

    /// Goes on behind the frame read last, which proves that the stream `opened` was opened (0: none).
    #[inline(always)]
    pub fn pass(&mut self, opened: u32) {
        self.before = self.highest;
        self.highest = if opened > self.highest {
            opened
        } else {
            self.highest
        };
        self.frame.payload = self.at.wrapping_add(HEADER);
        self.at = self
            .frame
            .payload
            .wrapping_add(self.frame.header().length());
    }

    /// What the frame read last does, sent by `sender`, once it was [passed](Self::pass).
    #[inline(always)]
    #[must_use]
    pub fn change(&self, sender: Side) -> Change {
        if let Some(stream) = self.frame.resets() {
            return Change::Resets(stream);
        }
        let header = self.frame.header();
        let (kind, stream) = (header.kind(), header.stream() as u32);
        if kind > HEADERS || stream & 1 == 0 {
            return Change::None;
        }
        match sender {
            Side::Client if kind == HEADERS && stream > self.before => Change::Opens(stream),
            Side::Server if header.flags() & END_STREAM != 0 => Change::Ends(stream),
            _ => Change::None,
        }
    }

    /// Where the next header is in the packet.
    #[inline(always)]
    #[must_use]
    pub fn offset(&self) -> u32 {
        self.segment.offset.wrapping_add(self.at)
    }

    /// Bytes of the segment from the next header on, 0 if it lies beyond.
    #[inline(always)]
    #[must_use]
    pub fn rest(&self) -> u32 {
        self.segment.length.saturating_sub(self.at)
    }

    /// Whether the next header is already known.
    #[inline(always)]
    #[must_use]
    pub fn carries(&self) -> bool {
        self.carried != 0
    }

    /// Stores where the reader came to; false if bytes of the segment were left unread: see [`Self::finish`].
    #[inline(always)]
    #[must_use]
    pub fn settle(&self, state: &mut Http2) -> bool {
        state.highest = self.highest;
        state.next = self.segment.sequence.wrapping_add(self.at);
        state.partial = 0;
        state.partial_length = 0;
        self.at >= self.segment.length
    }

    /// The same, and keeps what there is of a header at the segment's end; false if frames of the segment were left unread.
    #[inline(always)]
    pub fn finish<B: Bytes>(&self, state: &mut Http2, bytes: &B) -> bool {
        if self.settle(state) {
            return true;
        }
        let (segment, at) = (self.segment, self.at);
        let rest = segment.length.wrapping_sub(at);
        if rest >= HEADER {
            return false;
        }
        let start = segment.offset.wrapping_add(segment.length).wrapping_sub(8);
        if let Some(word) = bytes.load(start) {
            let word = u64::from_be_bytes(word);
            state.partial = word.wrapping_shl(64_u32.wrapping_sub(rest.wrapping_mul(8)));
            state.partial_length = rest as u8;
        }
        true
    }
}

#[cfg(test)]
mod tests;
