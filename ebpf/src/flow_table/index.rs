//! The index of a flow table: which slot has which key.
//!
//! Words are only ever written by compare-and-swap, from 0 to an entry and back, each by the processor that has the entry's
//! slot in hand.

use core::arch::asm;
use core::mem::offset_of;

use evenkeel_ebpf::abi::Tuple;
use evenkeel_ebpf::table::{Bucket, GROUP, NOBODY, Place, WAYS, entry, slot_of, tag_of};

use super::ring::rank_of;
use super::{NO_SLOT, Table};
use crate::atomic;
use crate::frame::opaque;
use crate::maps::SETTINGS;

/// The word with a key's tag, or 0. Of two it would be the sum.
#[inline(always)]
pub fn search<T: Table>(place: &Place) -> Option<u64> {
    let bucket = T::bucket(place.first)?;
    let found = search_one(bucket, place.tag);
    if found == 0 && overflowed(bucket) {
        return Some(T::elsewhere(place.first, place.tag));
    }
    Some(found)
}

/// [`search`] in the neighbours of a bucket.
#[inline(always)]
pub fn elsewhere<T: Table>(first: u32, tag: u32) -> u64 {
    let mut found = 0_u64;
    let mut number = 1;
    while number < GROUP as usize {
        let place = Place { first, tag };
        if let Some(bucket) = T::bucket(place.neighbour(number as u32)) {
            found = found.wrapping_add(search_one(bucket, tag));
        }
        number = opaque(number + 1);
    }
    found
}

/// Whether entries of a bucket are with its neighbours.
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
        found = T::elsewhere(place.first, place.tag);
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

/// Words of a group, those included that are no ways. One counter for buckets and words: functions that others call have
/// hardly any stack.
const GROUP_WORDS: usize = GROUP as usize * BUCKET_WORDS;
/// Words of a bucket.
const BUCKET_WORDS: usize = size_of::<Bucket>() / size_of::<u64>();

/// A word of the group of the bucket `first`, which comes first itself. Where it is no way it is no entry either.
#[inline(always)]
fn word<T: Table>(first: u32, number: usize) -> Option<*mut u64> {
    const { assert!(BUCKET_WORDS == 8 && WAYS == 7) };
    let place = Place { first, tag: 0 };
    let bucket = T::bucket(place.neighbour((number >> 3) as u32))?;
    // SAFETY: a word of a live map value, which is eight of them.
    Some(unsafe { bucket.cast::<u64>().add(number & 7) })
}

/// Clears the word of a group that is `entry`.
#[inline(always)]
pub fn clear<T: Table>(place: &Place, entry: u64) {
    let mut number = 0;
    while number < GROUP_WORDS {
        let Some(word) = word::<T>(place.first, number) else {
            return;
        };
        // SAFETY: an aligned word of a live map value, which becomes something else only by whom its slot belongs to.
        unsafe {
            if word.read_volatile() == entry {
                atomic::compare_exchange(word, entry, 0);
                if number > WAYS {
                    count_overflowed::<T>(place.first, -1);
                }
                return;
            }
        }
        number = opaque(number + 1);
    }
}

/// Counts entries of the bucket `first` that are with its neighbours.
#[inline(always)]
fn count_overflowed<T: Table>(first: u32, more: i64) {
    // The word behind the ways has the count in its low half, and in its high half nothing but zero.
    const { assert!(offset_of!(Bucket, overflowed) == WAYS * size_of::<u64>()) };
    if let Some(word) = word::<T>(first, WAYS) {
        // SAFETY: an aligned word of a live map value.
        unsafe { atomic::fetch_add(word, more as u64) };
    }
}

/// What [`enter`] says: nobody else has the tag.
pub const ALONE: u32 = 0;
/// Somebody has; see [`settle`].
pub const NOT_ALONE: u32 = 1;
/// Nothing was entered: all buckets of the group are full.
pub const FULL: u32 = 2;

/// Enters the slot `index`, whose key has this `hash`, into its bucket, or into a neighbour of that.
#[inline(always)]
pub fn enter<T: Table>(index: u32, hash: u64) -> u32 {
    let Some(settings) = SETTINGS.get(0) else {
        return FULL;
    };
    let place = Place::of(hash, settings.flow_buckets);
    let ours = entry(place.tag, index);
    if !put::<T>(place.first, ours) {
        return FULL;
    }
    // The function inline: from here there is no stack for another call.
    let mut found = elsewhere::<T>(place.first, place.tag);
    if let Some(bucket) = T::bucket(place.first) {
        found = found.wrapping_add(search_one(bucket, place.tag));
    }
    alone(found, ours)
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
/// went to a neighbour had said so before.
#[inline(always)]
fn beside<T: Table>(place: &Place, ours: u64) -> u32 {
    let Some(bucket) = T::bucket(place.first) else {
        return FULL;
    };
    let mut found = search_one(bucket, place.tag);
    if overflowed(bucket) {
        found = found.wrapping_add(T::elsewhere(place.first, place.tag));
    }
    alone(found, ours)
}

/// By the sum of all that have the tag, which is nearly always ours.
#[inline(always)]
fn alone(found: u64, ours: u64) -> u32 {
    if found == ours { ALONE } else { NOT_ALONE }
}

/// Puts `ours` into the first free word of the group of a bucket; false if there is none.
#[inline(always)]
fn put<T: Table>(first: u32, ours: u64) -> bool {
    let mut number = 0;
    while number < GROUP_WORDS {
        let Some(word) = word::<T>(first, number) else {
            return false;
        };
        // SAFETY: aligned words of live map values; volatile, as other processors write them.
        unsafe {
            if number == WAYS {
                // Before the entry is there.
                count_overflowed::<T>(first, 1);
            } else if number & 7 != WAYS
                && word.read_volatile() == 0
                && atomic::compare_exchange(word, 0, ours)
            {
                return true;
            }
        }
        number = opaque(number + 1);
    }
    count_overflowed::<T>(first, -1);
    false
}

/// In what [`rival`] returns: it comes before the one asked about.
pub const RIVAL_FIRST: u64 = 1 << 32;
/// It has the same key.
pub const RIVAL_SAME: u64 = 1 << 33;

/// Another slot with the tag of the key in slot `index`, with what is to be known of it; or [`NO_SLOT`].
#[inline(always)]
pub fn rival<T: Table>(index: u32, hash: u64) -> u64 {
    let none = u64::from(NO_SLOT);
    let Some(settings) = SETTINGS.get(0) else {
        return none;
    };
    let place = Place::of(hash, settings.flow_buckets);
    let ours = entry(place.tag, index);
    let mut first = RIVAL_FIRST;
    let mut number = 0;
    while number < GROUP_WORDS {
        let Some(word) = word::<T>(place.first, number) else {
            return none;
        };
        // SAFETY: a word of a live map value; volatile, as other processors write it.
        let word = unsafe { word.read_volatile() };
        if word == ours {
            first = 0;
        } else if tag_of(word) == tag_of(ours) {
            let other = slot_of(word);
            let same = u64::from(same_keys::<T>(other, slot_of(ours))) * RIVAL_SAME;
            return u64::from(other) | first | same;
        }
        number = opaque(number + 1);
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

/// The entry with the lowest rank in the first bucket of a key with this hash, which is full; or [`NO_SLOT`].
#[inline(always)]
pub fn crowded_out<T: Table>(hash: u64) -> u32 {
    let (mut lowest, mut victim) = (NOBODY, NO_SLOT);
    let Some(settings) = SETTINGS.get(0) else {
        return NO_SLOT;
    };
    let Some(bucket) = T::bucket(Place::of(hash, settings.flow_buckets).first) else {
        return NO_SLOT;
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
