//! Which index stands for which service or backend; pure.
//!
//! An index is *live* while its key is in the configuration, *retired* once it was removed but flows may still refer
//! to it, and *free* otherwise. A key that comes back finds its retired index, with its counters. A fresh key takes
//! a free index; only [`Slots::release`] frees one, and callers do that once no flow refers to it.

use std::collections::HashMap;
use std::hash::Hash;

/// Every index is live or retired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// The indexes of one kind.
#[derive(Clone, Debug)]
pub(super) struct Slots<K> {
    slots: Vec<Option<Slot<K>>>,
    by_key: HashMap<K, u32>,
    /// No index below this one is free.
    search_from: usize,
}

#[derive(Clone, Debug)]
struct Slot<K> {
    key: K,
    live: bool,
}

/// An index that [`Slots::claim`] gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    /// The index.
    pub(super) index: u32,
    /// It stood for nothing before: whatever the maps hold there is to be cleared.
    pub(super) fresh: bool,
}

impl<K: Copy + Eq + Hash> Slots<K> {
    /// `limit` free indexes.
    pub(super) fn new(limit: u32) -> Self {
        Self {
            slots: (0..limit).map(|_| None).collect(),
            by_key: HashMap::new(),
            search_from: 0,
        }
    }

    /// Takes note of an index found in a pinned map. Ignored if `index` is out of range.
    pub(super) fn adopt(&mut self, index: u32, key: K, live: bool) {
        if let Some(slot) = self.slots.get_mut(index as usize) {
            *slot = Some(Slot { key, live });
            // Of two indexes with one key the live one is the one that a claim must find.
            if live || !self.by_key.contains_key(&key) {
                self.by_key.insert(key, index);
            }
        }
    }

    /// The index of `key`, its old one if it has one, and marks it live.
    pub(super) fn claim(&mut self, key: K) -> Result<Claim, Full> {
        if let Some(&index) = self.by_key.get(&key) {
            if let Some(Some(slot)) = self.slots.get_mut(index as usize) {
                slot.live = true;
            }
            return Ok(Claim {
                index,
                fresh: false,
            });
        }
        let position = self
            .slots
            .iter()
            .skip(self.search_from)
            .position(Option::is_none)
            .ok_or(Full)?
            + self.search_from;
        let index = u32::try_from(position).map_err(|_| Full)?;
        self.slots[position] = Some(Slot { key, live: true });
        self.by_key.insert(key, index);
        self.search_from = position + 1;
        Ok(Claim { index, fresh: true })
    }

    /// Retires every live index whose key is not wanted any more.
    pub(super) fn retain(&mut self, wanted: impl Fn(&K) -> bool) {
        for slot in self.slots.iter_mut().flatten() {
            slot.live = slot.live && wanted(&slot.key);
        }
    }

    /// Frees a retired index.
    pub(super) fn release(&mut self, index: u32) {
        if let Some(entry) = self.slots.get_mut(index as usize)
            && let Some(slot) = entry.take_if(|slot| !slot.live)
        {
            if self.by_key.get(&slot.key) == Some(&index) {
                self.by_key.remove(&slot.key);
            }
            self.search_from = self.search_from.min(index as usize);
        }
    }

    /// The index that `key` has, live or retired.
    pub(super) fn index(&self, key: &K) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    /// The key at `index`.
    pub(super) fn key(&self, index: u32) -> Option<&K> {
        self.slots
            .get(index as usize)
            .and_then(Option::as_ref)
            .map(|slot| &slot.key)
    }

    /// Whether `index` is live.
    pub(super) fn is_live(&self, index: u32) -> bool {
        matches!(self.slots.get(index as usize), Some(Some(slot)) if slot.live)
    }

    /// Every live or retired index: `(index, key, live)`.
    pub(super) fn occupied(&self) -> impl Iterator<Item = (u32, &K, bool)> {
        (0_u32..)
            .zip(&self.slots)
            .filter_map(|(index, slot)| slot.as_ref().map(|slot| (index, &slot.key, slot.live)))
    }

    /// How many indexes there are.
    pub(super) fn limit(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_keeps_its_index_while_it_is_retired() {
        let mut slots = Slots::new(3);
        let a = slots.claim("a").unwrap();
        let b = slots.claim("b").unwrap();
        slots.retain(|key| *key == "b");
        assert!(!slots.is_live(a.index) && slots.is_live(b.index));
        assert_eq!(slots.claim("a").unwrap(), Claim { fresh: false, ..a });
    }

    #[test]
    fn a_retired_index_is_not_given_to_another_key_before_it_is_released() {
        let mut slots = Slots::new(1);
        let a = slots.claim("a").unwrap();
        slots.retain(|_| false);
        assert_eq!(slots.claim("b"), Err(Full));
        slots.release(a.index);
        assert_eq!(slots.claim("b").unwrap(), a);
    }

    #[test]
    fn a_live_index_cannot_be_released() {
        let mut slots = Slots::new(1);
        let a = slots.claim("a").unwrap();
        slots.release(a.index);
        assert_eq!(slots.key(a.index), Some(&"a"));
    }

    #[test]
    fn adopted_indexes_are_found_again_and_never_given_away() {
        let mut slots = Slots::new(3);
        slots.adopt(1, "a", true);
        slots.adopt(0, "a", false);
        slots.adopt(7, "out of range", true);
        assert_eq!(slots.claim("a").unwrap().index, 1);
        assert_eq!(slots.claim("b").unwrap().index, 2);
        assert_eq!(slots.occupied().count(), 3);
    }
}
