//! Whether p99 falls as the pool of connections grows and then rises again, and not by chance.
//!
//! 1. A turn has three sizes: the smallest pool, a larger one that is better, and a still larger one that is worse than
//!    that.
//! 2. They are compared round by round, as every pool meets the same losses in a round: the fall is the ratio of the
//!    smallest pool's p99 to the better one's, the rise that of the worse one's.
//! 3. Both must be so far above 1 that noise hardly is ([`stats::chance`] of their logarithms, that of the less clear
//!    one); a turn is there only if its fall and its rise both are.
//! 4. The best and the worst of points that only scatter look like a turn, so none is picked by the figures that it is
//!    claimed of: all that there could be are tried, and one counts if noise would bring forth as much *somewhere* at most once
//!    in 20 times (Bonferroni). Which are worth new visits says [`nearest`].

use std::collections::BTreeMap;

use crate::bench::{result::Claim, stats};

/// A pool is better or worse than another only if it is so by more than this share: what can be told apart need not
/// matter.
const CLEAR: f64 = 1.1;
/// How often noise may pass for a turn.
const BY_CHANCE: f64 = 0.05;

/// One loss and round-trip time.
pub(super) struct Pools {
    /// Milliseconds there and back.
    pub(super) rtt: u64,
    /// Share of packets lost.
    pub(super) loss: f64,
    /// Sizes, smallest first, and p99 of every round.
    pub(super) sizes: Vec<(usize, BTreeMap<u64, f64>)>,
}

impl Pools {
    /// In words.
    pub(super) fn name(&self) -> String {
        format!("{} %, {} ms", self.loss * 100.0, self.rtt)
    }

    /// What tells it from the others.
    fn place(&self) -> (u64, u64) {
        (self.rtt, self.loss.to_bits())
    }
}

struct Turn<'a> {
    pools: &'a Pools,
    sizes: [usize; 3],
    fall: f64,
    rise: f64,
    /// How often noise does as much here.
    chance: f64,
}

impl Turn<'_> {
    fn describe(&self) -> String {
        let Self {
            pools,
            sizes: [first, best, after],
            fall,
            rise,
            chance: _,
        } = self;
        format!(
            "{}: x{first} {fall:.2} and x{after} {rise:.2} times x{best}",
            pools.name()
        )
    }
}

/// That there is one somewhere.
pub(super) fn claim(all: &[Pools]) -> Claim {
    let mut turns: Vec<Turn> = all.iter().flat_map(turns).collect();
    let tried = turns.len();
    turns.retain(|turn| turn.fall > CLEAR && turn.rise > CLEAR);
    turns.sort_by(|a, b| a.chance.total_cmp(&b.chance));
    let somewhere = |turn: &Turn| (turn.chance * tried as f64).min(1.0);
    let mut found: Vec<&Turn> = Vec::new();
    for turn in turns.iter().filter(|turn| somewhere(turn) <= BY_CHANCE) {
        // Of those in one place the clearest.
        if found
            .iter()
            .all(|known| known.pools.place() != turn.pools.place())
        {
            found.push(turn);
        }
    }
    let found: Vec<String> = found.iter().map(|turn| turn.describe()).collect();
    let seen = match (found.as_slice(), turns.first()) {
        ([], None) => "it rose again nowhere".to_owned(),
        ([], Some(nearest)) => format!(
            "nothing that noise would not do; nearest, {} ({:.0} % by chance)",
            nearest.describe(),
            somewhere(nearest) * 100.0
        ),
        _ => found.join("; "),
    };
    Claim::new(
        format!(
            "More connections are not always better: p99 falls with the size of the HTTP/2 pool and rises again by more \
             than {:.0} %, for at least one loss and round-trip time (round by round; by chance, of all {tried} turns \
             tried, in at most {:.0} % of runs)",
            (CLEAR - 1.0) * 100.0,
            BY_CHANCE * 100.0
        ),
        seen,
        !found.is_empty(),
    )
}

/// Where a turn is likeliest, and between which sizes; `None` if p99 rises again nowhere.
pub(super) fn nearest(all: &[Pools]) -> Option<(&Pools, [usize; 3])> {
    let turns = all.iter().flat_map(turns);
    let turns = turns.filter(|turn| turn.fall > CLEAR && turn.rise > CLEAR);
    let nearest = turns.min_by(|a, b| a.chance.total_cmp(&b.chance))?;
    Some((nearest.pools, nearest.sizes))
}

/// All that there could be.
fn turns(pools: &Pools) -> Vec<Turn<'_>> {
    let Some((first, rest)) = pools.sizes.split_first() else {
        return Vec::new();
    };
    let pairs = rest.iter().enumerate().flat_map(|(at, best)| {
        let after = rest[at + 1..].iter();
        after.map(move |after| (best, after))
    });
    pairs
        .map(|(best, after)| {
            let (fall, rise) = (ratios(&first.1, &best.1), ratios(&after.1, &best.1));
            Turn {
                pools,
                sizes: [first.0, best.0, after.0],
                fall: mean(&fall).exp(),
                rise: mean(&rise).exp(),
                chance: stats::chance(&fall).max(stats::chance(&rise)),
            }
        })
        .collect()
}

/// Logarithms of the ratios of the rounds that both have: a half is as far from 1 as a double.
pub(super) fn ratios(over: &BTreeMap<u64, f64>, under: &BTreeMap<u64, f64>) -> Vec<f64> {
    let both = over
        .iter()
        .filter_map(|(round, over)| Some((over, under.get(round)?)));
    both.map(|(over, under)| (over / under).ln()).collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZES: [usize; 5] = [1, 2, 5, 10, 25];
    const ROUNDS: u64 = 6;
    const CELLS: usize = 12;

    /// Pseudo-random, from 0 to 1 (SplitMix64).
    struct Noise(u64);

    impl Noise {
        fn next(&mut self) -> f64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            (mixed ^ (mixed >> 31)) as f64 / 2_f64.powi(64)
        }

        /// Nearly normal.
        fn bell(&mut self) -> f64 {
            (0..12).map(|_| self.next()).sum::<f64>() - 6.0
        }
    }

    /// Everywhere `shape`, each figure times what `noise` gives.
    fn measure(shapes: &[[f64; 5]], mut noise: impl FnMut() -> f64) -> Vec<Pools> {
        let mut pools = |(cell, shape): (usize, &[f64; 5])| Pools {
            rtt: cell as u64,
            loss: 0.01,
            sizes: SIZES
                .iter()
                .zip(shape)
                .map(|(size, p99)| (*size, (0..ROUNDS).map(|n| (n, p99 * noise())).collect()))
                .collect(),
        };
        shapes.iter().enumerate().map(&mut pools).collect()
    }

    #[test]
    fn noise_is_no_turn() {
        const RUNS: usize = 400;
        // The hardest case: the smallest pool is far worse, so that only the rise is left to chance.
        let shapes = [[300.0, 100.0, 100.0, 100.0, 100.0]; CELLS];
        let mut noise = Noise(1);
        let mut bell = || (0.3 * noise.bell()).exp();
        let passed = |noise: &mut dyn FnMut() -> f64| {
            (0..RUNS)
                .filter(|_| claim(&measure(&shapes, &mut *noise)).holds)
                .count() as f64
                / RUNS as f64
        };
        let by_chance = passed(&mut bell);
        assert!(by_chance <= BY_CHANCE, "{by_chance}");
        // Some visits wait for a timeout or two, and the others hardly differ.
        let mut noise = Noise(2);
        let mut timeouts = || {
            let waits = if noise.next() < 0.2 { 3.0 } else { 1.0 };
            waits * (0.05 * noise.bell()).exp()
        };
        let by_chance = passed(&mut timeouts);
        assert!(by_chance <= BY_CHANCE, "{by_chance}");
    }

    #[test]
    fn a_pool_that_gets_worse_again_is_found_among_many_that_do_not() {
        let mut shapes = [[300.0, 200.0, 150.0, 120.0, 100.0]; CELLS];
        shapes[7] = [300.0, 150.0, 100.0, 130.0, 200.0];
        let mut noise = Noise(3);
        let found = claim(&measure(&shapes, || (0.08 * noise.bell()).exp()));
        assert!(found.holds, "{}", found.seen);
        assert!(found.seen.starts_with("1 %, 7 ms: x1 "), "{}", found.seen);
        assert!(!found.seen.contains(';'), "{}", found.seen);
    }

    #[test]
    fn the_place_worth_new_visits_is_that_of_the_clearest_turn() {
        let falling = [300.0, 200.0, 150.0, 120.0, 100.0];
        let mut noise = Noise(4);
        let mut bell = || (0.02 * noise.bell()).exp();
        assert!(nearest(&measure(&[falling; CELLS], &mut bell)).is_none());
        let mut shapes = [falling; CELLS];
        shapes[3] = [300.0, 200.0, 150.0, 120.0, 150.0];
        let all = measure(&shapes, &mut bell);
        let (place, sizes) = nearest(&all).expect("a turn");
        assert_eq!((place.rtt, sizes), (3, [1, 10, 25]));
    }

    #[test]
    fn what_was_measured_once_is_no_turn() {
        let mut once = measure(&[[300.0, 150.0, 100.0, 130.0, 200.0]], || 1.0);
        for (_, rounds) in &mut once[0].sizes {
            rounds.retain(|round, _| *round == 0);
        }
        let found = claim(&once);
        assert!(!found.holds && found.seen.contains("100 % by chance"));
        assert!(!claim(&[]).holds);
    }

    #[test]
    fn pools_are_compared_in_the_rounds_that_both_have() {
        let over = BTreeMap::from([(1, 2.0), (2, 4.0)]);
        let under = BTreeMap::from([(2, 2.0), (3, 9.0)]);
        assert_eq!(ratios(&over, &under), [2.0_f64.ln()]);
    }
}
