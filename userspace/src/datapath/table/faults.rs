//! What may be wrong with a flow table: the checks of its tests.

use std::collections::{HashMap, HashSet};
use std::mem::offset_of;
use std::sync::atomic::Ordering;

use aya::Pod;
use evenkeel_ebpf::abi::state;
use evenkeel_ebpf::table::{Entry, GROUP, Ring, WAYS, slot_of, tag_of};

use super::{FlowTable, Held, state_in, state_word};

/// `Bucket::overflowed` in the last word of a bucket.
const OVERFLOWED: u64 = 0xffff_ffff;

impl<V: Pod + Entry> FlowTable<V> {
    /// What is wrong with a table that nobody changes: an entry that is not found under its key, a word of the index that is
    /// of no entry, a wrong count of entries with neighbours, a slot that is in somebody's hands, or both or neither of used
    /// and free.
    #[must_use]
    pub fn faults(&self, seed: u64) -> Vec<String> {
        let mut faults = self.faults_of_slots(seed);
        let mut with_neighbours: HashMap<u32, u64> = HashMap::new();
        for (bucket, words) in (0..self.buckets()).filter_map(|n| Some((n, self.bucket(n)?))) {
            for entry in words[..WAYS]
                .iter()
                .map(|word| word.load(Ordering::Acquire))
            {
                let held = self.words(slot_of(entry) as usize).and_then(Held::<V>::of);
                let place = held.map(|held| self.place(&held.slot().key, seed));
                let is_there = place.is_some_and(|place| {
                    tag_of(entry) == place.tag
                        && (0..GROUP).any(|number| place.neighbour(number) == bucket)
                });
                if let Some(place) = place.filter(|place| is_there && place.first != bucket) {
                    *with_neighbours.entry(place.first).or_default() += 1;
                }
                if entry != 0 && !is_there {
                    let slot = slot_of(entry);
                    faults.push(format!(
                        "bucket {bucket} has slot {slot}, which is not of it"
                    ));
                }
            }
        }
        for (bucket, words) in (0..self.buckets()).filter_map(|n| Some((n, self.bucket(n)?))) {
            let said = words[WAYS].load(Ordering::Acquire) & OVERFLOWED;
            let are = with_neighbours.get(&bucket).copied().unwrap_or_default();
            if said != are {
                faults.push(format!(
                    "bucket {bucket} says that {said} of its entries are with its neighbours, where {are} are"
                ));
            }
        }
        faults
    }

    fn faults_of_slots(&self, seed: u64) -> Vec<String> {
        let mut faults = Vec::new();
        let free = self.free();
        for (number, words) in self.used().enumerate() {
            let word = words.get(state_word::<V>());
            let bits = state_in::<V>(word.map_or(0, |word| word.load(Ordering::Acquire)));
            let held = Held::<V>::of(words);
            let never_used = words.iter().all(|word| word.load(Ordering::Acquire) == 0);
            if bits & state::BUSY != 0 {
                faults.push(format!("slot {number} is busy"));
            } else if held.is_some() == free.contains(&number) && !never_used {
                faults.push(format!(
                    "slot {number} has state {bits:#x}; free: {}",
                    free.contains(&number)
                ));
            }
            let key = held.map(|held| held.slot().key);
            let found = key.and_then(|key| self.find(&key, seed));
            if key.is_some() && found.is_none_or(|(found, _)| found != number) {
                faults.push(format!("slot {number} is not found under its key"));
            }
        }
        faults
    }

    /// The slots on the stack.
    fn free(&self) -> HashSet<usize> {
        let mut free = HashSet::new();
        let head = self.ring(offset_of!(Ring, free));
        let mut next = head.map_or(0, |word| word.load(Ordering::Acquire));
        while let Some(top) = Ring::top(next) {
            if !free.insert(top as usize) {
                break;
            }
            let words = self.words(top as usize);
            let below = words.and_then(<[_]>::first);
            next = below.map_or(0, |word| word.load(Ordering::Acquire));
        }
        free
    }
}
