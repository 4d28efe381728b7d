//! How even connections could land at best: a bound that no L4 policy beats, computed from the connections.
//!
//! An L4 policy may put each connection on any of `N` peers, but whole. With the rate of each connection given, the
//! least load of the busiest peer is the makespan of scheduling jobs on identical machines (`P || Cmax`). Finding it is
//! NP-hard, but for the few connections that matter it is found by branch and bound; where the search would take too
//! long, the answer is an interval: no policy gets below `lower`, and an assignment that reaches `achievable` is known.
//!
//! Lower bounds, with rates `p1 >= p2 >= ...`:
//! - the mean load, `sum / N`;
//! - for `k = 1, 2, ...`: of the `kN + 1` largest connections some peer gets at least `k + 1`, and these are at best the
//!   smallest `k + 1` of them (`k = 0` is the largest connection alone, `k = 1` the pair `pN + p(N+1)`).
//!
//! The assignment: largest first, each to the least loaded peer (LPT), which is at most `4/3 - 1/3N` times the optimum
//! (Graham, *Bounds on Multiprocessing Timing Anomalies*, SIAM J. Appl. Math. 17, 1969).

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Most connections that the exact search is tried with; with more of them LPT is close anyway.
const SEARCHED: usize = 48;
/// Most partial assignments that it looks at: about a millisecond.
const MOST_STEPS: u32 = 50_000;
/// Loads this close, relative to the mean, are the same: sums of the same rates in another order differ by less.
const SAME: f64 = 1e-9;

/// The hot factor that connections with given rates allow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bound {
    /// No assignment of whole connections to peers has a lower hot factor.
    pub lower: f64,
    /// An assignment with this hot factor exists; equal to `lower` where the optimum was found.
    pub achievable: f64,
}

/// The least hot factor of connections with these `rates` on `peers` peers. Rates that are not positive and finite
/// carry nothing and are left out. Where nothing is left to balance, both figures are 1.
#[must_use]
pub fn bound(rates: &[f64], peers: usize) -> Bound {
    let mut rates: Vec<f64> = rates
        .iter()
        .copied()
        .filter(|rate| rate.is_finite() && *rate > 0.0)
        .collect();
    rates.sort_by(|a, b| b.total_cmp(a));
    let mean = rates.iter().sum::<f64>() / peers as f64;
    if rates.is_empty() || peers == 0 || !mean.is_finite() {
        return Bound {
            lower: 1.0,
            achievable: 1.0,
        };
    }
    // From here on the mean load is 1.
    for rate in &mut rates {
        *rate /= mean;
    }
    let lower = lower_bound(&rates, peers);
    let assigned = largest_first(&rates, peers).max(lower);
    if assigned <= lower + SAME || rates.len() > SEARCHED {
        return Bound {
            lower,
            achievable: assigned,
        };
    }
    let search = Search::run(&rates, peers, lower, assigned);
    Bound {
        lower: if search.complete { search.best } else { lower },
        achievable: search.best,
    }
}

/// See the module; `rates` are sorted, largest first, and their sum is `peers`.
fn lower_bound(rates: &[f64], peers: usize) -> f64 {
    let mut bound = 1.0_f64;
    for k in 0.. {
        let last = k * peers;
        if last >= rates.len() {
            break;
        }
        bound = bound.max(rates[last - k..=last].iter().sum());
        if peers == 1 {
            break;
        }
    }
    bound
}

/// Load of the busiest peer after LPT.
fn largest_first(rates: &[f64], peers: usize) -> f64 {
    // Peers beyond the number of connections stay idle.
    let mut loads: BinaryHeap<Reverse<Load>> = (0..peers.min(rates.len()))
        .map(|_| Reverse(Load(0.0)))
        .collect();
    let mut most = 0.0_f64;
    for rate in rates {
        if let Some(mut least) = loads.peek_mut() {
            least.0.0 += rate;
            most = most.max(least.0.0);
        }
    }
    most
}

/// Ordered by `total_cmp`.
#[derive(Clone, Copy, Debug)]
struct Load(f64);

impl PartialEq for Load {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Load {}

impl PartialOrd for Load {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Load {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

/// Depth-first branch and bound over where each connection goes, largest first.
struct Search<'a> {
    rates: &'a [f64],
    /// Sum of the rates from each position on.
    rest: Vec<f64>,
    loads: Vec<f64>,
    /// As good as it can get.
    lower: f64,
    /// The best assignment's busiest peer so far.
    best: f64,
    steps: u32,
    /// Every assignment that could be better was looked at.
    complete: bool,
}

impl<'a> Search<'a> {
    fn run(rates: &'a [f64], peers: usize, lower: f64, assigned: f64) -> Self {
        let mut rest = vec![0.0; rates.len() + 1];
        for (position, rate) in rates.iter().enumerate().rev() {
            rest[position] = rest[position + 1] + rate;
        }
        let mut search = Search {
            rates,
            rest,
            loads: vec![0.0; peers.min(rates.len())],
            lower,
            best: assigned,
            steps: 0,
            complete: true,
        };
        search.place(0);
        search
    }

    /// Places the connection at `position` (recursion is at most [`SEARCHED`] deep) and all after it.
    fn place(&mut self, position: usize) {
        let Some(rate) = self.rates.get(position) else {
            // Only assignments better than the best come this far.
            self.best = self.loads.iter().copied().fold(0.0, f64::max);
            return;
        };
        // What all peers together could still take without being as bad as the best.
        let room: f64 = self.loads.iter().map(|load| self.best - load).sum();
        if room <= self.rest[position] {
            return;
        }
        for peer in 0..self.loads.len() {
            if self.best <= self.lower + SAME {
                return;
            }
            let load = self.loads[peer];
            // Two peers with the same load lead to the same assignments.
            let known = self.loads[..peer].contains(&load);
            if known || load + rate >= self.best - SAME {
                continue;
            }
            if self.steps >= MOST_STEPS {
                self.complete = false;
                return;
            }
            self.steps += 1;
            self.loads[peer] = load + rate;
            self.place(position + 1);
            self.loads[peer] = load;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Bound, bound};
    use proptest::prelude::*;

    fn exactly(rates: &[f64], peers: usize, expected: f64) {
        let Bound { lower, achievable } = bound(rates, peers);
        assert!(
            (lower - expected).abs() < 1e-6 && (achievable - expected).abs() < 1e-6,
            "{rates:?} on {peers}: {lower} to {achievable}, not {expected}"
        );
    }

    #[test]
    fn one_connection_is_pinned_whatever_the_policy() {
        exactly(&[50_000.0], 4, 4.0);
        exactly(&[50_000.0, 0.0, f64::NAN, -3.0], 4, 4.0);
    }

    #[test]
    fn nothing_to_balance_is_balanced() {
        exactly(&[], 4, 1.0);
        exactly(&[0.0, f64::INFINITY], 4, 1.0);
        exactly(&[1.0], 0, 1.0);
        exactly(&[3.0, 2.0, 1.0], 1, 1.0);
    }

    #[test]
    fn equal_connections_that_do_not_divide_leave_one_peer_with_one_more() {
        exactly(&[1.0; 8], 4, 1.0);
        exactly(&[1.0; 9], 4, 3.0 * 4.0 / 9.0);
        exactly(&[1.0; 10_001], 4, 2501.0 * 4.0 / 10_001.0);
    }

    #[test]
    fn the_optimum_is_found_where_taking_the_largest_first_misses_it() {
        // Graham's example for two peers: LPT gives 7, the optimum is {3,3} and {2,2,2}.
        exactly(&[3.0, 3.0, 2.0, 2.0, 2.0], 2, 1.0);
        exactly(&[5.0, 5.0, 4.0, 4.0, 3.0, 3.0, 3.0], 3, 1.0);
    }

    #[test]
    fn a_thousand_heavy_tailed_connections_cannot_be_balanced() {
        let zipf: Vec<f64> = (1..=1000).map(|rank| 1.0 / f64::from(rank)).collect();
        let sum: f64 = zipf.iter().sum();
        exactly(&zipf, 10, 10.0 / sum);
    }

    /// The least busiest load of all assignments.
    fn exhaustive(rates: &[f64], peers: usize) -> f64 {
        let assignments = peers.pow(u32::try_from(rates.len()).unwrap());
        let most = (0..assignments).map(|mut code| {
            let mut loads = vec![0.0; peers];
            for rate in rates {
                loads[code % peers] += rate;
                code /= peers;
            }
            loads.into_iter().fold(0.0, f64::max)
        });
        most.fold(f64::INFINITY, f64::min) * peers as f64 / rates.iter().sum::<f64>()
    }

    proptest! {
        // Each case may take the whole search, and debug builds are slow.
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn few_connections_get_the_exact_optimum(
            rates in prop::collection::vec(1_u32..100, 1..8), peers in 1_usize..5
        ) {
            let rates: Vec<f64> = rates.into_iter().map(f64::from).collect();
            let Bound { lower, achievable } = bound(&rates, peers);
            let optimum = exhaustive(&rates, peers);
            prop_assert!((lower - optimum).abs() < 1e-6, "{lower} {optimum}");
            prop_assert!((achievable - optimum).abs() < 1e-6, "{achievable} {optimum}");
        }

        #[test]
        fn no_assignment_beats_the_bound(
            placed in prop::collection::vec((1.0_f64..1e6, 0_usize..6), 1..200)
        ) {
            let mut loads = [0.0; 6];
            for (rate, peer) in &placed {
                loads[*peer] += rate;
            }
            let rates: Vec<f64> = placed.iter().map(|(rate, _)| *rate).collect();
            let hot = loads.iter().copied().fold(0.0, f64::max) * 6.0 / rates.iter().sum::<f64>();
            let Bound { lower, achievable } = bound(&rates, 6);
            prop_assert!(1.0 - 1e-9 <= lower && lower <= achievable + 1e-9);
            prop_assert!(lower <= hot + 1e-9, "{lower} {hot}");
            // Any list schedule is at most the mean and the largest connection together.
            prop_assert!(achievable <= 2.0 * lower + 1e-9, "{achievable} {lower}");
        }

        #[test]
        fn only_the_proportions_of_rates_matter(
            rates in prop::collection::vec(1.0_f64..1e6, 1..30), peers in 1_usize..8
        ) {
            let scaled: Vec<f64> = rates.iter().map(|rate| rate * 1024.0).collect();
            let (one, other) = (bound(&rates, peers), bound(&scaled, peers));
            prop_assert!((one.lower - other.lower).abs() < 1e-6);
            prop_assert!((one.achievable - other.achievable).abs() < 1e-6);
        }
    }
}
