//! Head-of-line blocking: what a download does to the small requests beside it, by how they travel, how long the way
//! is, and how many packets it loses.
//!
//! ```text
//!  client ── relay: 10, 50, 100 ms there and back; 0, 0.1, 1, 2, 5 % lost ── server
//!     a download of 10 MB after the other + 100 requests of 1 KB a second, open loop
//! ```
//!
//! evenkeel takes no part in it: this is what the choice of protocol and of pool size costs, whoever balances. Client
//! and server are the same code for every protocol (`peer/`); the congestion control is cubic everywhere, pinned per
//! route for TCP and set for QUIC. Each round-trip time has a lab of its own, and the three are visited side by side;
//! in a round every way meets the same losses, packet by packet. Where a larger pool then looks worse again, or did in earlier
//! runs, is visited anew ([`again`]).

mod again;
mod claims;
mod figures;
mod stage;
mod turn;

use std::{thread, time::Duration};

use anyhow::{Result, anyhow};

use super::{Context, Outcome, attempts::Attempts};
use crate::term::Progress;
use stage::{Stage, Visit, Way};

/// Milliseconds there and back.
const RTTS: [u64; 3] = [10, 50, 100];
/// Shares of packets lost, full and quick.
const LOSSES: (&[f64], &[f64]) = (&[0.0, 0.001, 0.01, 0.02, 0.05], &[0.0, 0.01, 0.05]);
const WAYS: (&[Way], &[Way]) = (
    &[
        Way::Http1,
        Way::Http2(1),
        Way::Http2(2),
        Way::Http2(5),
        Way::Http2(10),
        Way::Http2(25),
        Way::Http3,
    ],
    &[
        Way::Http1,
        Way::Http2(1),
        Way::Http2(5),
        Way::Http2(25),
        Way::Http3,
    ],
);
/// How long small requests begin in a visit, full and quick.
const VISIT: (Duration, Duration) = (Duration::from_millis(3500), Duration::from_millis(1700));
/// Rounds, full and quick: a round takes up to three minutes, and fewer than six have no interval that is sure.
const ROUNDS: (usize, usize) = (6, 1);

/// All that was seen.
#[derive(Default)]
pub(super) struct Visited {
    /// Every way, loss and round-trip time.
    grid: Vec<Cell>,
    /// What [`again`] visited.
    again: Vec<Cell>,
    attempts: Attempts,
}

/// All visits to one point.
pub(super) struct Cell {
    rtt: u64,
    loss: f64,
    way: Way,
    visits: Vec<Visit>,
}

impl Cell {
    /// In words.
    fn name(&self) -> String {
        let Self { rtt, loss, way, .. } = self;
        format!("{}, {rtt} ms, {} % lost", way.name(), loss * 100.0)
    }
}

pub(super) fn run(context: &Context) -> Result<Outcome> {
    let stages = RTTS
        .iter()
        .map(|rtt| Stage::set(*rtt))
        .collect::<Result<Vec<_>>>()?;
    let progress = Progress::start("a download beside small requests, losses and ways in turns");
    let visited = thread::scope(|scope| {
        let running: Vec<_> = stages
            .iter()
            .map(|stage| {
                let noted = (stage.rtt == RTTS[0]).then_some(&progress);
                scope.spawn(move || rounds(stage, context, noted))
            })
            .collect();
        running
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| Err(anyhow!("a visitor panicked")))
            })
            .collect::<Result<Vec<_>>>()
    })?;
    progress.done();
    let mut all = Visited::default();
    for theirs in visited {
        all.grid.extend(theirs.grid);
        all.again.extend(theirs.again);
        all.attempts.join(theirs.attempts);
    }
    Ok(figures::outcome(&all, context))
}

/// Visits every point of one stage, round after round, and then what is worth it once more.
fn rounds(stage: &Stage, context: &Context, progress: Option<&Progress>) -> Result<Visited> {
    let note = |what| {
        if let Some(progress) = progress {
            progress.note(what);
        }
    };
    let losses = context.choose(LOSSES.0, LOSSES.1);
    let ways = context.choose(WAYS.0, WAYS.1);
    let mut grid: Vec<Cell> = losses
        .iter()
        .flat_map(|loss| ways.iter().map(|way| (*loss, *way)))
        .map(|(loss, way)| Cell {
            rtt: stage.rtt,
            loss,
            way,
            visits: Vec::new(),
        })
        .collect();
    let rounds = context.choose(ROUNDS.0, ROUNDS.1);
    let count = grid.len();
    // The first visit of all would pay for what has never been used before.
    stage.visit(ways[0], 0.0, context.seed, Duration::from_millis(200))?;
    let mut attempts = Attempts::default();
    for round in 0..rounds {
        for turn in 0..count {
            note(format!(
                "round {} of {rounds}, {} of {count}",
                round + 1,
                turn + 1
            ));
            // Nobody always comes first, or always after the same one: 11 shares no divisor with 15 or 35.
            let cell = &mut grid[(turn * 11 + round * 13) % count];
            let seed = context.seed.wrapping_add(round as u64);
            let visit = stage.visit(cell.way, cell.loss, seed, context.choose(VISIT.0, VISIT.1));
            cell.visits.extend(attempts.keep(&cell.name(), visit)?);
        }
    }
    let again = again::visit(stage, context, &grid, &mut attempts, note)?;
    Ok(Visited {
        grid,
        again,
        attempts,
    })
}
