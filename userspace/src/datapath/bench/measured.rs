//! Kinds of packet that are being measured, and how they take turns.

use super::{Bench, Case, DatapathError, Kind, Program, katran, median};

/// Most packets of a turn.
const TURN: u64 = 5_000;

/// A case that is being measured.
pub(super) struct Measured {
    name: &'static str,
    about: &'static str,
    pub(super) program: Program,
    pub(super) kind: Kind,
    /// Mean time of a packet, of each round or turn.
    pub(super) times: Vec<f64>,
}

impl Measured {
    pub(super) fn new(
        name: &'static str,
        about: &'static str,
        program: Program,
        kind: Kind,
    ) -> Self {
        Self {
            name,
            about,
            program,
            kind,
            times: Vec::new(),
        }
    }

    /// A round of it.
    pub(super) fn measure(&mut self, bench: &mut Bench) -> Result<(), DatapathError> {
        self.times.push(bench.round(self.program, self.kind)?);
        Ok(())
    }

    pub(super) fn report(self, pass: f64) -> Case {
        let nanoseconds = median(&mut self.times.clone());
        Case {
            name: self.name,
            about: self.about,
            nanoseconds,
            above_pass: nanoseconds - pass,
            rounds: self.times,
        }
    }
}

/// A round of all `cases`. They take turns of at most [`TURN`] packets in it: what a shared host does for a second happens to all.
pub(super) fn round(bench: &mut Bench, cases: &mut [Measured]) -> Result<(), DatapathError> {
    let packets = u64::from(bench.packets);
    let turns = packets.div_ceil(TURN);
    let mut sums = vec![0.0; cases.len()];
    for turn in 0..turns {
        // They fit into `packets` together.
        let some = (packets * (turn + 1) / turns - packets * turn / turns) as u32;
        for (case, sum) in cases.iter().zip(&mut sums) {
            *sum += bench.some(some, case.program, case.kind)? * f64::from(some);
        }
    }
    for (case, sum) in cases.iter_mut().zip(sums) {
        case.times.push(sum / f64::from(bench.packets));
    }
    Ok(())
}

/// The cases that take turns.
pub(super) fn cases(with_katran: bool) -> Vec<Measured> {
    let mut cases = vec![
        Measured::new(
            "established",
            "gRPC request (HEADERS + DATA) of a known flow, streams counted",
            Program::Path,
            Kind::Established,
        ),
        Measured::new(
            "acknowledgement",
            "bare ACK of a known flow",
            Program::Path,
            Kind::Acknowledgement,
        ),
        Measured::new(
            "opening",
            "SYN: backend chosen, NAT port claimed, both halves recorded",
            Program::Path,
            Kind::Opening,
        ),
        Measured::new(
            "unrelated",
            "same port as the service, other address",
            Program::Path,
            Kind::Unrelated,
        ),
    ];
    if with_katran {
        cases.extend(katran::cases());
    }
    cases
}
