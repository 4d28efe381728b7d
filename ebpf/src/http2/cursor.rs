//! The position of a chain of frames within one segment, and the loop that moves it.

use super::frame::{HEADER, Header};
use super::{CONFIRMED, EXACT_END, MISSES, Segment, flag};
use crate::abi::{Http2, http2_phase as phase};
use crate::packet::Bytes;

/// Ids that a client may use, where nothing is known of the flow (31 bits).
const ANY_STREAM: u32 = 0x7fff_ffff;
/// Ids this close to each other, or to the highest known, speak for each other: clients rarely have more streams open.
const NEAR: u32 = 512;
/// Stands before offset 0: a candidate that began in an earlier segment.
const BEFORE_SEGMENT: u32 = u32::MAX;

/// Which chain a segment continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// The one at `next`, known or a candidate.
    Front,
    /// The one at `hole`.
    Hole,
    /// None: look for one.
    Search,
}

/// See the module.
#[derive(Clone, Copy, Debug)]
pub struct Cursor {
    /// Which chain.
    pub lane: Lane,
    /// Offset in the segment of the next header; 0 while there is a carry.
    pub at: u32,
    /// So many bytes of that header came with earlier segments.
    pub carry: u32,
    /// Where the candidate began; [`BEFORE_SEGMENT`] makes the search begin with the segment if it fails.
    start: u32,
    /// The header whose first bytes are carried.
    carried: Header,
    /// What speaks for the chain; [`CONFIRMED`] if it is known.
    pub score: u8,
    /// The score that confirms a candidate: one less where `limit` is known, which speaks for it, too.
    needed: u8,
    /// Highest id of what is confirmed.
    pub base: u32,
    /// Highest id of the chain; of a candidate, the last that was not close to the one before.
    pub high: u32,
    /// Something else speaks for `high`.
    pub witnessed: bool,
    /// Ids above are not believed of a candidate.
    limit: u32,
    /// Candidates are looked for up to this offset.
    last_start: u32,
    /// A known chain turned out not to be one.
    pub lost: bool,
    /// The best candidate whose chain goes beyond the segment.
    best: Candidate,
}

#[derive(Clone, Copy, Debug)]
struct Candidate {
    score: u8,
    at: u32,
    high: u32,
    witnessed: bool,
}

impl Cursor {
    /// At the first byte of `segment` that `lane` has not seen.
    #[inline(always)]
    pub fn new(state: &Http2, lane: Lane, segment: Segment) -> Self {
        let known = state.phase != phase::SEARCHING;
        let (position, partial, score, high, origin) = match lane {
            Lane::Hole => (
                state.hole,
                state.hole_partial,
                CONFIRMED,
                state.highest,
                state.hole,
            ),
            Lane::Front if known => (
                state.next,
                state.partial,
                CONFIRMED,
                state.highest,
                state.next,
            ),
            Lane::Front => {
                let high = state.candidate_highest;
                // No walk leaves a confirmed candidate; what is in the map must not lower what was counted either.
                let score = if state.score < CONFIRMED {
                    state.score
                } else {
                    CONFIRMED - 1
                };
                (state.next, state.partial, score, high, state.hole)
            }
            // A segment's start is more often a boundary than any other byte.
            Lane::Search => (segment.sequence, 0, 1, state.highest, state.hole),
        };
        let ahead = segment.sequence.wrapping_sub(position);
        let (at, carry) = if (ahead as i32) > 0 {
            (0, ahead)
        } else {
            (ahead.wrapping_neg(), 0)
        };
        let limited = state.flags & flag::FROM_START != 0 || state.highest != 0;
        let limit = if limited {
            // Nine bytes for a header and at least one for its fields: more than 8 for each id, and ids step by 2.
            let passed = segment
                .sequence
                .wrapping_add(segment.length)
                .wrapping_sub(origin);
            state.highest.saturating_add(2).saturating_add(passed >> 2)
        } else {
            ANY_STREAM
        };
        Self {
            lane,
            at,
            carry,
            start: if matches!(lane, Lane::Search) {
                0
            } else {
                BEFORE_SEGMENT
            },
            carried: Header {
                word: partial,
                last: 0,
            },
            score,
            needed: if limited { CONFIRMED - 1 } else { CONFIRMED },
            base: state.highest,
            high,
            witnessed: state.flags & flag::WITNESSED != 0 && matches!(lane, Lane::Front),
            limit,
            last_start: if state.misses < MISSES {
                segment.length
            } else {
                0
            },
            lost: false,
            best: Candidate {
                score: 0,
                at: segment.length,
                high: state.highest,
                witnessed: false,
            },
        }
    }

    /// Whether the header is incomplete even with this segment.
    #[inline(always)]
    pub fn is_split(&self, segment: Segment) -> bool {
        self.carry > 0 && segment.length.wrapping_add(self.carry) < HEADER
    }

    /// Completes the carried header as far as the segment goes.
    #[inline(always)]
    pub fn join_carry<B: Bytes>(&mut self, bytes: &B, segment: Segment) {
        if self.carry > 0 {
            let available = if segment.length < 8 {
                segment.length
            } else {
                8
            };
            let rest = load_some(bytes, segment.offset, available);
            self.carried = Header::join(self.carried.word, self.carry, rest);
        }
    }

    /// The boundary where even with this segment the carried header is incomplete.
    #[inline(always)]
    pub fn split(&self, segment: Segment) -> Boundary {
        Boundary {
            sequence: segment.sequence.wrapping_sub(self.carry),
            partial: self.carried.word,
            partial_length: self.carry.wrapping_add(segment.length) as u8,
        }
    }

    /// One header, or one candidate; false at the end of the segment, or of the search in it.
    #[inline(always)]
    pub fn turn<B: Bytes>(&mut self, bytes: &B, segment: Segment) -> bool {
        if self.at.wrapping_add(HEADER) > segment.length.wrapping_add(self.carry) {
            return !self.is_settled(segment);
        }
        let header = if self.carry > 0 {
            self.carried
        } else {
            match bytes.load(segment.offset.wrapping_add(self.at)) {
                Some(bytes) => Header::new(bytes),
                None => return false,
            }
        };
        let known = self.score >= CONFIRMED;
        if header.is_possible() && (known || header.is_likely(self.limit)) {
            self.follow(header);
        } else {
            self.lost |= known;
            // A length of at most 16,384 begins with a zero: where none is in sight, no candidate begins.
            let barren = self.at == self.start && header.starts_nowhere();
            self.backtrack(if barren { 8 } else { 1 });
        }
        self.carry = 0;
        true
    }

    /// After the last turn: of several candidates the best one counts.
    #[inline(always)]
    pub fn end(&mut self) {
        if self.score < CONFIRMED {
            let Candidate {
                score,
                at,
                high,
                witnessed,
            } = self.best;
            self.score = score;
            self.at = at;
            self.high = high;
            self.witnessed = witnessed;
        }
    }

    /// At the segment's end: whether it was the end of the search, too. If not, the candidate is put aside.
    #[inline(always)]
    fn is_settled(&mut self, segment: Segment) -> bool {
        if self.score < CONFIRMED && self.score > 0 && self.at == segment.length {
            self.score += EXACT_END;
            if self.score >= self.needed {
                // Frames that fill a segment from end to end speak for themselves.
                self.witnessed |= self.start == 0;
                self.confirm();
            }
        }
        if self.score >= CONFIRMED {
            return true;
        }
        if self.score > self.best.score {
            self.best = Candidate {
                score: self.score,
                at: self.at,
                high: self.high,
                witnessed: self.witnessed,
            };
        }
        self.backtrack(1);
        self.start.wrapping_add(HEADER) > segment.length || self.start > self.last_start
    }

    #[inline(always)]
    fn follow(&mut self, header: Header) {
        let opened = header.opened();
        if self.score >= CONFIRMED {
            self.high = larger(self.high, opened);
            self.base = self.high;
        } else {
            self.score += 1;
            self.hear(opened);
            if self.score >= self.needed {
                self.confirm();
            }
        }
        self.at = self
            .at
            .wrapping_add(HEADER)
            .wrapping_add(header.length())
            .wrapping_sub(self.carry);
    }

    /// Takes a candidate's word for a stream: believed once something else speaks for an id close to it.
    #[inline(always)]
    fn hear(&mut self, opened: u32) {
        if opened != 0 {
            let near = opened.wrapping_sub(self.high).wrapping_add(NEAR) <= 2 * NEAR;
            self.high = if near {
                larger(self.high, opened)
            } else {
                opened
            };
            self.witnessed = near;
        }
    }

    /// The candidate is believed from here on, and its ids if there was a witness.
    #[inline(always)]
    fn confirm(&mut self) {
        self.base = if self.witnessed {
            larger(self.base, self.high)
        } else {
            self.base
        };
        self.high = self.base;
        self.score = CONFIRMED;
    }

    /// Tries the next candidate, so many bytes on.
    #[inline(always)]
    fn backtrack(&mut self, step: u32) {
        self.score = 0;
        self.high = self.base;
        self.witnessed = false;
        self.start = self.start.wrapping_add(step);
        self.at = self.start;
    }

    /// Where the chain goes on, with the first bytes of that header if the segment ends inside of it.
    #[inline(always)]
    pub fn boundary<B: Bytes>(&self, bytes: &B, segment: Segment) -> Boundary {
        let mut boundary = Boundary::at(segment.sequence.wrapping_add(self.at));
        if self.at < segment.length && segment.length.wrapping_sub(self.at) < HEADER {
            let count = segment.length.wrapping_sub(self.at);
            boundary.partial = load_some(bytes, segment.offset.wrapping_add(self.at), count);
            boundary.partial_length = count as u8;
        }
        boundary
    }
}

#[inline(always)]
const fn larger(a: u32, b: u32) -> u32 {
    if a > b { a } else { b }
}

/// The first `count` (1 to 8) bytes from `offset`, the first one as the most significant, in one load: of the eight
/// bytes that end there, as there are always headers before a payload.
#[inline(always)]
fn load_some<B: Bytes>(bytes: &B, offset: u32, count: u32) -> u64 {
    let start = offset.wrapping_add(count).wrapping_sub(8);
    bytes.load(start).map_or(0, |bytes| {
        u64::from_be_bytes(bytes).wrapping_shl(64_u32.wrapping_sub(count.wrapping_mul(8)))
    })
}

/// Where a frame starts, and the first bytes of its header if they came apart.
#[derive(Clone, Copy, Debug)]
pub struct Boundary {
    /// Sequence number of the header.
    pub sequence: u32,
    partial: u64,
    partial_length: u8,
}

impl Boundary {
    /// A boundary at which no byte was seen.
    #[inline(always)]
    pub fn at(sequence: u32) -> Self {
        Self {
            sequence,
            partial: 0,
            partial_length: 0,
        }
    }

    /// Sequence number of the first byte not seen.
    #[inline(always)]
    pub fn end(&self) -> u32 {
        self.sequence.wrapping_add(u32::from(self.partial_length))
    }

    /// Continues here with the front.
    #[inline(always)]
    pub fn becomes_front(&self, state: &mut Http2) {
        state.next = self.sequence;
        state.partial = self.partial;
        state.partial_length = self.partial_length;
    }

    /// Continues here with the hole.
    #[inline(always)]
    pub fn becomes_hole(&self, state: &mut Http2) {
        state.hole = self.sequence;
        state.hole_partial = self.partial;
        state.hole_partial_length = self.partial_length;
    }

    /// Takes a header into account that starts before the island and ends in it; returns the next boundary.
    #[inline(always)]
    pub fn join_island(self, state: &mut Http2) -> Self {
        let meets = self.partial_length > 0 && self.end() as u16 == state.island;
        if !meets || state.flags & flag::ISLAND == 0 {
            return self;
        }
        let length = u32::from(self.partial_length);
        let header = Header::join(self.partial, length, state.island_head);
        if !header.is_possible() {
            return self;
        }
        let opened = header.opened();
        if opened > state.highest {
            state.highest = opened;
        }
        Self::at(
            self.sequence
                .wrapping_add(HEADER)
                .wrapping_add(header.length()),
        )
    }
}
