//! A flow table, read and changed where it is: both arrays of it are mapped into this process.
//!
//! The layout is that of [`evenkeel_ebpf::table`]. Every access is an atomic one to a word, as processors change the same
//! memory meanwhile; an entry that changes while it is read may be seen half old, half new, as with any way of reading
//! a map. Userspace puts nothing into a table that carries traffic: it reads, and removes what is over.
#![expect(
    unsafe_code,
    reason = "memory shared with the kernel; each block argues for itself"
)]

mod faults;
mod shared;

use std::io;
use std::marker::PhantomData;
use std::mem::offset_of;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aya::Pod;
use aya::maps::MapData;
use evenkeel_ebpf::abi::{Slot, Tuple, state};
use evenkeel_ebpf::select;
use evenkeel_ebpf::table::{
    Bucket, CHUNK, Entry, GROUP, Place, Ring, WAYS, entry, is_used, slot_of, tag_of,
};
use shared::Shared;

/// How long a slot must be in the same hands to be in nobody's.
const PAUSE: Duration = Duration::from_millis(10);
/// Words of a bucket, of which the last is no entry.
const BUCKET_WORDS: usize = size_of::<Bucket>() / size_of::<u64>();
/// Words of a slot.
const SLOT_WORDS: usize = size_of::<Slot<evenkeel_ebpf::abi::Flow>>() / size_of::<u64>();

/// One flow table with values of type `V`.
pub struct FlowTable<V> {
    index: Shared,
    slots: Shared,
    rings: Shared,
    value: PhantomData<V>,
}

impl<V> std::fmt::Debug for FlowTable<V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FlowTable")
            .field("buckets", &(self.index.len() / BUCKET_WORDS))
            .field("slots", &(self.slots.len() / SLOT_WORDS))
            .finish()
    }
}

impl<V: Pod + Entry> FlowTable<V> {
    /// The table in these maps: `FLOW_INDEX` and `FLOWS`, or `REPLY_INDEX` and `REPLIES`; and `RINGS`.
    ///
    /// # Errors
    /// If the maps cannot be mapped.
    pub fn open(index: &MapData, slots: &MapData, rings: &MapData) -> io::Result<Self> {
        const { assert!(size_of::<Slot<V>>() == SLOT_WORDS * size_of::<u64>()) };
        Ok(Self {
            index: Shared::open(index)?,
            slots: Shared::open(slots)?,
            rings: Shared::open(rings)?,
            value: PhantomData,
        })
    }

    /// Buckets of its index.
    #[must_use]
    pub fn buckets(&self) -> u32 {
        u32::try_from(self.index.len() / BUCKET_WORDS).unwrap_or(u32::MAX)
    }

    /// Slots.
    #[must_use]
    pub fn slots(&self) -> u32 {
        u32::try_from(self.slots.len() / SLOT_WORDS).unwrap_or(u32::MAX)
    }

    /// The value of `key`, on a host with this `seed`.
    #[must_use]
    pub fn get(&self, key: &Tuple, seed: u64) -> Option<V> {
        let (_, held) = self.find(key, seed)?;
        Some(held.slot().value)
    }

    /// Every entry.
    pub fn read(&self, mut each: impl FnMut(Tuple, V)) {
        for held in self.used().filter_map(Held::of) {
            let slot = held.slot();
            each(slot.key, slot.value);
        }
    }

    /// Removes the entries that are `over`; returns how many. What a packet changes meanwhile stays.
    pub fn remove_where(&self, seed: u64, mut over: impl FnMut(&Held<'_, V>) -> bool) -> u64 {
        let mut removed = 0;
        for (number, words) in self.used().enumerate() {
            if let Some(held) = Held::of(words).filter(&mut over) {
                removed += u64::from(self.remove_slot(number, &held, seed));
            }
        }
        removed
    }

    /// The slots whose entries are as `which` says, each with the time when a packet was last seen.
    pub fn slots_where(&self, mut which: impl FnMut(&Held<'_, V>) -> bool) -> Vec<(u32, u64)> {
        let found = (0..).zip(self.used()).filter_map(|(number, words)| {
            let held = Held::of(words).filter(&mut which)?;
            Some((number, held.last_seen()))
        });
        found.collect()
    }

    /// Sets `bits` in the word with the state of the entries that `which` says; returns how many.
    pub fn mark_where(&self, bits: u64, mut which: impl FnMut(&Held<'_, V>) -> bool) -> u64 {
        let mut marked = 0;
        for words in self.used() {
            // Again where a packet changed the word meanwhile.
            while let Some(held) = Held::of(words).filter(&mut which) {
                let (old, new) = (held.before, held.before | bits);
                let word = held.state_word;
                let set = word.compare_exchange(old, new, Ordering::AcqRel, Ordering::Relaxed);
                if set.is_ok() {
                    marked += 1;
                    break;
                }
            }
        }
        marked
    }

    /// Removes one entry; false if there is none.
    pub fn remove(&self, key: &Tuple, seed: u64) -> bool {
        let Some((number, held)) = self.find(key, seed) else {
            return false;
        };
        self.remove_slot(number, &held, seed)
    }

    /// Removes the entry in a slot: marks it as busy, clears its word in the index, then it is free. False if it changed
    /// since it was looked at.
    fn remove_slot(&self, number: usize, held: &Held<'_, V>, seed: u64) -> bool {
        let busy = held.before | u64::from(state::BUSY) << V::STATE_SHIFT;
        let word = held.state_word;
        if word
            .compare_exchange(held.before, busy, Ordering::AcqRel, Ordering::Relaxed)
            .is_err()
        {
            return false;
        }
        self.empty(number, held.words, seed);
        true
    }

    /// Frees the slots that a daemon had in hand when it was killed; returns how many. A processor has a slot in hand for
    /// less than a microsecond, so what is as it was after [`PAUSE`] is in nobody's hands.
    pub fn recover(&self, seed: u64) -> u64 {
        let busy = |(number, words): (usize, &[AtomicU64])| {
            let word = words.get(state_word::<V>())?.load(Ordering::Acquire);
            (state_in::<V>(word) & state::BUSY != 0).then_some((number, word))
        };
        let before: Vec<(usize, u64)> = self.used().enumerate().filter_map(busy).collect();
        if before.is_empty() {
            return 0;
        }
        std::thread::sleep(PAUSE);
        let mut freed = 0;
        for (number, before) in before {
            let words = self.words(number).unwrap_or_default();
            let now = words.get(state_word::<V>());
            if now.is_some_and(|now| now.load(Ordering::Acquire) == before) {
                self.empty(number, words, seed);
                freed += 1;
            }
        }
        freed
    }

    /// Clears what the index has of a slot that is ours, and frees it.
    fn empty(&self, number: usize, words: &[AtomicU64], seed: u64) {
        let place = self.place(&slot::<V>(words).key, seed);
        let entry = entry(place.tag, u32::try_from(number).unwrap_or(u32::MAX));
        for (at, word) in self.buckets_of(&place).enumerate() {
            // It fails on all words but the one that is ours.
            let cleared = word
                .compare_exchange(entry, 0, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok();
            if cleared && at >= WAYS {
                self.count_overflowed(&place, |word| word.fetch_sub(1, Ordering::AcqRel));
            }
        }
        self.release(number, words);
    }

    /// Changes the count of entries of a bucket that are with its neighbours: the low half of the word behind its ways.
    fn count_overflowed(&self, place: &Place, change: impl FnOnce(&AtomicU64) -> u64) {
        if let Some(bucket) = self.bucket(place.first) {
            change(&bucket[WAYS]);
        }
    }

    /// Puts a slot that is ours on the stack of free ones.
    fn release(&self, number: usize, words: &[AtomicU64]) {
        let (Some(first), Some(state_word), Some(head)) = (
            words.first(),
            words.get(state_word::<V>()),
            self.ring(offset_of!(Ring, free)),
        ) else {
            return;
        };
        state_word.store(0, Ordering::Release);
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let mut old = head.load(Ordering::Acquire);
        loop {
            first.store(old & 0xffff_ffff, Ordering::Release);
            let new = Ring::pushed(old, number);
            match head.compare_exchange_weak(old, new, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return,
                Err(changed) => old = changed,
            }
        }
    }

    /// The word of this table's ring at an offset.
    fn ring(&self, offset: usize) -> Option<&AtomicU64> {
        self.rings
            .get((V::RING as usize * size_of::<Ring>() + offset) / size_of::<u64>())
    }

    /// The words of all slots that were ever used.
    fn used(&self) -> impl Iterator<Item = &[AtomicU64]> {
        let chunks = self.ring(offset_of!(Ring, chunks));
        let ring = Ring {
            chunks: chunks.map_or(0, |word| word.load(Ordering::Acquire)),
            ..Ring::default()
        };
        self.slots
            .chunks_exact(SLOT_WORDS)
            .take(ring.used(self.slots()) as usize)
    }

    /// Puts an entry in, or replaces it; false if there is no room. For tables without traffic: those of tests and
    /// benchmarks. `value` has `state::USED`.
    pub fn insert(&self, key: &Tuple, value: V, seed: u64) -> bool {
        let slot = Slot { key: *key, value };
        if let Some((number, _)) = self.find(key, seed) {
            return self.words(number).is_some_and(|words| write(words, &slot));
        }
        let place = self.place(key, seed);
        let free = |word: &&AtomicU64| word.load(Ordering::Acquire) == 0;
        let (Some(word), Some(number)) = (self.buckets_of(&place).find(free), self.fresh()) else {
            return false;
        };
        let first = self.bucket(place.first);
        if first.is_none_or(|first| !first[..WAYS].iter().any(|other| std::ptr::eq(other, word))) {
            self.count_overflowed(&place, |word| word.fetch_add(1, Ordering::AcqRel));
        }
        let written = self.words(number).is_some_and(|words| write(words, &slot));
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        word.store(entry(place.tag, number), Ordering::Release);
        written
    }

    /// The next slot of those never used.
    fn fresh(&self) -> Option<usize> {
        // A whole chunk for one entry would be a waste: the rest of it goes on the stack.
        let top = |head: &AtomicU64| Ring::top(head.load(Ordering::Acquire));
        let head = self.ring(offset_of!(Ring, free))?;
        if top(head).is_none() {
            let chunks = self.ring(offset_of!(Ring, chunks))?;
            let first = chunks.fetch_add(1, Ordering::AcqRel) as usize * CHUNK as usize;
            for number in (first..first + CHUNK as usize).rev() {
                self.release(number, self.words(number)?);
            }
        }
        let old = head.load(Ordering::Acquire);
        let number = Ring::top(old)? as usize;
        let below = self.words(number)?.first()?.load(Ordering::Acquire);
        head.store(Ring::popped(old, below), Ordering::Release);
        Some(number)
    }

    fn place(&self, key: &Tuple, seed: u64) -> Place {
        Place::of(select::hash(key, seed), self.buckets())
    }

    /// The slot that has `key`, and its number.
    fn find(&self, key: &Tuple, seed: u64) -> Option<(usize, Held<'_, V>)> {
        let place = self.place(key, seed);
        self.buckets_of(&place).find_map(|word| {
            let entry = word.load(Ordering::Acquire);
            let number = slot_of(entry) as usize;
            let held = (tag_of(entry) == place.tag).then(|| self.words(number))?;
            Some((number, Held::of(held?)?)).filter(|(_, held)| held.slot().key == *key)
        })
    }

    /// The words of the bucket and of its neighbours, in order.
    fn buckets_of(&self, place: &Place) -> impl Iterator<Item = &AtomicU64> {
        (0..GROUP)
            .flat_map(|number| self.bucket(place.neighbour(number)))
            .flat_map(|bucket| &bucket[..WAYS])
    }

    /// The words of a bucket.
    fn bucket(&self, number: u32) -> Option<&[AtomicU64; BUCKET_WORDS]> {
        let (buckets, _) = self.index.as_chunks();
        buckets.get(number as usize)
    }

    fn words(&self, slot: usize) -> Option<&[AtomicU64]> {
        self.slots.get(slot * SLOT_WORDS..(slot + 1) * SLOT_WORDS)
    }
}

/// A slot that held an entry when it was looked at.
pub struct Held<'a, V> {
    words: &'a [AtomicU64],
    state_word: &'a AtomicU64,
    /// What the state word was.
    before: u64,
    value: PhantomData<V>,
}

impl<'a, V: Pod + Entry> Held<'a, V> {
    fn of(words: &'a [AtomicU64]) -> Option<Self> {
        let state_word = words.get(state_word::<V>())?;
        let before = state_word.load(Ordering::Acquire);
        is_used(state_in::<V>(before)).then_some(Self {
            words,
            state_word,
            before,
            value: PhantomData,
        })
    }

    /// Bits of [`state`].
    #[must_use]
    pub fn state(&self) -> u8 {
        state_in::<V>(self.before)
    }

    /// When a packet was last seen, ns of CLOCK_MONOTONIC.
    #[must_use]
    pub fn last_seen(&self) -> u64 {
        let word = self.words.get(word_of::<V>(V::LAST_SEEN));
        word.map_or(0, |word| word.load(Ordering::Relaxed))
    }

    /// Key and value.
    #[must_use]
    pub fn slot(&self) -> Slot<V> {
        slot(self.words)
    }
}

/// Key and value of a slot with these words.
fn slot<V: Pod>(words: &[AtomicU64]) -> Slot<V> {
    let mut copy = [0_u64; SLOT_WORDS];
    for (to, from) in copy.iter_mut().zip(words) {
        *to = from.load(Ordering::Relaxed);
    }
    // SAFETY: as many bytes as a slot has (asserted in `open`); `V` is `Pod` and so is a tuple, any bytes will do.
    unsafe { copy.as_ptr().cast::<Slot<V>>().read_unaligned() }
}

/// Number of the word of a slot that has the state.
const fn state_word<V: Entry>() -> usize {
    word_of::<V>(V::STATE_WORD)
}

/// Number of the word of a slot with this offset in the value.
const fn word_of<V>(offset: usize) -> usize {
    (offset_of!(Slot<V>, value) + offset) / size_of::<u64>()
}

/// The state in the word that has it.
fn state_in<V: Entry>(word: u64) -> u8 {
    (word >> V::STATE_SHIFT) as u8
}

/// Writes a whole slot.
fn write<V>(words: &[AtomicU64], slot: &Slot<V>) -> bool {
    let from = std::ptr::from_ref(slot).cast::<u64>();
    for (at, to) in words.iter().enumerate().take(SLOT_WORDS) {
        // SAFETY: a slot is that many words, has no padding, and is aligned to more than a word.
        to.store(unsafe { from.add(at).read() }, Ordering::Release);
    }
    words.len() == SLOT_WORDS
}
