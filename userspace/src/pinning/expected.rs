//! What hot factor to expect when connections land on peers by chance: a simulation (Monte Carlo) to hold measurements
//! against.
//!
//! Given are the streams that each connection carried, in each of several rounds, and how connections were placed. One
//! trial places all connections of every round anew and takes the median of the rounds' hot factors, just as a
//! measurement of as many rounds does; many trials give the distribution of that median. A measured median outside the
//! middle 95 % of it would be seen one time in twenty if connections were placed as said; whoever looks at `n` of them
//! at once asks for the middle `1 - 0.05/n` (Bonferroni), so that all of them lie inside 95 times in 100.
//!
//! Nothing here draws by itself: `random` gives 64 random bits, and a seed outside makes a simulation repeatable.

/// How connections come to peers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Each connection whole, to a peer drawn by weight: hashing, whatever the table behind the hash.
    AtRandom,
    /// The streams of each client one by one to the next peer, from one drawn at random on; weights do not matter.
    InTurn,
    /// All to the first peer.
    First,
}

/// The distribution of the median of a number of rounds.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    /// The median of each trial, sorted; never empty.
    medians: Vec<f64>,
}

/// Peers to place connections on.
struct Peers {
    weights: Vec<u32>,
    /// Sum of the weights up to and with each peer.
    sums: Vec<u64>,
    total: u64,
    loads: Vec<u64>,
}

/// The hot factor to expect of connections that carry `rounds[round][connection]` streams, on peers with these
/// `weights` (those of weight 0 get nothing and do not count), from so many `trials`. `None` where there is nothing to
/// place or nowhere to place it.
#[must_use]
pub fn expect(
    rounds: &[Vec<u64>],
    weights: &[u32],
    placement: Placement,
    trials: usize,
    random: &mut impl FnMut() -> u64,
) -> Option<Expected> {
    let mut peers = Peers::new(weights)?;
    if trials == 0 || rounds.is_empty() || rounds.iter().any(|round| round.iter().sum::<u64>() == 0)
    {
        return None;
    }
    let mut hot = vec![0.0; rounds.len()];
    let mut medians: Vec<f64> = (0..trials)
        .map(|_| {
            for (hot, streams) in hot.iter_mut().zip(rounds) {
                *hot = peers.place(streams, placement, random);
            }
            median(&mut hot)
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    Some(Expected { medians })
}

// === impl Expected ===

impl Expected {
    /// The middle of all trials.
    #[must_use]
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// Between these lies the median in `level` (0 to 1) of all trials, and as many lie below as above.
    #[must_use]
    pub fn interval(&self, level: f64) -> (f64, f64) {
        let outside = (1.0 - level.clamp(0.0, 1.0)) / 2.0;
        (self.quantile(outside), self.quantile(1.0 - outside))
    }

    fn quantile(&self, share: f64) -> f64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a position in the list: between 0 and its length"
        )]
        let position = (share * (self.medians.len() - 1) as f64).round() as usize;
        self.medians[position.min(self.medians.len() - 1)]
    }
}

// === impl Peers ===

impl Peers {
    fn new(weights: &[u32]) -> Option<Self> {
        let weights: Vec<u32> = weights
            .iter()
            .copied()
            .filter(|weight| *weight > 0)
            .collect();
        let mut total = 0_u64;
        let sums = weights.iter().map(|weight| {
            total += u64::from(*weight);
            total
        });
        let sums: Vec<u64> = sums.collect();
        (total > 0).then(|| Self {
            loads: vec![0; weights.len()],
            weights,
            sums,
            total,
        })
    }

    /// Places connections with these streams; the hot factor that comes of it.
    fn place(
        &mut self,
        streams: &[u64],
        placement: Placement,
        random: &mut impl FnMut() -> u64,
    ) -> f64 {
        self.loads.fill(0);
        for streams in streams.iter().filter(|streams| **streams > 0) {
            match placement {
                Placement::AtRandom => {
                    let peer = self.draw(random);
                    self.loads[peer] += streams;
                }
                Placement::InTurn => self.deal(*streams, random),
                Placement::First => self.loads[0] += streams,
            }
        }
        let placed: u64 = self.loads.iter().sum();
        let fair = placed as f64 / self.total as f64;
        let normal = self.loads.iter().zip(&self.weights);
        normal
            .map(|(load, weight)| *load as f64 / (f64::from(*weight) * fair))
            .fold(0.0, f64::max)
    }

    /// A peer drawn by weight.
    fn draw(&self, random: &mut impl FnMut() -> u64) -> usize {
        let drawn = scale(random(), self.total);
        self.sums.partition_point(|sum| *sum <= drawn)
    }

    fn deal(&mut self, streams: u64, random: &mut impl FnMut() -> u64) {
        let count = self.loads.len() as u64;
        let first = scale(random(), count);
        for (peer, load) in (0..count).zip(&mut self.loads) {
            // Peers after the first, in a circle, take what does not divide.
            let turn = (peer + count - first) % count;
            *load += streams / count + u64::from(turn < streams % count);
        }
    }
}

/// `[0, 2^64)` scaled to `[0, bound)`; for bounds this small the bias is below 1 in 2^32.
fn scale(random: u64, bound: u64) -> u64 {
    let product = u128::from(random) * u128::from(bound);
    u64::try_from(product >> 64).unwrap_or(0)
}

/// The median; changes the order of `values`, which are not empty.
fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pinning::bound::bound;
    use proptest::prelude::*;

    /// splitmix64 (Steele, Lea, Flood, *Fast Splittable Pseudorandom Number Generators*, OOPSLA 2014).
    fn generator(mut state: u64) -> impl FnMut() -> u64 {
        move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        }
    }

    fn of(streams: &[u64], peers: usize, placement: Placement) -> Expected {
        let rounds = [streams.to_vec()];
        expect(&rounds, &vec![1; peers], placement, 4000, &mut generator(1))
            .expect("something to place")
    }

    #[test]
    fn one_connection_is_pinned_in_every_trial() {
        assert_eq!(
            of(&[500], 10, Placement::AtRandom).interval(1.0),
            (10.0, 10.0)
        );
        assert_eq!(
            of(&[500, 3, 1], 10, Placement::First).interval(1.0),
            (10.0, 10.0)
        );
    }

    #[test]
    fn streams_dealt_in_turn_are_level() {
        assert_eq!(of(&[1000], 10, Placement::InTurn).interval(1.0), (1.0, 1.0));
        // One stream more than divides makes one peer's share one larger.
        assert_eq!(
            of(&[41], 4, Placement::InTurn).interval(1.0),
            (44.0 / 41.0, 44.0 / 41.0)
        );
    }

    /// Two connections on two peers: together (hot factor 2) half of the time, apart (1) the other half.
    #[test]
    fn shares_of_trials_are_probabilities() {
        let expected = of(&[1, 1], 2, Placement::AtRandom);
        let apart = expected.medians.iter().filter(|hot| **hot == 1.0).count();
        // A binomial deviation of 4000 fair coins is 32.
        assert!((1850..2150).contains(&apart), "{apart}");
    }

    #[test]
    fn weights_are_shares_of_connections_and_what_hot_is_measured_by() {
        let rounds = [vec![1; 30_000]];
        let expected = expect(
            &rounds,
            &[1, 2, 0],
            Placement::AtRandom,
            50,
            &mut generator(2),
        );
        let hot = expected.expect("something to place").median();
        assert!((1.0..1.05).contains(&hot), "{hot}");
    }

    #[test]
    fn the_median_of_more_rounds_varies_less() {
        let width = |rounds: usize| {
            let rounds = vec![vec![1; 30]; rounds];
            let expected = expect(
                &rounds,
                &[1; 10],
                Placement::AtRandom,
                2000,
                &mut generator(3),
            );
            let (low, high) = expected.expect("something to place").interval(0.95);
            high - low
        };
        assert!(width(9) < width(1) * 0.6);
    }

    #[test]
    fn nothing_to_place_and_nowhere_to_place_it_is_no_expectation() {
        let mut random = generator(4);
        for (rounds, weights) in [
            (vec![], vec![1]),
            (vec![vec![]], vec![1]),
            (vec![vec![0]], vec![1]),
            (vec![vec![1]], vec![]),
            (vec![vec![1]], vec![0]),
        ] {
            assert_eq!(
                expect(&rounds, &weights, Placement::AtRandom, 10, &mut random),
                None
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn no_trial_beats_the_bound(
            streams in prop::collection::vec(1_u64..1000, 1..40), peers in 1_usize..12, seed: u64
        ) {
            let rates: Vec<f64> = streams.iter().map(|streams| *streams as f64).collect();
            let rounds = [streams];
            let expected = expect(&rounds, &vec![1; peers], Placement::AtRandom, 50, &mut generator(seed));
            let (least, most) = expected.expect("something to place").interval(1.0);
            prop_assert!(least >= bound(&rates, peers).lower - 1e-9);
            prop_assert!(most <= peers as f64 + 1e-9);
        }
    }
}
