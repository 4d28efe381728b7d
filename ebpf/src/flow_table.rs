//! The flow tables `FLOWS` and `REPLIES` as the programs use them; [`evenkeel_ebpf::table`] says what they are like.
//!
//! | operation | how |
//! | --- | --- |
//! | find | the word of the bucket with the key's tag, then the key in the slot that it names |
//! | insert | take a slot; write key and value, marked as busy; enter it into the bucket; then it is busy no more |
//! | enter | compare-and-swap into a free word of the bucket; then look, and of two that came at once the one in the first word holds |
//! | evict | mark the slot as busy, clear its word in the index, put it on the stack of free slots |
//!
//! A slot that is busy belongs to who marked it. So its word in the index is entered and cleared by one processor at a time.
//!
//! Who finds a word finds a whole entry, as the word is written after it. A slot is never unmapped: a pointer to one that
//! was evicted meanwhile counts a packet for the wrong flow at worst, as with the kernel's LRU map.
//!
//! What has loops is in functions of its own, which the verifier looks at once, and not for each caller and each of its
//! ends. They take and return numbers. Their loops are kept loops (by `opaque`): unrolled, what they hold at once would not
//! fit into the 512 bytes of stack that all functions have together.

mod index;
mod ring;

use evenkeel_ebpf::abi::{Event, Flow, Reply, Settings, Slot, Tuple, VALUE_WORDS, state};
use evenkeel_ebpf::select;
use evenkeel_ebpf::table::{Bucket, Entry, Place, WAYS, is_used, slot_of};

use self::index::{
    ALONE, FULL, Look, NOT_ALONE, RIVAL_FIRST, RIVAL_SAME, crowded_out, elsewhere, enter, enter_at,
    look, rival, same_key, search, withdraw,
};
pub use self::ring::room_at_hand;
use self::ring::{discard, mark_busy, publish, release, room, state_in, state_word};
use crate::count;
use crate::life;
use crate::maps::{FLOW_INDEX, FLOWS, REPLIES, REPLY_INDEX, SETTINGS};

/// No slot; what the functions with numbers return where there is none.
pub const NO_SLOT: u32 = u32::MAX;

/// The first word of a slot that is not in its first cache line.
const SECOND_LINE: usize = 8;

/// What came of inserting.
pub enum Inserted {
    /// It is there, in this slot.
    New(u32),
    /// Another entry with this key was, in this one.
    Present(u32),
    /// Nothing could be done: others were faster everywhere.
    Refused,
}

/// One of the two tables.
pub trait Table {
    /// What it holds.
    type Value: Entry + 'static;
    /// A line of the index.
    fn bucket(index: u32) -> Option<*mut Bucket>;
    /// A slot.
    fn slot(index: u32) -> Option<*mut Slot<Self::Value>>;
    /// See [`room`].
    fn room() -> u32;
    /// See [`enter`].
    fn enter(slot: u32, hash: u64) -> u32;
    /// See [`elsewhere`].
    fn elsewhere(first: u32, tag: u32) -> u64;
    /// See [`rival`].
    fn rival(slot: u32, hash: u64) -> u64;
    /// See [`withdraw`].
    fn withdraw(slot: u32, hash: u64) -> u32;
    /// See [`crowded_out`].
    fn crowded_out(hash: u64) -> u32;
    /// See [`discard`].
    fn discard(slot: u32) -> u32;
    /// See [`release`].
    fn release(slot: u32) -> u32;
    /// `value`, which was not closed, is about to go.
    fn evicted(value: *mut Self::Value);
}

/// `FLOWS`.
pub struct Flows;
/// `REPLIES`.
pub struct Replies;

macro_rules! table {
    (
        $table:ident: $value:ident, $index:ident, $slots:ident,
        $room:ident, $enter:ident, $elsewhere:ident, $rival:ident, $withdraw:ident, $crowded_out:ident,
        $discard:ident, $release:ident,
        $evicted:expr
    ) => {
        impl Table for $table {
            type Value = $value;
            #[inline(always)]
            fn bucket(index: u32) -> Option<*mut Bucket> {
                $index.get_ptr_mut(index)
            }
            #[inline(always)]
            fn slot(index: u32) -> Option<*mut Slot<$value>> {
                $slots.get_ptr_mut(index)
            }
            #[inline(always)]
            fn room() -> u32 {
                $room()
            }
            #[inline(always)]
            fn enter(slot: u32, hash: u64) -> u32 {
                $enter(slot, hash)
            }
            #[inline(always)]
            fn elsewhere(first: u32, tag: u32) -> u64 {
                $elsewhere(first, tag)
            }
            #[inline(always)]
            fn rival(slot: u32, hash: u64) -> u64 {
                $rival(slot, hash)
            }
            #[inline(always)]
            fn withdraw(slot: u32, hash: u64) -> u32 {
                $withdraw(slot, hash)
            }
            #[inline(always)]
            fn crowded_out(hash: u64) -> u32 {
                $crowded_out(hash)
            }
            #[inline(always)]
            fn discard(slot: u32) -> u32 {
                $discard(slot)
            }
            #[inline(always)]
            fn release(slot: u32) -> u32 {
                $release(slot)
            }
            #[inline(always)]
            fn evicted(value: *mut $value) {
                $evicted(value)
            }
        }
        function!($room() -> u32, room::<$table>());
        function!($enter(slot: u32, hash: u64) -> u32, enter::<$table>(slot, hash));
        function!($elsewhere(first: u32, tag: u32) -> u64, elsewhere::<$table>(first, tag));
        function!($rival(slot: u32, hash: u64) -> u64, rival::<$table>(slot, hash));
        function!($withdraw(slot: u32, hash: u64) -> u32, withdraw::<$table>(slot, hash));
        function!($crowded_out(hash: u64) -> u32, crowded_out::<$table>(hash));
        function!($discard(slot: u32) -> u32, discard::<$table>(slot));
        function!($release(slot: u32) -> u32, release::<$table>(slot));
    };
}

macro_rules! function {
    ($name:ident($($argument:ident: $type:ty),*) -> $result:ty, $body:expr) => {
        /// See the function without the prefix.
        #[unsafe(no_mangle)]
        #[inline(never)]
        pub extern "C" fn $name($($argument: $type),*) -> $result {
            $body
        }
    };
}

table!(
    Flows: Flow, FLOW_INDEX, FLOWS,
    ek_flow_room, ek_flow_enter, ek_flow_elsewhere, ek_flow_rival, ek_flow_withdraw, ek_flow_crowd,
    ek_flow_discard, ek_flow_release,
    |flow| {
        count::event(Event::FlowEvicted);
        // It may come back, and is then counted as opened once more.
        // SAFETY: a live map value.
        unsafe { life::advance(flow, state::CLOSED) };
    }
);
table!(
    Replies: Reply, REPLY_INDEX, REPLIES,
    ek_reply_room, ek_reply_enter, ek_reply_elsewhere, ek_reply_rival, ek_reply_withdraw, ek_reply_crowd,
    ek_reply_discard, ek_reply_release,
    |_| {
        count::event(Event::ReplyEvicted);
    }
);

/// The entry of `key`.
#[inline(always)]
pub fn find<T: Table>(key: &Tuple) -> Option<*mut T::Value> {
    let settings = SETTINGS.get(0)?;
    find_hashed::<T>(key, select::hash(key, settings.seed), settings)
}

/// The entry of `key`, which has this `hash`.
#[inline(always)]
pub fn find_hashed<T: Table>(key: &Tuple, hash: u64, settings: &Settings) -> Option<*mut T::Value> {
    let place = Place::of(hash, settings.flow_buckets);
    let found = search::<T>(&place)?;
    if found == 0 {
        return None;
    }
    let slot = T::slot(slot_of(found))?;
    // The stream counter is there, which is read much later: what it adds to a request of one of 10,000 flows is 0.75 to 0.79 x
    // with both lines on their way at once (`cargo xtask bench datapath`, in turns).
    // SAFETY: a word of a live map value, which is two lines; volatile, or the compiler would leave it out.
    unsafe { slot.cast::<u64>().add(SECOND_LINE).read_volatile() };
    // SAFETY: a field of a live map value, and a tuple.
    unsafe { same_key(&raw const (*slot).key, key).then_some(&raw mut (*slot).value) }
}

/// Where a key is, or is not.
pub enum Found {
    /// In this slot.
    Entry(u32),
    /// It has none; a new one may go into this word of its first bucket, if that is below [`WAYS`].
    Free(u64),
}

/// [`find_hashed`], for who would put an entry in where there is none.
#[inline(always)]
pub fn find_or_free<T: Table>(key: &Tuple, place: &Place) -> Option<Found> {
    let Look { found, free } = look::<T>(place)?;
    if found == 0 {
        return Some(Found::Free(free));
    }
    let slot = T::slot(slot_of(found))?;
    // SAFETY: a field of a live map value, and a tuple.
    let same = unsafe { same_key(&raw const (*slot).key, key) };
    Some(if same {
        Found::Entry(slot_of(found))
    } else {
        Found::Free(WAYS as u64)
    })
}

/// The value in a slot.
#[inline(always)]
pub fn value<T: Table>(index: u32) -> Option<*mut T::Value> {
    let slot = T::slot(index)?;
    // SAFETY: a field of a live map value.
    Some(unsafe { &raw mut (*slot).value })
}

/// Asks for the line that a lookup at this place goes to, so that it is near when that comes.
#[inline(always)]
pub fn touch<T: Table>(place: &Place) {
    if let Some(bucket) = T::bucket(place.first) {
        // SAFETY: a word of a live map value that nobody reads; volatile, or the compiler would leave it out.
        unsafe { (&raw mut (*bucket).touched).write_volatile(0) };
    }
}

/// Puts `value` in under `key`, which has this `hash`, unless there is an entry. `value` has `state::NEW`.
#[inline(always)]
pub fn insert<T: Table>(key: &Tuple, hash: u64, value: &T::Value) -> Inserted {
    let index = T::room();
    if !fill::<T>(index, key, value) {
        return Inserted::Refused;
    }
    let entered = T::enter(index, hash);
    finish::<T>(index, hash, entered)
}

/// [`insert`], where [`find_or_free`] has found the word `way` free; without a call where that still is so.
#[inline(always)]
pub fn insert_at<T: Table>(
    key: &Tuple,
    hash: u64,
    place: &Place,
    way: u64,
    value: &T::Value,
) -> Inserted {
    let mut index = room_at_hand::<T>();
    if index == NO_SLOT {
        index = T::room();
    }
    if !fill::<T>(index, key, value) {
        return Inserted::Refused;
    }
    enter_filled::<T>(index, hash, place, way)
}

/// Writes `key` and `value` into the slot `index`, of [`room_at_hand`], for [`enter_filled`]; nothing if it is none. It is to be
/// released if it comes to something else. `value` has `state::NEW`.
#[inline(always)]
pub fn fill_slot<T: Table>(index: u32, key: &Tuple, value: impl FnOnce() -> T::Value) {
    // Made only now: until it is known that there is a slot it would be on the stack.
    if index != NO_SLOT {
        fill::<T>(index, key, &value());
    }
}

/// The second half of [`insert_at`].
#[inline(always)]
pub fn enter_filled<T: Table>(index: u32, hash: u64, place: &Place, way: u64) -> Inserted {
    let mut entered = enter_at::<T>(place, way, index);
    if entered == FULL {
        entered = T::enter(index, hash);
    }
    finish::<T>(index, hash, entered)
}

/// Writes key and value into a slot that is ours alone; false if it is none.
#[inline(always)]
fn fill<T: Table>(index: u32, key: &Tuple, value: &T::Value) -> bool {
    let Some(slot) = T::slot(index) else {
        return false;
    };
    // SAFETY: a live map value that is ours alone: free or busy until now, and busy from here on; while it is written it
    // may look like nothing, which is as good. What enters it into the index orders all of this before. A value is that many
    // words, and aligned to one.
    unsafe {
        (&raw mut (*slot).key).write(*key);
        let words = (&raw mut (*slot).value).cast::<[u64; VALUE_WORDS]>();
        words.write(value.words());
    }
    true
}

/// What is left to do once a slot was entered, or was not.
#[inline(always)]
fn finish<T: Table>(index: u32, hash: u64, mut entered: u32) -> Inserted {
    if entered == FULL {
        T::discard(T::crowded_out(hash));
        entered = T::enter(index, hash);
    }
    let holder = match entered {
        ALONE => index,
        NOT_ALONE => settle::<T>(index, hash),
        _ => NO_SLOT,
    };
    if holder == index {
        if let Some(value) = value::<T>(index) {
            publish::<T>(value);
        }
        return Inserted::New(index);
    }
    T::release(index);
    if holder == NO_SLOT {
        Inserted::Refused
    } else {
        Inserted::Present(holder)
    }
}

/// After the slot `index` was entered, and another with the tag of its key is there. Of two entries of one key, put there
/// at once by two processors, the first one stays: both see to that, and at least one sees both. Of two keys with one tag,
/// of which there cannot be two (one in 10^9 new flows finds one), the new one stays. What its owner still has in hand stays
/// in any case. Returns the slot that holds the key, or [`NO_SLOT`]; if it is not `index`, that is no longer in the index.
#[inline(always)]
fn settle<T: Table>(index: u32, hash: u64) -> u32 {
    let rival = T::rival(index, hash);
    let other = slot_of(rival);
    if other == NO_SLOT {
        return index;
    }
    let goes = rival & (RIVAL_FIRST | RIVAL_SAME) != RIVAL_FIRST | RIVAL_SAME;
    if goes && T::discard(other) == other {
        return index;
    }
    T::withdraw(index, hash);
    if rival & RIVAL_SAME != 0 {
        other
    } else {
        NO_SLOT
    }
}

/// Writes `value` over an entry that is closed, under the same key; false if it no longer is. `value` has `state::NEW`.
#[inline(always)]
pub fn renew<T: Table>(present: *mut T::Value, value: &T::Value) -> bool {
    let word = state_word::<T>(present);
    // SAFETY: an aligned word of a live map value; volatile, as other processors write it.
    let old = unsafe { word.read_volatile() };
    let bits = state_in::<T>(old);
    if !is_used(bits) || bits & state::CLOSED == 0 || !mark_busy::<T>(word, old) {
        return false;
    }
    // SAFETY: a live map value that is ours alone. A late packet of what it was may lose its count.
    unsafe { present.write_volatile(*value) };
    publish::<T>(present);
    true
}
