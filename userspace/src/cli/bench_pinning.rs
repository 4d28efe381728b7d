//! `evenkeel bench-pinning`: what hot factor to expect, for `cargo xtask bench pinning`, which asks on standard input
//! and compares the answers with what it measured.

use std::io;

use anyhow::Context as _;
use rand::{Rng as _, SeedableRng as _, rngs::ChaCha8Rng};
use serde::{Deserialize, Serialize};

use super::Global;
use crate::pinning::{
    bound::bound,
    expected::{Expected, Placement, expect},
};

/// Arguments of `evenkeel bench-pinning`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where every random choice comes from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// One point of the benchmark.
#[derive(Debug, Deserialize)]
struct Question {
    /// Streams of each connection, or of each client where clients deal streams, in each round.
    rounds: Vec<Vec<u64>>,
    /// Peers, all of the same weight.
    peers: usize,
    placement: How,
    trials: usize,
    /// Share of the trials that the interval holds.
    level: f64,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum How {
    AtRandom,
    InTurn,
    First,
}

#[derive(Debug, Serialize)]
struct Answer {
    /// Of the simulated medians; nothing where there was nothing to place.
    median: Option<f64>,
    low: Option<f64>,
    high: Option<f64>,
    /// What no placement of whole connections gets below, for each round.
    lower: Vec<f64>,
    /// What a placement is known for, for each round.
    achievable: Vec<f64>,
}

pub(super) fn run(args: &Args, _global: &Global) -> anyhow::Result<()> {
    let questions: Vec<Question> =
        serde_json::from_reader(io::stdin().lock()).context("questions on standard input")?;
    let mut generator = ChaCha8Rng::seed_from_u64(args.seed);
    let answers: Vec<Answer> = questions
        .iter()
        .map(|question| question.answer(&mut || generator.next_u64()))
        .collect();
    println!("{}", serde_json::to_string(&answers)?);
    Ok(())
}

impl Question {
    fn answer(&self, random: &mut impl FnMut() -> u64) -> Answer {
        let placement = match self.placement {
            How::AtRandom => Placement::AtRandom,
            How::InTurn => Placement::InTurn,
            How::First => Placement::First,
        };
        let weights = vec![1; self.peers];
        let expected = expect(&self.rounds, &weights, placement, self.trials, random);
        let interval = expected
            .as_ref()
            .map(|expected| expected.interval(self.level));
        let bounds = self.rounds.iter().map(|streams| {
            let rates: Vec<f64> = streams.iter().map(|streams| *streams as f64).collect();
            bound(&rates, self.peers)
        });
        let (lower, achievable) = bounds.map(|bound| (bound.lower, bound.achievable)).unzip();
        Answer {
            median: expected.as_ref().map(Expected::median),
            low: interval.map(|(low, _)| low),
            high: interval.map(|(_, high)| high),
            lower,
            achievable,
        }
    }
}
