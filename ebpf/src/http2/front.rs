//! The front: what two processors must agree on that have segments of one flow in hand.
//!
//! That happens where a flow's packets come by different ways: a retransmission sent by the timer of another processor
//! over veth, a flow that moves to another receive queue. The front is one aligned word of the flow's state, `next` and
//! `highest`, so the common case reads it, walks, and replaces it only if it is still what was read: no stream counts
//! twice. Everything else needs more of the state than a word: it takes the flow first, by the highest bit of the word,
//! which no stream id has (RFC 9113 section 4.1: 31 bits), and gives it back with the state it leaves.

use core::mem::offset_of;

use super::streams;
use crate::abi::Http2;

/// The bit of `highest` that says that a processor has taken the flow.
const TAKEN: u32 = 1 << 31;

const _: () = assert!(
    offset_of!(Http2, next) == 0 && offset_of!(Http2, highest) == 4 && align_of::<Http2>() == 8,
    "the front is the first word"
);

/// Where the chain of frames has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Front {
    /// See [`Http2::next`].
    pub next: u32,
    /// See [`Http2::highest`]; with the highest bit set if a processor has taken the flow.
    pub highest: u32,
}

impl Front {
    /// That of `state`.
    #[inline(always)]
    #[must_use]
    pub fn of(state: &Http2) -> Self {
        Self {
            next: state.next,
            highest: state.highest,
        }
    }

    /// From the first word of the state.
    #[inline(always)]
    #[must_use]
    pub const fn from_word(word: u64) -> Self {
        let word = word.to_le();
        Self {
            next: word as u32,
            highest: (word >> 32) as u32,
        }
    }

    /// As the first word of the state.
    #[inline(always)]
    #[must_use]
    pub const fn word(self) -> u64 {
        (self.next as u64 | (self.highest as u64) << 32).to_le()
    }

    /// Whether a processor has taken the flow.
    #[inline(always)]
    #[must_use]
    pub const fn is_taken(self) -> bool {
        self.highest & TAKEN != 0
    }

    /// The same, taken.
    #[inline(always)]
    #[must_use]
    pub const fn taken(self) -> Self {
        Self {
            next: self.next,
            highest: self.highest | TAKEN,
        }
    }

    /// The same, taken by nobody.
    #[inline(always)]
    #[must_use]
    pub const fn free(self) -> Self {
        Self {
            next: self.next,
            highest: self.highest & !TAKEN,
        }
    }

    /// Streams opened between `before` and here.
    #[inline(always)]
    #[must_use]
    pub const fn opened_since(self, before: Self) -> u32 {
        streams(self.highest).wrapping_sub(streams(before.highest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_front_is_the_first_word_of_the_state() {
        let state = Http2 {
            next: 0x0102_0304,
            highest: 0x0506_0709,
            ..Http2::default()
        };
        let [a, b] = [state.next, state.highest].map(u32::to_ne_bytes);
        let word = u64::from_ne_bytes([a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]]);
        assert_eq!(Front::from_word(word), Front::of(&state));
        assert_eq!(Front::of(&state).word(), word);
    }

    #[test]
    fn taking_a_front_and_freeing_it_changes_nothing_else() {
        let front = Front {
            next: u32::MAX,
            highest: 0x7fff_ffff,
        };
        assert!(!front.is_taken() && front.taken().is_taken());
        assert_eq!(front.taken().free(), front);
    }
}
