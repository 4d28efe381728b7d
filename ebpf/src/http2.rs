//! The HTTP/2 frame walker: how many streams a client opened, from the TCP payload alone.
//!
//! # What it counts
//! Frame headers are never compressed, and the ids of a client's streams are odd and only grow (RFC 9113 section
//! 5.1.1). So `(highest id + 1) / 2` is the number of streams since the connection was born, even where the walker
//! came late and no HPACK state is left. `highest` only grows, so nothing is counted twice, however often it is
//! sent; and every frame on a later stream repairs whatever was missed before it.
//!
//! # The front
//! In step, `next` is the sequence number of the next frame header. A segment that ends before it costs one
//! comparison (most segments of bulk DATA), otherwise the walker hops from header to header. A header split between
//! segments waits in `partial`. The flow's first bytes must be the connection preface (RFC 9113 section 3.4), else
//! the payload is TLS or something else and is left alone; the preface may follow within the first segments, which
//! is how an HTTP/1.1 upgrade to h2c looks (RFC 7540 section 3.2).
//!
//! # The hole
//! A segment beyond `next` means loss or reordering before us. `next` then becomes the `hole`: a boundary that is
//! *known*, from which the chain continues once the retransmission comes. Meanwhile the front searches on in the
//! segments that still arrive. A header that starts in the hole and ends in the segment behind it (the island) is
//! put together from `hole_partial` and `island_head`. Once the hole's chain reaches the front, the hole is closed.
//!
//! # The search
//! Every offset of a segment can be the start of a header (a candidate) if it looks like one (where no byte of the next
//! eight is zero none can, and all eight are passed over at once); the headers that follow it where its length says, in this segment or a later one, confirm it. What speaks for a candidate is
//! added up to [`CONFIRMED`]: one for each header of its chain, one if it starts with the segment, [`EXACT_END`] if
//! the chain ends with the segment. Random bytes pass for a header about once in 10^7 offsets where nothing is known
//! of the flow, and far less often where `highest` is: ids can then not have grown faster than the bytes that went
//! by, which is worth one more. Real headers read from one or three bytes on are the likelier trap (`00 00 05 00 01`
//! is also the start of a header with length 0x0500), and the chain of such a false header may well land on a real
//! one, which then confirms it. So the chain is believed once confirmed, but an id that came before that only if
//! another one close to it was heard.
//!
//! # What is not exact
//! - An id that the client skipped counts as a stream (nghttp skips six, see docs/accuracy.md).
//! - While the front searches, the count lags behind; it catches up with the next frame on a newest stream. It stays
//!   behind only where a connection *ends* like that, its last requests among what was lost: with two holes at once
//!   of which the older one held them (one hole is remembered, the newest), with a retransmission that itself came
//!   out of order, with segments of a few bytes around the hole, or if after it not enough came to confirm a
//!   candidate. Single losses among requests of a segment each or of full segments cost nothing (the tests lose 2 %).
//! - A flow found in the middle whose client sends nothing but connection-level frames counts 0 until it sends a
//!   frame on a stream.
//! - Payload that contains a run of plausible HTTP/2 frames itself (HTTP/2 tunnelled in HTTP/2, or a capture of it)
//!   can be mistaken for frames by the *search*; never by a walker that is in step.
//! - A packet with more headers than the loop's bound is left in the middle, and found again on the next.
//!
//! # For the verifier
//! One bounded loop does everything (walking, confirming, searching, backtracking), so that its body is verified
//! once per turn; positions are opaque to the verifier, and there are few branches in the body. `bpf_loop` (from
//! 5.17) would verify the body once and lift the bound, at the price of an indirect call per frame and of kernels
//! before 5.17: the bound is reached only by packets of more than 64 KiB / 16 headers, so the loop stays.

mod course;
mod cursor;
pub mod frame;
mod front;

use crate::abi::{Http2, http2_phase as phase};
use crate::packet::Bytes;
use course::{choose, expects_preface, settle_front, settle_hole, upgrades};
use cursor::{Cursor, Lane};
use frame::{HEADER, Header};
pub use front::Front;

/// What a client sends first (RFC 9113 section 3.4).
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PREFACE_LENGTH: u32 = PREFACE.len() as u32;
/// The first eight bytes of [`PREFACE`].
const PREFACE_HEAD: [u8; 8] = *b"PRI * HT";

/// What must speak for a candidate before it is believed; see the module's documentation.
const CONFIRMED: u8 = 4;
/// What it counts that a candidate's chain ends where the segment does.
const EXACT_END: u8 = 2;
/// After so many segments searched in vain only the starts of segments are tried.
const MISSES: u8 = 64;
/// An upgrade to h2c is looked for in so many segments.
const UPGRADE_SEGMENTS: u8 = 16;
/// A hole further behind than this will not be filled any more: no receive window is larger (RFC 7323 section 2.3).
const STALE: u32 = 1 << 30;

/// Bits of `flags` in [`Http2`].
pub mod flag {
    /// The flow's first byte is known.
    pub const FROM_START: u8 = 1 << 0;
    /// `hole` is a known boundary with unseen bytes behind it.
    pub const HOLE: u8 = 1 << 1;
    /// The front expects the connection preface, of which `partial_length` bytes came.
    pub const PREFACE: u8 = 1 << 2;
    /// The hole expects the connection preface.
    pub const HOLE_PREFACE: u8 = 1 << 3;
    /// `island_head` and `island` are valid.
    pub const ISLAND: u8 = 1 << 4;
    /// The flow was found to carry HTTP/2.
    pub const RECOGNISED: u8 = 1 << 5;
    /// `candidate_highest` was heard twice, or is close to `highest`.
    pub const WITNESSED: u8 = 1 << 6;
}

/// Where the TCP payload of a packet is.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Offset of the payload; at least 8, as headers come before it.
    pub offset: u32,
    /// Length of the payload, as the IP header has it (Ethernet pads short frames).
    pub length: u32,
    /// Sequence number of the payload's first byte, host byte order.
    pub sequence: u32,
}

/// What a segment brought.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Walk {
    /// Streams opened that were not known before.
    pub opened: u32,
    /// The flow was just found to carry HTTP/2.
    pub recognised: bool,
    /// The boundary was lost in this segment.
    pub lost: bool,
    /// The loop's bound was reached before the segment's end.
    pub bound_reached: bool,
}

/// Number of streams that a connection has opened whose highest client stream id is `highest`.
#[inline(always)]
#[must_use]
pub const fn streams(highest: u32) -> u32 {
    (highest >> 1) + (highest & 1)
}

/// The state of a flow whose SYN has sequence number `sequence`.
#[inline(always)]
#[must_use]
pub const fn opened(sequence: u32) -> Http2 {
    Http2 {
        next: sequence.wrapping_add(1),
        highest: 0,
        partial: 0,
        hole_partial: 0,
        island_head: 0,
        hole: 0,
        candidate_highest: 0,
        partial_length: 0,
        hole_partial_length: 0,
        phase: phase::UNKNOWN,
        flags: flag::FROM_START | flag::PREFACE,
        score: 0,
        misses: 0,
        island: 0,
    }
}

/// Takes one segment into account; at most `FRAMES` headers (or candidates) of it.
#[inline(always)]
pub fn walk<const FRAMES: u32, B: Bytes>(state: &mut Http2, bytes: &B, segment: Segment) -> Walk {
    let front = Front::of(state);
    if let Some(reached) = walk_in_step::<{ IN_STEP }, B>(state, front, bytes, segment) {
        state.next = reached.next;
        state.highest = reached.highest;
        return Walk {
            opened: reached.opened_since(front),
            ..Walk::default()
        };
    }
    let mut work = Work::new(*state, segment);
    let mut next = work.start(bytes);
    while next == Next::Preface {
        next = work.read_preface(bytes);
    }
    if next == Next::Turns {
        for _ in 0..FRAMES {
            if !work.turn(bytes) {
                break;
            }
        }
        work.finish(bytes);
    }
    *state = work.state;
    work.walk
}

/// Headers that [`walk_in_step`] takes of one segment.
pub const IN_STEP: u32 = 16;

/// The common case, fast: a flow in step, nothing missing, and a segment that holds whole headers only, at most
/// `FRAMES`. Returns where the front of the flow, now at `front`, comes to; `None` leaves the segment to [`Work`].
#[inline(always)]
pub fn walk_in_step<const FRAMES: u32, B: Bytes>(
    state: &Http2,
    front: Front,
    bytes: &B,
    segment: Segment,
) -> Option<Front> {
    let wanted = flag::RECOGNISED;
    let given = state.flags & (flag::RECOGNISED | flag::HOLE | flag::PREFACE);
    if state.phase != phase::SYNCHRONISED || given != wanted || state.partial_length != 0 {
        return None;
    }
    let mut at = front.next.wrapping_sub(segment.sequence);
    if (at as i32) < 0 || front.is_taken() {
        return None;
    }
    let mut highest = front.highest;
    for _ in 0..FRAMES {
        if at.wrapping_add(HEADER) > segment.length {
            break;
        }
        let header = Header::new(bytes.load(segment.offset.wrapping_add(at))?);
        let opened = match header.request_frame() {
            Some(stream) => stream & (stream & 1).wrapping_neg(),
            None if header.is_possible() => header.opened(),
            None => return None,
        };
        highest = if opened > highest { opened } else { highest };
        at = at.wrapping_add(HEADER).wrapping_add(header.length());
    }
    if at < segment.length {
        return None;
    }
    Some(Front {
        next: segment.sequence.wrapping_add(at),
        highest,
    })
}

/// What a phase of [`Work`] leaves to do.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Nothing.
    End = 0,
    /// [`Work::turn`] until it says false, then [`Work::finish`].
    Turns = 1,
    /// [`Work::read_preface`].
    Preface = 2,
}

/// A segment in the making: the phases of [`walk`], apart so that each can be a function of its own to the verifier.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct Work {
    /// The flow's state.
    pub state: Http2,
    /// The segment.
    pub segment: Segment,
    /// What it brought so far.
    pub walk: Walk,
    cursor: Cursor,
    /// Bytes of the preface that are known to be right.
    preface: u32,
    /// `highest` before the segment.
    before: u32,
}

impl Work {
    /// Nothing done yet.
    #[inline(always)]
    #[must_use]
    pub fn new(state: Http2, segment: Segment) -> Self {
        Self {
            before: state.highest,
            preface: 0,
            cursor: Cursor::new(&state, Lane::Front, segment),
            state,
            segment,
            walk: Walk::default(),
        }
    }

    /// Which chain the segment continues.
    #[inline(always)]
    pub fn start<B: Bytes>(&mut self, bytes: &B) -> Next {
        let (state, segment) = (&mut self.state, self.segment);
        if segment.length == 0 || state.phase == phase::TLS {
            return Next::End;
        }
        if state.phase == phase::OTHER && !upgrades(state, bytes, segment) {
            return Next::End;
        }
        let Some(lane) = choose(state, bytes, segment, &mut self.walk) else {
            return Next::End;
        };
        self.cursor = Cursor::new(state, lane, segment);
        if expects_preface(state, lane) {
            self.preface = self.cursor.carry;
            return Next::Preface;
        }
        self.cursor.join_carry(bytes, segment);
        Next::Turns
    }

    /// Compares one byte of the preface; it comes once in a connection's life, so one a call is fast enough.
    #[inline(always)]
    pub fn read_preface<B: Bytes>(&mut self, bytes: &B) -> Next {
        let (state, segment, cursor) = (&mut self.state, self.segment, &mut self.cursor);
        let hole = matches!(cursor.lane, Lane::Hole);
        let position = self.preface.wrapping_sub(cursor.carry);
        let Some(expected) = PREFACE.get(self.preface as usize) else {
            cursor.at = cursor.at.wrapping_add(position);
            cursor.carry = 0;
            if hole {
                state.flags &= !flag::HOLE_PREFACE;
            } else {
                state.flags &= !flag::PREFACE;
                state.phase = phase::SYNCHRONISED;
            }
            return Next::Turns;
        };
        if position >= segment.length.wrapping_sub(cursor.at) {
            if hole {
                state.hole_partial_length = self.preface as u8;
            } else {
                state.partial_length = self.preface as u8;
            }
            return Next::End;
        }
        let start = segment.offset.wrapping_add(cursor.at);
        if bytes.load(start.wrapping_add(position)) != Some([*expected]) {
            let tls = self.preface == 0 && bytes.load(start) == Some([0x16, 3]);
            state.phase = if tls { phase::TLS } else { phase::OTHER };
            state.flags = flag::FROM_START;
            state.misses = 0;
            return Next::End;
        }
        self.preface = self.preface.wrapping_add(1);
        Next::Preface
    }

    /// One header, or one candidate; false at the end.
    #[inline(always)]
    pub fn turn<B: Bytes>(&mut self, bytes: &B) -> bool {
        !self.cursor.is_split(self.segment) && self.cursor.turn(bytes, self.segment)
    }

    /// Stores where the walk came to.
    #[inline(always)]
    pub fn finish<B: Bytes>(&mut self, bytes: &B) {
        let (state, segment, walk) = (&mut self.state, self.segment, &mut self.walk);
        let boundary = if self.cursor.is_split(segment) {
            self.cursor.split(segment)
        } else {
            self.cursor.end();
            walk.lost |= self.cursor.lost;
            walk.bound_reached = self.cursor.at.wrapping_add(HEADER) <= segment.length;
            self.cursor.boundary(bytes, segment)
        };
        match self.cursor.lane {
            Lane::Hole => settle_hole(state, &self.cursor, boundary),
            Lane::Front | Lane::Search => settle_front(state, &self.cursor, boundary, segment),
        }
        walk.opened = streams(state.highest).wrapping_sub(streams(self.before));
        if state.phase == phase::SYNCHRONISED && state.flags & flag::RECOGNISED == 0 {
            state.flags |= flag::RECOGNISED;
            walk.recognised = true;
        }
    }
}
