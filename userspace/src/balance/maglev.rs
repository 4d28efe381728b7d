//! The table that turns a flow's hash into a backend: Maglev hashing
//! (Eisenbud et al., *Maglev: A Fast and Reliable Software Network Load Balancer*, NSDI 2016, section 3.4).
//!
//! What it promises:
//! 1. **Shares follow weights.** A backend's number of slots differs from its exact share by rounding only.
//! 2. **Little moves.** When a backend comes or goes, few slots change between backends that were there before and
//!    are there after: a flow that another balancer recorded still finds its backend here.
//! 3. **The same table everywhere.** It depends on the keys and weights alone: not on the order of the list, the
//!    host or the version of the standard library. Balancers that share flows by ECMP agree without talking.
//!
//! Each backend has its own permutation of all slots, `(offset + n * skip) mod SLOTS`, and they take turns: on its
//! turn a backend takes the next slot of its permutation that is still free. A backend of half the largest weight
//! takes every other turn.

/// Slots in a table. A prime, so that every `skip` walks through all slots; about 100 times the largest number of
/// backends that should still be spread within 1 % (section 5.3 of the paper, which uses the same number).
pub const SLOTS: usize = 65_537;

/// What an unowned slot holds: there is no backend of positive weight.
pub const NONE: u16 = u16::MAX;

/// Fills a table: each slot holds the position in `backends` of the backend that owns it, or [`NONE`] in every slot
/// where no backend has a positive weight.
///
/// `backends` holds a key that identifies the backend for good (its address and port, not its place in a list) and
/// its weight; weight 0 gets no slot. Positions from [`NONE`] on cannot be expressed and get no slot either; there
/// are fewer slots than that would need.
#[must_use]
pub fn table(backends: &[(&[u8], u32)]) -> Vec<u16> {
    let mut turns: Vec<Turn<'_>> = backends
        .iter()
        .zip(0..NONE)
        .filter(|((_, weight), _)| *weight > 0)
        .map(|((key, weight), position)| Turn::new(key, *weight, position))
        .collect();
    turns.sort_unstable_by(|a, b| a.key.cmp(b.key).then(a.position.cmp(&b.position)));

    let mut slots = vec![NONE; SLOTS];
    let Some(heaviest) = turns.iter().map(|turn| turn.weight).max() else {
        return slots;
    };
    let mut free = SLOTS;
    loop {
        for turn in &mut turns {
            turn.credit += turn.weight;
            if turn.credit < heaviest {
                continue;
            }
            turn.credit -= heaviest;
            turn.take(&mut slots);
            free -= 1;
            if free == 0 {
                return slots;
            }
        }
    }
}

/// One backend while the table is filled.
struct Turn<'a> {
    key: &'a [u8],
    weight: u64,
    position: u16,
    /// Grows by the weight in every round; a slot costs the largest weight.
    credit: u64,
    /// The slot to look at next, and how far on the one after that is.
    next: usize,
    skip: usize,
}

impl<'a> Turn<'a> {
    fn new(key: &'a [u8], weight: u32, position: u16) -> Self {
        Self {
            key,
            weight: u64::from(weight),
            position,
            credit: 0,
            next: reduce(hash(key, 0x6f66_6673_6574), SLOTS),
            skip: reduce(hash(key, 0x736b_6970), SLOTS - 1) + 1,
        }
    }

    /// Takes the next free slot of this backend's permutation. The caller knows that one is free.
    fn take(&mut self, slots: &mut [u16]) {
        loop {
            let slot = self.next;
            self.next = (self.next + self.skip) % SLOTS;
            if slots[slot] == NONE {
                slots[slot] = self.position;
                return;
            }
        }
    }
}

/// `hash` modulo `bound`; both fit, since `bound` is at most [`SLOTS`].
fn reduce(hash: u64, bound: usize) -> usize {
    usize::try_from(hash % bound as u64).unwrap_or(0)
}

/// FNV-1a over the key, then the finaliser of splitmix64, because FNV's low bits of short keys are poor.
fn hash(key: &[u8], seed: u64) -> u64 {
    let mut state = 0xcbf2_9ce4_8422_2325_u64 ^ seed;
    for byte in key {
        state = (state ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::{NONE, SLOTS, table};
    use proptest::prelude::*;

    fn keys(count: usize) -> Vec<Vec<u8>> {
        (0..count)
            .map(|n| format!("10.0.{}.{}:8080", n / 250, n % 250 + 1).into_bytes())
            .collect()
    }

    fn build(keys: &[Vec<u8>], weights: &[u32]) -> Vec<u16> {
        let pairs: Vec<(&[u8], u32)> = keys
            .iter()
            .map(Vec::as_slice)
            .zip(weights.iter().copied())
            .collect();
        table(&pairs)
    }

    fn shares(slots: &[u16], backends: usize) -> Vec<usize> {
        let mut counts = vec![0; backends];
        for slot in slots.iter().filter(|slot| **slot != NONE) {
            counts[usize::from(*slot)] += 1;
        }
        counts
    }

    /// Share of slots that changed owner although both the old and the new owner are in both tables.
    fn disturbed(before: &[Vec<u8>], old: &[u16], after: &[Vec<u8>], new: &[u16]) -> f64 {
        let moved = old
            .iter()
            .zip(new)
            .map(|(a, b)| (&before[usize::from(*a)], &after[usize::from(*b)]))
            .filter(|(a, b)| a != b && after.contains(a) && before.contains(b))
            .count();
        moved as f64 / SLOTS as f64
    }

    #[test]
    fn no_backend_leaves_every_slot_empty() {
        assert_eq!(table(&[]), vec![NONE; SLOTS]);
        assert_eq!(table(&[(b"a", 0), (b"b", 0)]), vec![NONE; SLOTS]);
    }

    #[test]
    fn one_backend_takes_every_slot() {
        assert_eq!(table(&[(b"a", 7)]), vec![0; SLOTS]);
    }

    #[test]
    fn more_backends_than_positions_leave_no_slot_empty() {
        let many = keys(70_000);
        let slots = build(&many, &vec![1; many.len()]);
        assert!(slots.iter().all(|slot| *slot != NONE));
    }

    #[test]
    fn the_table_never_changes_between_versions() {
        let slots = build(&keys(5), &[1, 1, 2, 3, 5]);
        let digest = slots.iter().fold(0_u64, |sum, slot| {
            sum.wrapping_mul(31).wrapping_add(u64::from(*slot))
        });
        assert_eq!(digest, GOLDEN, "balancers of different versions must agree");
    }
    /// Digest of the table above, taken when it was first built.
    const GOLDEN: u64 = 12_774_951_400_545_764_245;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn shares_follow_weights_within_one_percent(weights in prop::collection::vec(0_u32..20, 1..100)) {
            let keys = keys(weights.len());
            let counts = shares(&build(&keys, &weights), weights.len());
            let total: u32 = weights.iter().sum();
            for (count, weight) in counts.iter().zip(&weights) {
                let exact = if total == 0 { 0.0 } else { SLOTS as f64 * f64::from(*weight) / f64::from(total) };
                prop_assert!((*count as f64 - exact).abs() <= (exact * 0.01).max(2.0), "{count} slots, {exact} deserved");
            }
        }

        #[test]
        fn the_order_of_the_list_does_not_matter(count in 1_usize..40, turn in 0_usize..40) {
            let keys = keys(count);
            let mut turned = keys.clone();
            turned.rotate_left(turn % count);
            let (a, b) = (build(&keys, &vec![1; count]), build(&turned, &vec![1; count]));
            prop_assert!(a.iter().zip(&b).all(|(a, b)| keys[usize::from(*a)] == turned[usize::from(*b)]));
        }

        #[test]
        fn losing_a_backend_moves_few_flows_of_the_others(count in 3_usize..100, gone in 0_usize..100) {
            let before = keys(count);
            let mut after = before.clone();
            after.remove(gone % count);
            let old = build(&before, &vec![1; count]);
            let new = build(&after, &vec![1; count - 1]);
            let moved = disturbed(&before, &old, &after, &new);
            prop_assert!(moved < 0.04, "{moved} of the slots moved between backends that stayed");
        }

        #[test]
        fn weight_zero_gets_nothing_and_moves_little(count in 3_usize..60, drained in 0_usize..60) {
            let keys = keys(count);
            let mut weights = vec![1; count];
            weights[drained % count] = 0;
            let slots = build(&keys, &weights);
            prop_assert_eq!(shares(&slots, count)[drained % count], 0);
        }
    }
}
