//! The index of a flow table: which slot has which key.
//!
//! Words are only ever written by compare-and-swap, from 0 to an entry and back, each by the processor that has the entry's
//! slot in hand.

use core::arch::asm;

use evenkeel_ebpf::abi::Tuple;
use evenkeel_ebpf::table::{Bucket, NOBODY, Place, WAYS, entry, slot_of, tag_of};

use super::ring::rank_of;
use super::{NONE, Table};
use crate::atomic;
use crate::frame::opaque;
use crate::maps::SETTINGS;

/// The word with a key's tag, or 0. Of two it would be the sum.
#[inline(always)]
pub fn search<T: Table>(place: &Place) -> Option<u64> {
    let bucket = T::bucket(place.first)?;
    let found = search_one(bucket, place.tag);
    if found == 0 && overflowed(bucket) {
        return Some(search_one(T::bucket(place.second)?, place.tag));
    }
    Some(found)
}

/// Whether entries of a bucket may be in its neighbour.
#[inline(always)]
fn overflowed(bucket: *mut Bucket) -> bool {
    // SAFETY: a word of a live map value; volatile, as other processors write it.
    unsafe { (&raw const (*bucket).overflowed).read_volatile() != 0 }
}

/// The word of a bucket that has this tag, or 0. Of two it would be the sum.
#[inline(always)]
fn search_one(bucket: *mut Bucket, tag: u32) -> u64 {
    let words = bucket.cast::<u64>();
    let mut found = 0_u64;
    let mut way = 0;
    while way < WAYS {
        // SAFETY: a word of a live map value; volatile, as other processors write it.
        let word = unsafe { words.add(way).read_volatile() };
        found = found.wrapping_add(word & all_if_equal(tag_of(word), tag));
        way += 1;
    }
    found
}

/// What a look for a key found.
pub struct Look {
    /// See [`search`].
    pub found: u64,
    /// The first word of its first bucket that is free, or [`WAYS`].
    pub free: u64,
}

/// [`search`], and where a new entry may go.
#[inline(always)]
pub fn look<T: Table>(place: &Place) -> Option<Look> {
    let bucket = T::bucket(place.first)?;
    let words = bucket.cast::<u64>();
    let (mut found, mut free) = (0_u64, WAYS as u64);
    let mut way = WAYS;
    while way > 0 {
        way -= 1;
        // SAFETY: a word of a live map value; volatile, as other processors write it.
        let word = unsafe { words.add(way).read_volatile() };
        found = found.wrapping_add(word & all_if_equal(tag_of(word), place.tag));
        // No tag is 0.
        free ^= (free ^ way as u64) & all_if_equal(tag_of(word), 0);
    }
    if found == 0 && overflowed(bucket) {
        found = search_one(T::bucket(place.second)?, place.tag);
    }
    Some(Look { found, free })
}

/// All bits if `one` is `other`, else none; without a branch, of which eight would be followed by the verifier in all
/// their combinations, and one mispredicted for one flow after another.
#[inline(always)]
pub fn all_if_equal(one: u32, other: u32) -> u64 {
    sign(u64::from(one ^ other).wrapping_sub(1))
}

/// The highest bit in all places. In assembly, as the compiler makes a branch of any other way to say so.
#[inline(always)]
pub fn sign(mut value: u64) -> u64 {
    // SAFETY: arithmetic on a register.
    unsafe { asm!("{0} s>>= 63", inout(reg) value, options(pure, nomem, nostack)) };
    value
}

/// Whether two tuples are the same.
///
/// # Safety
/// Both must be readable; the first may be changed by other processors, and is then none of ours.
#[inline(always)]
pub unsafe fn same_key(present: *const Tuple, wanted: *const Tuple) -> bool {
    const WORDS: usize = size_of::<Tuple>() / 8;
    let (present, wanted) = (present.cast::<u64>(), wanted.cast::<u64>());
    let mut differing = 0;
    let mut at = 0;
    // As words: bytes would be five times the instructions.
    while at < WORDS {
        // SAFETY: a tuple is that many words, and aligned to one.
        differing |= unsafe { present.add(at).read_volatile() ^ wanted.add(at).read() };
        at += 1;
    }
    differing == 0
}

/// Clears the word of either bucket that is `entry`.
#[inline(always)]
pub fn clear<T: Table>(place: &Place, entry: u64) {
    for bucket in [place.first, place.second] {
        let Some(bucket) = T::bucket(bucket) else {
            return;
        };
        let mut way = 0;
        while way < WAYS {
            // SAFETY: an aligned word of a live map value, which becomes something else only by whom its slot belongs to.
            unsafe {
                let word = bucket.cast::<u64>().add(way);
                if word.read_volatile() == entry {
                    atomic::compare_exchange(word, entry, 0);
                    return;
                }
            }
            way = opaque(way + 1);
        }
    }
}

/// What [`enter`] says: nobody else has the tag.
pub const ALONE: u32 = 0;
/// Somebody has; see [`settle`].
pub const NOT_ALONE: u32 = 1;
/// Nothing was entered: both buckets are full.
pub const FULL: u32 = 2;

/// Enters the slot `index`, whose key has this `hash`, into a bucket.
#[inline(always)]
pub fn enter<T: Table>(index: u32, hash: u64) -> u32 {
    let Some(settings) = SETTINGS.get(0) else {
        return FULL;
    };
    let place = Place::of(hash, settings.flow_buckets);
    let ours = entry(place.tag, index);
    if !put::<T>(place.first, ours) {
        let Some(first) = T::bucket(place.first) else {
            return FULL;
        };
        // SAFETY: a word of a live map value. What enters the entry orders this before it.
        unsafe { (&raw mut (*first).overflowed).write_volatile(1) };
        if !put::<T>(place.second, ours) {
            return FULL;
        }
    }
    beside::<T>(&place, ours)
}

/// [`enter`], into the word `way` of the first bucket if that is still free; [`FULL`] if not.
#[inline(always)]
pub fn enter_at<T: Table>(place: &Place, way: u64, index: u32) -> u32 {
    let ours = entry(place.tag, index);
    let Some(bucket) = T::bucket(place.first) else {
        return FULL;
    };
    // SAFETY: an aligned word of a live map value: a bucket has eight, of which the last is no way.
    let entered = way < WAYS as u64
        && unsafe {
            let word = bucket.cast::<u64>().add((way & 7) as usize);
            atomic::compare_exchange(word, 0, ours)
        };
    if entered {
        beside::<T>(place, ours)
    } else {
        FULL
    }
}

/// Whether an entry that was just entered is alone with its tag.
///
/// Of two processors that enter one key at once at least one sees both: each looks after its own compare-and-swap, and who
/// went to the neighbour had said so before.
#[inline(always)]
fn beside<T: Table>(place: &Place, ours: u64) -> u32 {
    let Some(bucket) = T::bucket(place.first) else {
        return FULL;
    };
    let mut found = search_one(bucket, place.tag);
    if overflowed(bucket) {
        let Some(second) = T::bucket(place.second) else {
            return FULL;
        };
        found = found.wrapping_add(search_one(second, place.tag));
    }
    // The sum of all that have the tag is nearly always ours.
    if found == ours { ALONE } else { NOT_ALONE }
}

/// Puts `ours` into the first free word of a bucket; false if there is none.
#[inline(always)]
pub fn put<T: Table>(bucket: u32, ours: u64) -> bool {
    let Some(bucket) = T::bucket(bucket) else {
        return false;
    };
    let mut way = 0;
    while way < WAYS {
        // SAFETY: an aligned word of a live map value; volatile, as other processors write it.
        unsafe {
            let word = bucket.cast::<u64>().add(way);
            if word.read_volatile() == 0 && atomic::compare_exchange(word, 0, ours) {
                return true;
            }
        }
        way = opaque(way + 1);
    }
    false
}

/// In what [`rival`] returns: it comes before the one asked about.
pub const RIVAL_FIRST: u64 = 1 << 32;
/// It has the same key.
pub const RIVAL_SAME: u64 = 1 << 33;

/// Another slot with the tag of the key in slot `index`, with what is to be known of it; or [`NONE`].
#[inline(always)]
pub fn rival<T: Table>(index: u32, hash: u64) -> u64 {
    let none = u64::from(NONE);
    let Some(settings) = SETTINGS.get(0) else {
        return none;
    };
    let place = Place::of(hash, settings.flow_buckets);
    let ours = entry(place.tag, index);
    let mut first = RIVAL_FIRST;
    for bucket in [place.first, place.second] {
        let Some(bucket) = T::bucket(bucket) else {
            return none;
        };
        let mut way = 0;
        while way < WAYS {
            // SAFETY: a word of a live map value; volatile, as other processors write it.
            let word = unsafe { bucket.cast::<u64>().add(way).read_volatile() };
            if word == ours {
                first = 0;
            } else if tag_of(word) == place.tag {
                let other = slot_of(word);
                let same = u64::from(same_keys::<T>(other, index)) * RIVAL_SAME;
                return u64::from(other) | first | same;
            }
            way = opaque(way + 1);
        }
    }
    none
}

/// Clears the word that [`enter`] entered.
#[inline(always)]
pub fn withdraw<T: Table>(index: u32, hash: u64) -> u32 {
    if let Some(settings) = SETTINGS.get(0) {
        let place = Place::of(hash, settings.flow_buckets);
        clear::<T>(&place, entry(place.tag, index));
    }
    index
}

/// Whether two slots have the same key.
#[inline(always)]
pub fn same_keys<T: Table>(one: u32, other: u32) -> bool {
    match (T::slot(one), T::slot(other)) {
        // SAFETY: fields of live map values.
        (Some(one), Some(other)) => unsafe {
            same_key(&raw const (*one).key, &raw const (*other).key)
        },
        _ => false,
    }
}

/// The entry with the lowest rank in the first bucket of a key with this hash, which is full; or [`NONE`].
#[inline(always)]
pub fn crowded_out<T: Table>(hash: u64) -> u32 {
    let (mut lowest, mut victim) = (NOBODY, NONE);
    let Some(settings) = SETTINGS.get(0) else {
        return NONE;
    };
    let Some(bucket) = T::bucket(Place::of(hash, settings.flow_buckets).first) else {
        return NONE;
    };
    let mut way = 0;
    while way < WAYS {
        // SAFETY: a word of a live map value; volatile, as other processors write it.
        let index = slot_of(unsafe { bucket.cast::<u64>().add(way).read_volatile() });
        way = opaque(way + 1);
        if let Some(slot) = T::slot(index) {
            // SAFETY: a live map value.
            let rank = unsafe { rank_of::<T>(slot) };
            let lower = sign(rank.wrapping_sub(lowest));
            lowest ^= (lowest ^ rank) & lower;
            victim ^= (victim ^ index) & lower as u32;
        }
    }
    victim
}
