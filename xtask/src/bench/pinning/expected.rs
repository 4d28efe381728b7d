//! What the hot factor should be, simulated by `evenkeel bench-pinning` from the streams that were really sent.

use std::{
    collections::BTreeMap,
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use super::{
    stage::{BACKENDS, Visit},
    ways::{Placement, Point},
};
use crate::{shell, workspace};

/// Placements tried for each point.
const TRIALS: usize = 10_000;
/// How often all points agree if connections are placed as said.
const CONFIDENCE: f64 = 0.95;

/// One point, as `evenkeel bench-pinning` is asked.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Question {
    rounds: Vec<Vec<u64>>,
    peers: usize,
    placement: &'static str,
    trials: usize,
    level: f64,
}

/// What it answers.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Expected {
    /// The hot factor in the middle of all trials.
    pub(super) median: f64,
    /// Between these it is seen, at every point at once, 95 times in 100.
    pub(super) low: f64,
    pub(super) high: f64,
    /// What no placement of whole connections gets below, in each round.
    pub(super) lower: Vec<f64>,
    /// What some placement of them reaches, in each round.
    pub(super) achievable: Vec<f64>,
}

/// For each point what to expect; `None` where that depends on who answers when.
pub(super) fn expect(points: &[(Point, Vec<Visit>)], seed: u64) -> Result<Vec<Option<Expected>>> {
    let compared = points
        .iter()
        .filter(|(point, visits)| placement(point).is_some() && !visits.is_empty())
        .count();
    // Bonferroni: of n intervals that miss once in 20 n, one misses once in 20.
    let level = 1.0 - (1.0 - CONFIDENCE) / compared.max(1) as f64;
    let asked: Vec<Option<Question>> = points
        .iter()
        .map(|(point, visits)| {
            let placement = placement(point).filter(|_| !visits.is_empty())?;
            Some(Question {
                rounds: visits.iter().map(|visit| units(point, visit)).collect(),
                peers: BACKENDS,
                placement,
                trials: TRIALS,
                level,
            })
        })
        .collect();
    // Several ways place the same connections in the same manner: once is enough.
    let mut questions: Vec<&Question> = Vec::new();
    let positions: Vec<Option<usize>> = asked
        .iter()
        .map(|question| {
            let question = question.as_ref()?;
            let known = questions.iter().position(|known| *known == question);
            Some(known.unwrap_or_else(|| {
                questions.push(question);
                questions.len() - 1
            }))
        })
        .collect();
    let answers: Vec<Expected> = ask(&questions, seed)?;
    ensure!(
        answers.len() == questions.len(),
        "{} answers to {} questions",
        answers.len(),
        questions.len()
    );
    Ok(positions
        .into_iter()
        .map(|position| answers.get(position?).cloned())
        .collect())
}

fn placement(point: &Point) -> Option<&'static str> {
    match point.way.placement {
        Placement::AtRandom => Some("at_random"),
        Placement::InTurn => Some("in_turn"),
        Placement::First => Some("first"),
        Placement::Unknown => None,
    }
}

/// Streams of each connection; where the clients deal them out, of each client.
fn units(point: &Point, visit: &Visit) -> Vec<u64> {
    if point.way.placement != Placement::InTurn {
        return visit
            .per_connection
            .iter()
            .map(|connection| connection.ok)
            .collect();
    }
    let mut clients: BTreeMap<usize, u64> = BTreeMap::new();
    for connection in &visit.per_connection {
        *clients.entry(connection.client).or_default() += connection.ok;
    }
    clients.into_values().collect()
}

fn ask(questions: &[&Question], seed: u64) -> Result<Vec<Expected>> {
    let mut command = Command::new(workspace::evenkeel()?);
    command.args(["bench-pinning", "--seed", &seed.to_string()]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run: {}", shell::describe(&command)))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(&serde_json::to_vec(questions)?)?;
    }
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "{}: {}",
        output.status,
        shell::describe(&command)
    );
    serde_json::from_slice(&output.stdout).context("what bench-pinning printed")
}
