//! How requests are shared out among the clients.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::str::FromStr;

use rand::RngExt as _;

use crate::load::Malformed;
use crate::load::random::Generator;

/// Share of each client in the requests, as on the command line.
#[derive(Clone, Debug, PartialEq)]
pub enum Weights {
    /// The same for all.
    Equal,
    /// Of `n` clients the `i`-th gets a share proportional to `1 / i^s`: few busy ones and a long tail, as popularity
    /// mostly is (Zipf's law).
    Zipf(f64),
    /// As listed.
    List(Vec<u32>),
}

/// The heaviest weight of a Zipf distribution: with it shares of a ten-thousandth of the largest are still right
/// within 1 %.
const HEAVIEST: f64 = 1e6;
/// The exponent of `zipf` alone.
const EXPONENT: f64 = 1.0;

/// Weighted turns: client `i` has its `k`-th turn when it is `(k + 1/2) / weight` through the cycle, and whoever is due
/// first is next. Any run of `sum(weights)` turns gives each client exactly its weight, and heavy ones are spread out
/// instead of bunched. A turn costs the logarithm of the number of clients.
#[derive(Debug)]
pub struct Turns {
    due: BinaryHeap<Reverse<Turn>>,
}

/// Turn number `taken` of a client.
#[derive(Debug, PartialEq, Eq)]
struct Turn {
    taken: u64,
    weight: u32,
    client: usize,
}

/// Clients drawn by weight, one independent of the other: what is drawn so from a Poisson process is a Poisson process
/// for each client.
#[derive(Debug)]
pub(super) struct Draws {
    /// Sum of the weights up to and with each client.
    sums: Vec<u64>,
    random: Generator,
}

// === impl Weights ===

impl Weights {
    const ALLOWED: Malformed =
        Malformed("equal, zipf, zipf:EXPONENT (0 to 10), or one weight for each connection: W,W,…");

    /// One for each of `clients`; a list is taken as it is, whatever its length.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "from 1 to a million"
    )]
    pub fn of(&self, clients: usize) -> Vec<u32> {
        match self {
            Self::Equal => vec![1; clients],
            Self::Zipf(exponent) => (1..=clients)
                .map(|rank| (HEAVIEST / (rank as f64).powf(*exponent)).round().max(1.0) as u32)
                .collect(),
            Self::List(weights) => weights.clone(),
        }
    }
}

impl FromStr for Weights {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let exponent = |text: &str| {
            text.parse::<f64>()
                .ok()
                .filter(|exponent| (0.0..=10.0).contains(exponent))
        };
        let read = match (text, text.strip_prefix("zipf:")) {
            ("equal", _) => Some(Self::Equal),
            ("zipf", _) => Some(Self::Zipf(EXPONENT)),
            (_, Some(text)) => exponent(text).map(Self::Zipf),
            (list, None) => {
                let weights = list.split(',').map(|weight| weight.parse().ok());
                weights.collect::<Option<Vec<u32>>>().map(Self::List)
            }
        };
        read.ok_or(Self::ALLOWED)
    }
}

impl fmt::Display for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equal => f.write_str("equal"),
            Self::Zipf(exponent) => write!(f, "zipf:{exponent}"),
            Self::List(weights) => {
                let weights: Vec<String> = weights.iter().map(u32::to_string).collect();
                f.write_str(&weights.join(","))
            }
        }
    }
}

// === impl Turns ===

impl Turns {
    /// Nobody had a turn yet.
    #[must_use]
    pub fn new(weights: &[u32]) -> Self {
        let first = |(client, weight): (usize, &u32)| {
            Reverse(Turn {
                taken: 0,
                weight: *weight,
                client,
            })
        };
        let heavy = weights
            .iter()
            .enumerate()
            .filter(|(_, weight)| **weight > 0);
        Self {
            due: heavy.map(first).collect(),
        }
    }

    /// The client whose turn it is (0 when there is none at all).
    #[expect(
        clippy::should_implement_trait,
        reason = "never ends, so Option would only have to be unwrapped"
    )]
    pub fn next(&mut self) -> usize {
        let Some(mut first) = self.due.peek_mut() else {
            return 0;
        };
        first.0.taken += 1;
        first.0.client
    }
}

impl Ord for Turn {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        // (k + 1/2) / w against (l + 1/2) / v, without division.
        let due = |turn: &Self, weight: u32| (2 * u128::from(turn.taken) + 1) * u128::from(weight);
        due(self, other.weight)
            .cmp(&due(other, self.weight))
            .then(self.client.cmp(&other.client))
    }
}

impl PartialOrd for Turn {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

// === impl Draws ===

impl Draws {
    pub(super) fn new(weights: &[u32], random: Generator) -> Self {
        let mut sum = 0;
        let add = |weight: &u32| {
            sum += u64::from(*weight);
            sum
        };
        Self {
            sums: weights.iter().map(add).collect(),
            random,
        }
    }

    pub(super) fn next(&mut self) -> usize {
        let all = self.sums.last().copied().unwrap_or(0).max(1);
        let ticket = self.random.random_range(0..all);
        self.sums.partition_point(|sum| *sum <= ticket)
    }
}

/// `total` requests shared out by weight; every one is given to somebody.
#[must_use]
pub fn quotas(weights: &[u32], total: u64) -> Vec<u64> {
    let mut turns = Turns::new(weights);
    let sum: u64 = weights.iter().copied().map(u64::from).sum::<u64>().max(1);
    let (rounds, rest) = (total / sum, total % sum);
    let mut quotas: Vec<u64> = weights
        .iter()
        .map(|weight| u64::from(*weight) * rounds)
        .collect();
    for _ in 0..rest {
        quotas[turns.next()] += 1;
    }
    quotas
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::random::{Purpose, generator};
    use proptest::prelude::*;

    #[test]
    fn quotas_follow_the_weights() {
        assert_eq!(quotas(&[8, 1, 1], 1000), [800, 100, 100]);
    }

    #[test]
    fn turns_spread_the_heavy_client_out() {
        let mut turns = Turns::new(&[2, 1, 1]);
        let order: Vec<usize> = (0..8).map(|_| turns.next()).collect();
        assert_eq!(order, [0, 1, 2, 0, 0, 1, 2, 0]);
    }

    #[test]
    fn zipf_shares_fall_with_the_rank() {
        let weights = Weights::Zipf(1.0).of(1000);
        let sum: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        let harmonic: f64 = (1..=1000).map(|rank| 1.0 / f64::from(rank)).sum();
        for rank in [1, 2, 10, 100, 1000] {
            let share = f64::from(weights[rank - 1]) / sum;
            let exact = 1.0 / rank as f64 / harmonic;
            assert!(
                (share / exact - 1.0).abs() < 0.001,
                "{rank}: {share} {exact}"
            );
        }
        assert_eq!(Weights::Zipf(0.0).of(3), [1_000_000; 3]);
    }

    #[test]
    fn weights_read_as_they_print() {
        for text in ["equal", "zipf:1.2", "91,1,1"] {
            assert_eq!(text.parse::<Weights>().unwrap().to_string(), text);
        }
        assert_eq!("zipf".parse(), Ok(Weights::Zipf(1.0)));
        for text in ["", "zipf:x", "zipf:-1", "zipf:11", "1,,2", "1,x", "paretto"] {
            assert!(text.parse::<Weights>().is_err(), "{text}");
        }
    }

    #[test]
    fn draws_come_by_weight_and_never_to_nobody() {
        let mut draws = Draws::new(&[0, 3, 0, 1, 0], generator(1, Purpose::Turns, 0));
        let mut counts = [0; 5];
        for _ in 0..20_000 {
            counts[draws.next()] += 1;
        }
        assert_eq!((counts[0], counts[2], counts[4]), (0, 0, 0));
        let share = f64::from(counts[1]) / 20_000.0;
        assert!((share - 0.75).abs() < 0.01, "{share}");
    }

    proptest! {
        #[test]
        fn every_request_is_given_to_somebody_by_weight(
            weights in prop::collection::vec(0_u32..50, 1..30), total in 0_u64..5000
        ) {
            let sum: u64 = weights.iter().copied().map(u64::from).sum();
            prop_assume!(sum > 0);
            let quotas = quotas(&weights, total);
            prop_assert_eq!(quotas.iter().sum::<u64>(), total);
            for (quota, weight) in quotas.iter().zip(&weights) {
                let exact = total as f64 * f64::from(*weight) / sum as f64;
                prop_assert!((*quota as f64 - exact).abs() <= f64::from(*weight), "{} {}", quota, exact);
            }
        }

        #[test]
        fn a_cycle_of_turns_gives_each_client_its_weight(weights in prop::collection::vec(0_u32..50, 1..30)) {
            let sum: u32 = weights.iter().sum();
            prop_assume!(sum > 0);
            let mut turns = Turns::new(&weights);
            let mut counts = vec![0; weights.len()];
            for _ in 0..3 * sum {
                counts[turns.next()] += 1;
            }
            let exact: Vec<u32> = weights.iter().map(|weight| 3 * weight).collect();
            prop_assert_eq!(counts, exact);
        }
    }
}
