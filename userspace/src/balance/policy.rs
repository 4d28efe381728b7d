//! Which backend takes the next stream.
//!
//! | policy | the promise |
//! | --- | --- |
//! | [`RoundRobin`] | over any full cycle each backend gets exactly its weight's share, spread over the cycle |
//! | [`LeastRequest`] | the backend with the fewest streams in flight per unit of weight; equals take turns |
//! | [`P2c`] | the less loaded of two drawn by weight: nearly as even as `least_request`, and no herd when many proxies decide at once (Mitzenmacher, *The Power of Two Choices*, 2001) |
//!
//! A candidate of weight 0 (draining) is never picked. The load of an idle backend is 0 whatever its weight, so that
//! light traffic is spread by weight too, instead of all going to the heaviest.

use std::cmp::Ordering;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

/// A policy by name, as it stands in `evenkeel.toml`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Policy {
    /// [`RoundRobin`].
    RoundRobin,
    /// [`LeastRequest`].
    #[default]
    LeastRequest,
    /// [`P2c`].
    P2c,
}

impl Policy {
    /// Every policy, in the order in which they are listed to people.
    pub const ALL: [Self; 3] = [Self::RoundRobin, Self::LeastRequest, Self::P2c];

    /// The name in configuration and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::LeastRequest => "least_request",
            Self::P2c => "p2c",
        }
    }

    /// A balancer that follows this policy, with fresh state.
    #[must_use]
    pub fn balancer(self) -> Box<dyn Balancer> {
        match self {
            Self::RoundRobin => Box::new(RoundRobin::default()),
            Self::LeastRequest => Box::new(LeastRequest::default()),
            Self::P2c => Box::new(P2c),
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One backend as a policy sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Share of new streams that it should get; 0 for none.
    pub weight: u32,
    /// Streams sent to it and not yet done, over all threads.
    pub in_flight: u32,
}

impl Candidate {
    /// Orders by streams in flight per unit of weight, without rounding. Both weights are positive.
    fn load_order(&self, other: &Self) -> Ordering {
        let (ours, theirs) = (u64::from(self.in_flight), u64::from(other.in_flight));
        (ours * u64::from(other.weight)).cmp(&(theirs * u64::from(self.weight)))
    }
}

/// A policy with its state; one is shared by all threads that serve a service.
pub trait Balancer: Send + Sync {
    /// The position of the candidate that takes the next stream, or `None` where no candidate has a positive weight.
    /// `random` returns uniformly distributed numbers; not every policy calls it.
    fn pick(&self, candidates: &[Candidate], random: &mut dyn FnMut() -> u64) -> Option<usize>;
}

/// Takes turns by weight.
#[derive(Debug, Default)]
pub struct RoundRobin {
    turns: Turns,
}

/// Fewest streams in flight per unit of weight; equals take turns.
#[derive(Debug, Default)]
pub struct LeastRequest {
    ties: Turns,
}

/// The better of two drawn by weight.
#[derive(Clone, Copy, Debug, Default)]
pub struct P2c;

// === impl RoundRobin ===

impl Balancer for RoundRobin {
    fn pick(&self, candidates: &[Candidate], _random: &mut dyn FnMut() -> u64) -> Option<usize> {
        self.turns.next(candidates, |_| true)
    }
}

// === impl LeastRequest ===

impl Balancer for LeastRequest {
    fn pick(&self, candidates: &[Candidate], _random: &mut dyn FnMut() -> u64) -> Option<usize> {
        let mut best: Option<(usize, &Candidate)> = None;
        let mut tied = false;
        for (position, candidate) in candidates.iter().enumerate().filter(|(_, c)| c.weight > 0) {
            match best.map(|(_, best)| candidate.load_order(best)) {
                None | Some(Ordering::Less) => (best, tied) = (Some((position, candidate)), false),
                Some(Ordering::Equal) => tied = true,
                Some(Ordering::Greater) => {}
            }
        }
        let (position, best) = best?;
        if !tied {
            return Some(position);
        }
        // Turns rather than chance: sequential requests on idle backends then land exactly evenly.
        self.ties
            .next(candidates, |c| c.load_order(best) == Ordering::Equal)
    }
}

// === impl P2c ===

impl Balancer for P2c {
    fn pick(&self, candidates: &[Candidate], random: &mut dyn FnMut() -> u64) -> Option<usize> {
        let total: u64 = candidates.iter().map(|c| u64::from(c.weight)).sum();
        let ticket = below(random(), total)?;
        let first = owner(candidates, |_, _| true, ticket)?;
        let rest = total - u64::from(candidates[first].weight);
        let Some(ticket) = below(random(), rest) else {
            return Some(first);
        };
        // Drawn from the others only: drawing the same one twice would be no choice at all.
        let second = owner(candidates, |position, _| position != first, ticket)?;
        match candidates[second].load_order(&candidates[first]) {
            Ordering::Less => Some(second),
            Ordering::Equal | Ordering::Greater => Some(first),
        }
    }
}

/// A number below `bound` from a uniform 64-bit one, by multiplication (Lemire, *Fast Random Integer Generation in an
/// Interval*, 2019; the bias of at most `bound / 2^64` does not matter here). `None` where `bound` is 0.
fn below(random: u64, bound: u64) -> Option<u64> {
    let wide = u128::from(random) * u128::from(bound);
    (bound > 0).then(|| u64::try_from(wide >> 64).unwrap_or(0))
}

/// The candidate that owns `ticket` when those that `eligible` admits own as many consecutive tickets as their weight.
fn owner(
    candidates: &[Candidate],
    eligible: impl Fn(usize, &Candidate) -> bool,
    mut ticket: u64,
) -> Option<usize> {
    for (position, candidate) in candidates.iter().enumerate() {
        let weight = u64::from(candidate.weight);
        if weight == 0 || !eligible(position, candidate) {
            continue;
        }
        if ticket < weight {
            return Some(position);
        }
        ticket -= weight;
    }
    None
}

/// Takes turns by weight among changing candidates, with nothing but one shared number.
#[derive(Debug, Default)]
struct Turns {
    taken: AtomicU64,
}

impl Turns {
    fn next(
        &self,
        candidates: &[Candidate],
        eligible: impl Fn(&Candidate) -> bool,
    ) -> Option<usize> {
        let weights = || {
            candidates
                .iter()
                .filter(|c| c.weight > 0 && eligible(c))
                .map(|c| u64::from(c.weight))
        };
        let mut divisor = 0;
        let mut total = 0;
        for weight in weights() {
            divisor = greatest_common_divisor(divisor, weight);
            total += weight;
        }
        if total == 0 {
            return None;
        }
        // Weights 10 and 20 are the cycle of three that 1 and 2 are.
        let cycle = total / divisor;
        let turn = self.taken.fetch_add(1, Relaxed) % cycle;
        let ticket = turn * stride(cycle) % cycle * divisor;
        owner(candidates, |_, candidate| eligible(candidate), ticket)
    }
}

/// A step through `cycle` that visits every ticket once and keeps consecutive ones apart: the number prime to the
/// cycle next below its golden section, so that a backend of weight 5 does not get five streams in a row.
fn stride(cycle: u64) -> u64 {
    let golden = cycle * 618 / 1000;
    (1..=golden)
        .rev()
        .find(|step| greatest_common_divisor(*step, cycle) == 1)
        .unwrap_or(1)
}

fn greatest_common_divisor(mut a: u64, mut b: u64) -> u64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::{Balancer, Candidate, LeastRequest, P2c, Policy, RoundRobin};
    use proptest::prelude::*;

    fn idle(weights: &[u32]) -> Vec<Candidate> {
        weights
            .iter()
            .map(|weight| Candidate {
                weight: *weight,
                in_flight: 0,
            })
            .collect()
    }

    /// splitmix64, so that a test does the same every time.
    fn random(mut state: u64) -> impl FnMut() -> u64 {
        move || {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut z = state;
            z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }
    }

    fn tally(balancer: &dyn Balancer, candidates: &[Candidate], picks: u64) -> Vec<u64> {
        let mut counts = vec![0; candidates.len()];
        let mut random = random(1);
        for _ in 0..picks {
            counts[balancer.pick(candidates, &mut random).expect("a candidate")] += 1;
        }
        counts
    }

    #[test]
    fn no_policy_picks_from_nothing() {
        for policy in Policy::ALL {
            let balancer = policy.balancer();
            assert_eq!(balancer.pick(&[], &mut random(1)), None, "{policy}");
            assert_eq!(
                balancer.pick(&idle(&[0, 0]), &mut random(1)),
                None,
                "{policy}"
            );
        }
    }

    #[test]
    fn names_are_the_ones_that_serde_reads() {
        for policy in Policy::ALL {
            let json = serde_json::to_string(&policy).expect("serialises");
            assert_eq!(json, format!("\"{}\"", policy.name()));
        }
    }

    #[test]
    fn round_robin_spreads_a_heavy_weight_over_the_cycle() {
        let balancer = RoundRobin::default();
        let candidates = idle(&[5, 5]);
        let order: Vec<_> = (0..4)
            .filter_map(|_| balancer.pick(&candidates, &mut random(1)))
            .collect();
        assert_eq!(order, [0, 1, 0, 1]);
        let balancer = RoundRobin::default();
        let candidates = idle(&[5, 1, 1]);
        let order: Vec<_> = (0..7)
            .filter_map(|_| balancer.pick(&candidates, &mut random(1)))
            .collect();
        let longest = order.split(|p| *p != 0).map(<[usize]>::len).max();
        assert!(longest <= Some(3), "{order:?}");
    }

    #[test]
    fn p2c_follows_weights_when_idle_within_two_percent() {
        let counts = tally(&P2c, &idle(&[1, 2, 5]), 80_000);
        for (count, share) in counts.iter().zip([0.125, 0.25, 0.625]) {
            assert!(
                (*count as f64 / 80_000.0 - share).abs() < 0.02,
                "{counts:?}"
            );
        }
    }

    #[test]
    fn p2c_never_picks_the_most_loaded_of_its_kind() {
        let mut candidates = idle(&[1, 1, 1, 1]);
        candidates[2].in_flight = 50;
        assert_eq!(tally(&P2c, &candidates, 10_000)[2], 0);
    }

    #[test]
    fn p2c_keeps_loads_close_where_chance_would_not() {
        let mut candidates = idle(&[1; 10]);
        let mut random = random(7);
        for _ in 0..10_000 {
            let picked = P2c.pick(&candidates, &mut random).expect("a candidate");
            candidates[picked].in_flight += 1;
        }
        let most = candidates.iter().map(|c| c.in_flight).max();
        assert!(most <= Some(1010), "{candidates:?}");
    }

    proptest! {
        #[test]
        fn round_robin_is_exact_over_a_cycle(weights in prop::collection::vec(0_u32..50, 1..30), rounds in 1_u64..4) {
            let cycle: u64 = weights.iter().map(|w| u64::from(*w)).sum();
            prop_assume!(cycle > 0);
            let counts = tally(&RoundRobin::default(), &idle(&weights), cycle * rounds);
            let exact: Vec<u64> = weights.iter().map(|w| u64::from(*w) * rounds).collect();
            prop_assert_eq!(counts, exact);
        }

        #[test]
        fn least_request_is_exact_over_a_cycle_when_idle(weights in prop::collection::vec(1_u32..50, 1..30)) {
            let cycle: u64 = weights.iter().map(|w| u64::from(*w)).sum();
            let counts = tally(&LeastRequest::default(), &idle(&weights), cycle);
            let exact: Vec<u64> = weights.iter().map(|w| u64::from(*w)).collect();
            prop_assert_eq!(counts, exact);
        }

        #[test]
        fn least_request_picks_no_backend_that_another_beats(
            loads in prop::collection::vec((0_u32..5, 0_u32..1000), 1..30)
        ) {
            let candidates: Vec<Candidate> =
                loads.iter().map(|(weight, in_flight)| Candidate { weight: *weight, in_flight: *in_flight }).collect();
            let picked = LeastRequest::default().pick(&candidates, &mut random(3));
            let load = |c: &Candidate| f64::from(c.in_flight) / f64::from(c.weight);
            match picked {
                None => prop_assert!(candidates.iter().all(|c| c.weight == 0)),
                Some(picked) => prop_assert!(
                    candidates.iter().filter(|c| c.weight > 0).all(|c| load(c) >= load(&candidates[picked]))
                ),
            }
        }

        #[test]
        fn no_policy_picks_weight_zero(
            loads in prop::collection::vec((0_u32..3, 0_u32..10), 1..10), seed in any::<u64>()
        ) {
            let candidates: Vec<Candidate> =
                loads.iter().map(|(weight, in_flight)| Candidate { weight: *weight, in_flight: *in_flight }).collect();
            let mut random = random(seed);
            for policy in Policy::ALL {
                if let Some(picked) = policy.balancer().pick(&candidates, &mut random) {
                    prop_assert!(candidates[picked].weight > 0, "{}", policy);
                } else {
                    prop_assert!(candidates.iter().all(|c| c.weight == 0), "{}", policy);
                }
            }
        }
    }
}
