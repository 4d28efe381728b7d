//! How hot the hottest backend gets, and how slow that makes the slowest requests, by who balances and by how many
//! connections there are.
//!
//! ```text
//!                 {1, 10, 30, 100, 1000} clients x {equally busy, Zipf}
//!  client ──┬── L4 hash, L4 maglev ──────────┬── ten backends of finite capacity
//!           ├── pools of 2 to 16 over L4 ────┤
//!           ├── L7 round_robin, ... ─────────┤
//!           └── client-side balancing ───────┘
//! ```
//!
//! The points are visited in turns, round after round; a visit is an open loop of the same few requests, so that a
//! slow backend cannot slow the clients down, and waits for the last answer. Where connections land by chance or by
//! rule, the hot factor is also simulated from the very streams that were sent, and both must agree.

mod claims;
mod expected;
mod figures;
mod plots;
mod stage;
mod tables;
mod ways;

use std::time::{Duration, Instant};

use anyhow::Result;

use super::{Context, Outcome, attempts::Attempts};
use crate::term::Progress;
use stage::{Stage, Visit};
use ways::Point;

/// Requests of a visit, full and quick.
const REQUESTS: (u32, u32) = (2000, 900);
/// Rounds begin until so much time is spent, full and quick; the first one is always finished.
const TIME: (Duration, Duration) = (Duration::from_secs(630), Duration::from_secs(40));
/// More rounds than this tell nothing new.
const MOST_ROUNDS: usize = 9;

pub(super) fn run(context: &Context) -> Result<Outcome> {
    let stage = Stage::set(context.choose(REQUESTS.0, REQUESTS.1))?;
    let clients: &[u32] = context.choose(&[1, 10, 30, 100, 1000], &[1, 30, 300]);
    let (missing, present): (Vec<Point>, Vec<Point>) = ways::points(clients)
        .into_iter()
        .partition(|point| stage.missing(point.way.target).is_some());
    let mut visited: Vec<(Point, Vec<Visit>)> = present
        .into_iter()
        .map(|point| (point, Vec::new()))
        .collect();
    // Whoever comes first finds no neighbour resolved and no page in memory.
    let mut attempts = Attempts::default();
    for (point, _) in visited.iter().take(ways::WAYS.len()) {
        attempts.keep(&point.name(), stage.visit(point, context.seed))?;
    }
    rounds(&stage, context, &mut visited, &mut attempts)?;
    let progress = Progress::start("simulating what to expect");
    let expected = expected::expect(&visited, context.seed)?;
    progress.done();
    let missing = missing
        .first()
        .and_then(|point| stage.missing(point.way.target));
    let gaps = figures::Gaps { missing, attempts };
    Ok(figures::outcome(&visited, &expected, &gaps, context))
}

fn rounds(
    stage: &Stage,
    context: &Context,
    visited: &mut [(Point, Vec<Visit>)],
    attempts: &mut Attempts,
) -> Result<()> {
    let progress = Progress::start("clients, weights and ways in turns");
    let begun = Instant::now();
    let time = context.choose(TIME.0, TIME.1);
    let count = visited.len();
    for round in 0..MOST_ROUNDS {
        for turn in 0..count {
            if round > 0 && begun.elapsed() > time {
                break;
            }
            progress.note(format!("round {}, {} of {count}", round + 1, turn + 1));
            // Nobody always comes first, or always after the same one: 7 shares no divisor with the number of points.
            let (point, visits) = &mut visited[(turn * 7 + round * 11) % count];
            let seed = context
                .seed
                .wrapping_mul(1_000_003)
                .wrapping_add((round * count + turn) as u64);
            visits.extend(attempts.keep(&point.name(), stage.visit(point, seed))?);
        }
    }
    progress.done();
    Ok(())
}
