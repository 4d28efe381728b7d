//! The flow table: where an entry is found, and which one makes room for another.
//!
//! A table is two arrays. The *index* has [`Bucket`]s of one cache line: seven words, each 0 or the tag of a key and the
//! number of its slot, and one that says whether an entry had to go to one of its neighbours. The *slots* have keys and values
//! (`abi::Slot`). What a lookup waits for is one line of the index and the slot; what a new entry waits for is that line
//! alone, as its slot's memory was used a moment ago, or is next to what
//! was. (The kernel's LRU hash waits for a bucket, for the list elements in it, and for an element that was not used for
//! longest, which is the coldest memory there is.)
//!
//! A new entry gets, in this order (see [`Ring`]):
//! 1. the slot that became free last (a stack: Treiber, Coping with parallelism, 1986; with a counter against the ABA
//!    problem), so that no more memory is in use than there were flows at once;
//! 2. the next slot that was never used, of a chunk that a processor has for itself;
//! 3. only if the table is full, the slot of another: as by CLOCK (Corbató, A paging experiment with the Multics system,
//!    1968) a hand goes round, and of the slots that it passes the entry with the lowest [`rank`] goes.
//!
//! The arrays are the kernel's `BPF_MAP_TYPE_ARRAY`: a lookup is an addition and no call, and userspace reads the same
//! memory.

use core::mem::offset_of;

use crate::abi::{Flow, Reply, VALUE_WORDS, state};

/// Entries of a bucket.
pub const WAYS: usize = 7;
/// Slots that a processor gets at once of those never used, and that the hand passes at once.
pub const CHUNK: u32 = 16;
/// Buckets that take what one of them has no room for: those whose numbers differ in the last three bits.
pub const GROUP: u32 = 8;
/// Slots for so many buckets of the index. The fewer buckets, the more of them the caches hold. When all slots are taken 3.2
/// entries are expected in a bucket, and more than seven in one of 60 (Poisson); the eighth goes to a neighbour. More than 56
/// are in one of 28 million groups: then the lowest in [`rank`] goes before the table is full. (A million slots have 41,000
/// groups.)
const SLOTS_FOR: (u64, u64) = (16, 5);

/// A line of the index. 64 bytes.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Each 0 or an [`entry`].
    pub words: [u64; WAYS],
    /// How many entries of this bucket are with its neighbours: counted before they are entered, and no more after they are
    /// cleared. While it is 0 nobody looks there. (It would only be too high, which costs a look, if a daemon were killed
    /// just then.)
    pub overflowed: u32,
    /// Written, with zero, to have the line brought near. A load would do that as well, but the processor goes on for some 200
    /// instructions behind a load that waits for memory, and for as long as its store buffer lasts behind a store.
    pub touched: u32,
}

/// How slots are given out; one for each table. Each word is on a line of its own: all processors write them. 192 bytes.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ring {
    /// Chunks that were given to processors; no slot behind them was ever used. Of several processors that come when all
    /// are given each counts one more, so it may be more than there are.
    pub chunks: u64,
    /// Zero.
    pub reserved: [u64; 7],
    /// The stack of free slots: the number of the top one, plus 1, in the low half, or 0; in the high half how often it
    /// changed. The first word of a free slot has the low half that was there before it.
    pub free: u64,
    /// Zero.
    pub reserved_free: [u64; 7],
    /// Chunks that the hand has passed.
    pub hand: u64,
    /// Zero.
    pub reserved_hand: [u64; 7],
}

impl Ring {
    /// The slot on top of a stack [`Self::free`].
    #[inline(always)]
    #[must_use]
    pub const fn top(free: u64) -> Option<u32> {
        (free as u32).checked_sub(1)
    }

    /// The stack with `slot` on top.
    #[inline(always)]
    #[must_use]
    pub const fn pushed(free: u64, slot: u32) -> u64 {
        Self::changed(free) | slot.wrapping_add(1) as u64
    }

    /// The stack without the top, whose first word is `below`.
    #[inline(always)]
    #[must_use]
    pub const fn popped(free: u64, below: u64) -> u64 {
        Self::changed(free) | below & 0xffff_ffff
    }

    #[inline(always)]
    const fn changed(free: u64) -> u64 {
        (free >> 32).wrapping_add(1) << 32
    }

    /// Slots that were ever used, of so many.
    #[must_use]
    pub const fn used(&self, slots: u32) -> u32 {
        let used = self.chunks.saturating_mul(CHUNK as u64);
        if used < slots as u64 {
            used as u32
        } else {
            slots
        }
    }
}

/// Slots of a table for so many flows: as many, in whole chunks.
#[must_use]
pub const fn slots(flows: u32) -> u32 {
    let chunks = match flows.div_ceil(CHUNK) {
        0 => 1,
        chunks => chunks,
    };
    // Only the last chunk of all that are possible would overflow.
    chunks.saturating_mul(CHUNK) / CHUNK * CHUNK
}

/// Buckets of the index of so many slots: whole groups.
#[must_use]
pub const fn buckets(slots: u32) -> u32 {
    let (slots_for, buckets) = SLOTS_FOR;
    let group = GROUP as u64;
    // Fewer than the slots, or a group: it fits.
    ((slots as u64 * buckets).div_ceil(slots_for * group) * group) as u32
}

/// Where a key is to be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The bucket. Where it was full, the key is in one of its [`neighbours`](Self::neighbour).
    pub first: u32,
    /// What stands for the key in it; never 0.
    pub tag: u32,
}

impl Place {
    /// The place of a key with this (seeded) `hash`, in a table of so many buckets.
    #[inline(always)]
    #[must_use]
    pub const fn of(hash: u64, buckets: u32) -> Self {
        // The high half scaled: multiply and shift, no division.
        let first = ((hash >> 32).wrapping_mul(buckets as u64) >> 32) as u32;
        Self {
            first,
            tag: hash as u32 | 1,
        }
    }

    /// A bucket of the group of [`Self::first`], of which number 0 is itself; the next one in memory comes next.
    #[inline(always)]
    #[must_use]
    pub const fn neighbour(&self, number: u32) -> u32 {
        self.first ^ number & (GROUP - 1)
    }
}

/// The word of a bucket that says: the key with this `tag` is in this `slot`. Never 0, as no tag is.
#[inline(always)]
#[must_use]
pub const fn entry(tag: u32, slot: u32) -> u64 {
    (tag as u64) << 32 | slot as u64
}

/// The tag of an [`entry`].
#[inline(always)]
#[must_use]
pub const fn tag_of(entry: u64) -> u32 {
    (entry >> 32) as u32
}

/// The slot of an [`entry`].
#[inline(always)]
#[must_use]
pub const fn slot_of(entry: u64) -> u32 {
    entry as u32
}

/// A value of a flow table: where its state is, in a word that processors agree about, and its time.
pub trait Entry: Copy {
    /// Which of `RINGS` is its table's.
    const RING: u32;
    /// Offset of the aligned word that has the state, in bytes.
    const STATE_WORD: usize;
    /// How far the state is from the word's low end, in bits.
    const STATE_SHIFT: u32;
    /// Offset of the time when a packet was last seen, in bytes.
    const LAST_SEEN: usize;
    /// The words that it is in memory.
    fn words(&self) -> [u64; VALUE_WORDS];
}

impl Entry for Flow {
    const RING: u32 = 0;
    const STATE_WORD: usize = 8;
    const STATE_SHIFT: u32 = 32;
    const LAST_SEEN: usize = offset_of!(Flow, last_seen);
    #[inline(always)]
    fn words(&self) -> [u64; VALUE_WORDS] {
        self.words()
    }
}

impl Entry for Reply {
    const RING: u32 = 1;
    const STATE_WORD: usize = 16;
    const STATE_SHIFT: u32 = 16;
    const LAST_SEEN: usize = offset_of!(Reply, last_seen);
    #[inline(always)]
    fn words(&self) -> [u64; VALUE_WORDS] {
        self.words()
    }
}

const _: () = {
    // Little-endian, as all targets are that evenkeel is built for.
    assert!(cfg!(target_endian = "little"));
    assert!(align_of::<Flow>() == 8 && align_of::<Reply>() == 8);
    assert!(offset_of!(Flow, state) == Flow::STATE_WORD + Flow::STATE_SHIFT as usize / 8);
    assert!(offset_of!(Reply, state) == Reply::STATE_WORD + Reply::STATE_SHIFT as usize / 8);
    assert!(size_of::<Bucket>() == 64 && size_of::<Ring>() == 192);
};

/// Whether a slot with this state holds an entry.
#[inline(always)]
#[must_use]
pub const fn is_used(bits: u8) -> bool {
    bits & (state::USED | state::BUSY) == state::USED
}

/// How dear an entry is; where there is no room, the one with the lowest rank goes. What is closed is over; what was never
/// established is what a flood of SYNs (RFC 4987), or of other segments out of the blue, is made of; of the rest the one
/// silent for longest.
///
/// Never [`NOBODY`].
#[inline(always)]
#[must_use]
pub fn rank(bits: u8, last_seen: u64) -> u64 {
    // Arithmetic, not branches: the verifier would follow every combination of sixteen of them.
    let bit = |mask: u8| u64::from(bits >> mask.trailing_zeros() & 1);
    let opening = bit(state::ESTABLISHED) ^ 1;
    let kind = (2 - opening) * (bit(state::CLOSED) ^ 1);
    // 2^60 ns are 36 years since boot.
    kind << 60 | last_seen & ((1 << 60) - 1)
}

/// Whether a [`rank`] is that of an entry that is over.
#[inline(always)]
#[must_use]
pub const fn is_over(rank: u64) -> bool {
    rank >> 60 == 0
}

/// The rank of a slot that cannot be taken: above all others, and below 2^63, so that a difference of ranks has a sign.
pub const NOBODY: u64 = 1 << 62;

#[cfg(test)]
mod tests;
