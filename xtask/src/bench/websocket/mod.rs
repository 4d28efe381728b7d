//! What becomes of long-lived sessions whose state lives in a backend's memory: with every connection chosen for by
//! itself, and with `hash = "source-ip"`, at L4; and with `hash = "cookie"` at L7, once evenkeel can do that.
//!
//! 200 WebSocket sessions, each from an address of its own, are held over four backends. Then, in this order:
//!
//! 1. every session loses its connection at once (a radio link, a changed route) and comes back;
//! 2. the first backend is drained, or killed, which evenkeel's checks find out; its sessions come back;
//! 3. the backend is there again, empty, and up; nobody moves by himself;
//! 4. every session loses its connection once more.
//!
//! A session finds its state if it comes back to the very server process that served it last. Every run has sessions
//! that no server knows, and the services differ in nothing but what decides the backend.

mod figures;
pub(super) mod holder;
mod stage;

use anyhow::Result;

use super::{Context, Outcome, attempts::Attempts};
use crate::term::Progress;
use stage::{Event, HASHES, Hash, Seen, Stage};

/// Rounds, full and quick.
const ROUNDS: (usize, usize) = (21, 3);

/// What each round showed of one hash and one event.
pub(super) struct Case {
    hash: Hash,
    event: Event,
    seen: Vec<Seen>,
    /// Visits that failed, most likely as not every session came back in time.
    failed: usize,
}

impl Case {
    /// In words.
    fn name(&self) -> String {
        format!("{}, {}", self.hash.describe(), self.event.name())
    }
}

pub(super) fn run(context: &Context) -> Result<Outcome> {
    let mut stage = Stage::set()?;
    let points: Vec<(usize, Event)> = (0..HASHES.len())
        .flat_map(|hash| Event::ALL.map(|event| (hash, event)))
        .collect();
    let mut cases: Vec<Case> = points
        .iter()
        .map(|(hash, event)| Case {
            hash: HASHES[*hash],
            event: *event,
            seen: Vec::new(),
            failed: 0,
        })
        .collect();
    let mut attempts = Attempts::default();
    let rounds = context.choose(ROUNDS.0, ROUNDS.1);
    let progress = Progress::start("hashes and events in turns");
    for round in 0..rounds {
        for turn in 0..points.len() {
            progress.note(format!("round {} of {rounds}", round + 1));
            // Nobody always comes first.
            let at = (round + turn) % points.len();
            let (hash, event) = points[at];
            let visit = stage.visit(hash, event);
            if visit.is_err() {
                stage.mend(hash)?;
            }
            let case = &mut cases[at];
            case.failed += usize::from(visit.is_err());
            case.seen
                .extend(attempts.keep(&case.name(), visit)?.flatten());
        }
    }
    progress.done();
    Ok(figures::outcome(&cases, &attempts))
}
