//! The slots of a flow table: who takes one, and who has it in hand.
//!
//! A slot is used, or busy: then it belongs to the processor (or to the daemon) that marked it, which is what the
//! compare-and-swap of its state word decides; or it is on the stack of free ones, and belongs to who pops it.

use evenkeel_ebpf::abi::{Slot, state};
use evenkeel_ebpf::select;
use evenkeel_ebpf::table::{CHUNK, Entry, NOBODY, Place, Ring, entry, is_over, is_used, rank};

use super::index::{clear, sign};
use super::{NO_SLOT, Table};
use crate::atomic;
use crate::maps::{RING_POSITIONS, RINGS, SETTINGS};

/// The word with an entry's state.
#[inline(always)]
pub fn state_word<T: Table>(value: *mut T::Value) -> *mut u64 {
    // SAFETY: inside of the value, and aligned, as `Entry` promises.
    unsafe { value.cast::<u8>().add(T::Value::STATE_WORD).cast() }
}

/// The state in that word.
#[inline(always)]
pub fn state_in<T: Table>(word: u64) -> u8 {
    (word >> T::Value::STATE_SHIFT) as u8
}

/// How often the stack is tried for: each failure is another processor's success.
const ATTEMPTS: u32 = 8;
/// Chunks that the hand passes for one entry, as long as nothing closed was found.
const CHUNKS: u32 = 4;

/// [`room`] where it is quickly found, which is nearly always; else [`NO_SLOT`].
#[inline(always)]
pub fn room_at_hand<T: Table>() -> u32 {
    let index = pop::<T>(1);
    if index == NO_SLOT {
        fresh::<T>()
    } else {
        index
    }
}

/// Takes a slot, which is then ours; [`NO_SLOT`] if others were faster everywhere.
#[inline(always)]
pub fn room<T: Table>() -> u32 {
    let mut index = pop::<T>(ATTEMPTS);
    if index == NO_SLOT {
        index = fresh::<T>();
    }
    if index == NO_SLOT {
        index = turn::<T>();
    }
    index
}

/// Takes the slot that became free last, trying so many times.
#[inline(always)]
fn pop<T: Table>(attempts: u32) -> u32 {
    let Some(ring) = RINGS.get_ptr_mut(T::Value::RING) else {
        return NO_SLOT;
    };
    for _ in 0..attempts {
        // SAFETY: an aligned word of a live map value; volatile, as other processors write it.
        let (head, old) = unsafe {
            let head = &raw mut (*ring).free;
            (head, head.read_volatile())
        };
        let Some(top) = Ring::top(old) else {
            return NO_SLOT;
        };
        let Some(slot) = T::slot(top) else {
            return NO_SLOT;
        };
        // SAFETY: as above. Where another processor has popped the slot meanwhile, the stack has changed.
        unsafe {
            let below = slot.cast::<u64>().read_volatile();
            if atomic::compare_exchange(head, old, Ring::popped(old, below)) {
                return top;
            }
        }
    }
    NO_SLOT
}

/// Takes the next slot that was never used.
#[inline(always)]
fn fresh<T: Table>() -> u32 {
    let (Some(position), Some(ring), Some(settings)) = (
        RING_POSITIONS.get_ptr_mut(T::Value::RING),
        RINGS.get_ptr_mut(T::Value::RING),
        SETTINGS.get(0),
    ) else {
        return NO_SLOT;
    };
    let count = u64::from(settings.flow_slots / CHUNK);
    // SAFETY: this processor's value, and nothing else of ours runs on it meanwhile; and a word that all add to.
    unsafe {
        let mut index = *position;
        if index % CHUNK == 0 {
            let chunks = &raw mut (*ring).chunks;
            if chunks.read_volatile() >= count {
                return NO_SLOT;
            }
            let chunk = atomic::fetch_add(chunks, 1);
            if chunk >= count {
                return NO_SLOT;
            }
            index = chunk as u32 * CHUNK;
        }
        *position = index + 1;
        index
    }
}

/// Evicts the entry with the lowest rank of those that the hand passes.
#[inline(always)]
fn turn<T: Table>() -> u32 {
    let (Some(ring), Some(settings)) = (RINGS.get_ptr_mut(T::Value::RING), SETTINGS.get(0)) else {
        return NO_SLOT;
    };
    let count = u64::from(settings.flow_slots / CHUNK);
    let (mut lowest, mut victim) = (NOBODY, NO_SLOT);
    let mut first = 0;
    for passed in 0..CHUNKS * CHUNK {
        if passed % CHUNK == 0 {
            if is_over(lowest) {
                break;
            }
            // SAFETY: an aligned word of a live map value.
            let chunk = unsafe { atomic::fetch_add(&raw mut (*ring).hand, 1) };
            first = chunk.checked_rem(count).unwrap_or(0) as u32 * CHUNK;
        }
        let index = first + passed % CHUNK;
        let Some(slot) = T::slot(index) else {
            return NO_SLOT;
        };
        // SAFETY: a live map value; volatile, as other processors write it.
        let (bits, rank) = unsafe {
            let word = state_word::<T>(&raw mut (*slot).value);
            (state_in::<T>(word.read_volatile()), rank_of::<T>(slot))
        };
        if is_used(bits) {
            // All ones if this is the lower one.
            let lower = sign(rank.wrapping_sub(lowest));
            lowest ^= (lowest ^ rank) & lower;
            victim ^= (victim ^ index) & lower as u32;
        }
    }
    if evict::<T>(victim) { victim } else { NO_SLOT }
}

/// Marks a slot as busy whose state word is `old`; false if it no longer is.
#[inline(always)]
pub fn mark_busy<T: Table>(word: *mut u64, old: u64) -> bool {
    let busy = old | u64::from(state::BUSY) << T::Value::STATE_SHIFT;
    // SAFETY: an aligned word of a live map value.
    unsafe { atomic::compare_exchange(word, old, busy) }
}

/// Gives a slot back that is ours; [`NO_SLOT`] if it cannot be put on the stack: then the hand will come by.
#[inline(always)]
pub fn release<T: Table>(index: u32) -> u32 {
    let (Some(slot), Some(ring)) = (T::slot(index), RINGS.get_ptr_mut(T::Value::RING)) else {
        return NO_SLOT;
    };
    // SAFETY: aligned words of live map values, and the slot is ours until it is on the stack.
    unsafe {
        let state_word = state_word::<T>(&raw mut (*slot).value);
        state_word.write_volatile(0);
        let head = &raw mut (*ring).free;
        for _ in 0..ATTEMPTS {
            let old = head.read_volatile();
            slot.cast::<u64>().write_volatile(old & 0xffff_ffff);
            if atomic::compare_exchange(head, old, Ring::pushed(old, index)) {
                return index;
            }
        }
        let over = u64::from(state::USED | state::CLOSED) << T::Value::STATE_SHIFT;
        state_word.write_volatile(over);
    }
    NO_SLOT
}

/// Removes the entry in a slot, which is then ours and busy; false if it is none any more, or another processor has it in
/// hand.
#[inline(always)]
pub fn remove<T: Table>(index: u32) -> bool {
    let (Some(slot), Some(settings)) = (T::slot(index), SETTINGS.get(0)) else {
        return false;
    };
    // SAFETY: an aligned word of a live map value; volatile, as other processors write it.
    let (word, old) = unsafe {
        let word = state_word::<T>(&raw mut (*slot).value);
        (word, word.read_volatile())
    };
    if !is_used(state_in::<T>(old)) || !mark_busy::<T>(word, old) {
        return false;
    }
    // SAFETY: a field of a live map value, which only changes before it is entered.
    let hash = select::hash(unsafe { &(*slot).key }, settings.seed);
    let place = Place::of(hash, settings.flow_buckets);
    clear::<T>(&place, entry(place.tag, index));
    true
}

/// [`remove`], for another entry's sake.
#[inline(always)]
pub fn evict<T: Table>(index: u32) -> bool {
    let Some(slot) = T::slot(index) else {
        return false;
    };
    if !remove::<T>(index) {
        return false;
    }
    // SAFETY: a live map value.
    unsafe {
        let value = &raw mut (*slot).value;
        if state_in::<T>(state_word::<T>(value).read_volatile()) & state::CLOSED == 0 {
            T::evicted(value);
        }
    }
    true
}

/// Marks an entry of ours as busy no more.
#[inline(always)]
pub fn publish<T: Table>(value: *mut T::Value) {
    let busy = u64::from(state::BUSY) << T::Value::STATE_SHIFT;
    // Taken away, as the bit is there and ours alone to clear: one instruction, where a mask is a loop to most JITs.
    // SAFETY: an aligned word of a live map value. Who found it in the index may have set other bits of it.
    unsafe { atomic::fetch_add(state_word::<T>(value), busy.wrapping_neg()) };
}

/// Evicts an entry for good; returns its slot, or [`NO_SLOT`].
#[inline(always)]
pub fn discard<T: Table>(index: u32) -> u32 {
    if !evict::<T>(index) {
        return NO_SLOT;
    }
    release::<T>(index);
    index
}

/// The rank of the entry in a slot.
///
/// # Safety
/// `slot` must be a live map value.
#[inline(always)]
pub unsafe fn rank_of<T: Table>(slot: *mut Slot<T::Value>) -> u64 {
    // SAFETY: words of the value, as `Entry` promises; volatile, as other processors write them.
    let (word, last_seen) = unsafe {
        let value = &raw mut (*slot).value;
        (
            state_word::<T>(value).read_volatile(),
            value
                .cast::<u8>()
                .add(T::Value::LAST_SEEN)
                .cast::<u64>()
                .read_volatile(),
        )
    };
    rank(state_in::<T>(word), last_seen)
}
