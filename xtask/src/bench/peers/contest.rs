//! Rivals in turns, so that whatever else happens on the machine happens to all.

use anyhow::{Result, bail};

use super::super::{
    Context, host,
    result::{Cell, Claim, Measured},
};
use super::{
    failure,
    quiet::{self, Counted},
};
use crate::term::Progress;

/// What the labels of evenkeel begin with.
pub(super) const OURS: &str = "evenkeel";

/// Somebody who takes part, and the figures of every round.
pub(super) struct Contestant<R> {
    /// What to call it in tables.
    pub(super) label: &'static str,
    /// What does the work, or why it does not.
    rival: Result<R, String>,
    rounds: Vec<Visit>,
}

/// What one visit showed.
struct Visit {
    figures: Vec<f64>,
    /// Share of the processors' time that was stolen meanwhile.
    stolen: f64,
}

impl<R> Contestant<R> {
    /// Somebody who is ready, or not.
    pub(super) fn new(label: &'static str, rival: Result<R, String>) -> Self {
        Self {
            label,
            rival,
            rounds: Vec::new(),
        }
    }

    /// Fails where evenkeel itself does not work: a rival may be missing, what is measured may not.
    pub(super) fn demand(&self) -> Result<()> {
        match &self.rival {
            Err(what) if self.label.starts_with(OURS) => bail!("{}: {what}", self.label),
            _ => Ok(()),
        }
    }

    /// One visit, if it still takes part.
    fn visit(&mut self, visit: &mut impl FnMut(&mut R) -> Result<Vec<f64>>) -> Result<()> {
        let Ok(rival) = &mut self.rival else {
            return Ok(());
        };
        match host::stolen(|| visit(rival)) {
            Ok((figures, stolen)) => self.rounds.push(Visit { figures, stolen }),
            Err(error) => {
                self.rival = Err(failure(&error));
                self.rounds.clear();
                self.demand()?;
            }
        }
        Ok(())
    }

    /// The figures at `index` of all visits that count.
    pub(super) fn samples(&self, index: usize) -> Vec<f64> {
        let stolen: Vec<f64> = self.rounds.iter().map(|visit| visit.stolen).collect();
        let counts = quiet::count(&stolen);
        let counting = self.rounds.iter().zip(counts).filter(|(_, counts)| *counts);
        counting
            .filter_map(|(visit, _)| visit.figures.get(index).copied())
            .collect()
    }

    /// What stands in the table: the figure at `index`, or why there is none.
    pub(super) fn cell(&self, index: usize) -> Cell {
        match &self.rival {
            Ok(_) => Cell::figure(&self.samples(index)),
            Err(what) => Cell::Missing { what: what.clone() },
        }
    }

    /// How the figures at `index` compare with `other`'s, round by round, where the worse of both visits counts; nothing where
    /// either is missing. On a busy host nothing may be left of a figure once what others spend is taken off: such a round tells
    /// nothing.
    pub(super) fn ratios(&self, other: &Self, index: usize) -> Vec<f64> {
        let pairs = || self.rounds.iter().zip(&other.rounds);
        let stolen: Vec<f64> = pairs().map(|(a, b)| a.stolen.max(b.stolen)).collect();
        let counting = pairs().zip(quiet::count(&stolen));
        let ratios = counting
            .filter(|(_, counts)| *counts)
            .filter_map(|((a, b), _)| Some(a.figures.get(index)? / b.figures.get(index)?));
        ratios.filter(|ratio| ratio.is_finite()).collect()
    }

    /// How many visits count by themselves.
    fn counted(&self) -> Counted {
        Counted {
            visits: self.samples(0).len(),
            of: self.rounds.len(),
        }
    }

    /// [`Self::ratios`] as a cell.
    pub(super) fn ratio_cell(&self, other: &Self, index: usize) -> Cell {
        match (&self.rival, &other.rival) {
            (Err(what), _) | (_, Err(what)) => Cell::Missing { what: what.clone() },
            _ => Cell::figure(&self.ratios(other, index)),
        }
    }

    /// That the figure at `index` is at most `goal` times `other`'s, round by round in the median.
    pub(super) fn claim(&self, other: &Self, index: usize, what: &str, goal: f64) -> Claim {
        let text = format!(
            "{}: {what} at most {goal:.1} x that of {}",
            self.label, other.label
        );
        match Measured::of(&self.ratios(other, index)) {
            Some(ratio) => Claim::new(
                text,
                format!(
                    "{:.2} x ({:.2} to {:.2})",
                    ratio.median, ratio.low, ratio.high
                ),
                ratio.median <= goal,
            ),
            None => Claim::new(text, "not measured: one of the two is missing", false),
        }
    }
}

/// `rounds` visits to everybody, who begins being another one each round. `visit` gives the figures of one visit; whom
/// it fails for is out, with the reason; evenkeel may not fail. Gives how many visits count ([`quiet`]).
pub(super) fn contest<R>(
    contestants: &mut [Contestant<R>],
    rounds: usize,
    what: &str,
    mut visit: impl FnMut(&mut R) -> Result<Vec<f64>>,
) -> Result<Counted> {
    contestants.iter().try_for_each(Contestant::demand)?;
    let progress = Progress::start(&format!("{what}, in turns"));
    let count = contestants.len().max(1);
    for round in 0..rounds {
        for turn in 0..count {
            let Some(contestant) = contestants.get_mut((round + turn) % count) else {
                continue;
            };
            progress.note(format!(
                "round {} of {rounds}, {}",
                round + 1,
                contestant.label
            ));
            contestant.visit(&mut visit)?;
        }
    }
    progress.done();
    Ok(contestants.iter().map(Contestant::counted).sum())
}

/// Rounds of a run of this kind: enough for an interval in a full run.
pub(super) fn rounds(context: &Context) -> usize {
    context.choose(9, 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn visit(rival: &mut f64) -> Result<Vec<f64>> {
        anyhow::ensure!(*rival > 0.0, "nothing came");
        Ok(vec![*rival, 2.0])
    }

    #[test]
    fn whoever_fails_is_out_with_the_reason_and_the_others_go_on() -> Result<()> {
        let mut contestants = [
            Contestant::new("a", Ok(1.0)),
            Contestant::new("b", Ok(0.0)),
            Contestant::new("c", Err("no c here".to_owned())),
        ];
        let counted = contest(&mut contestants, 3, "a test", visit)?;
        assert_eq!(counted, Counted { visits: 3, of: 3 });
        assert_eq!(contestants[0].samples(1), [2.0, 2.0, 2.0]);
        let what = |index: usize| match contestants[index].cell(0) {
            Cell::Missing { what } => what,
            other => panic!("{other:?}"),
        };
        assert_eq!(what(1), "does not work here: nothing came");
        assert_eq!(what(2), "no c here");
        assert!(!contestants[0].claim(&contestants[1], 0, "time", 1.0).holds);
        assert!(contestants[0].claim(&contestants[0], 0, "time", 1.0).holds);
        Ok(())
    }

    #[test]
    fn a_pair_counts_only_if_nothing_was_stolen_from_either() {
        let contestant = |label, stolen_from: usize| {
            let mut it = Contestant::new(label, Ok(()));
            it.rounds = (0..20)
                .map(|round| Visit {
                    figures: vec![f64::from(u8::from(round == stolen_from)) + 1.0],
                    stolen: if round == stolen_from { 0.5 } else { 0.0 },
                })
                .collect();
            it
        };
        let (a, b) = (contestant("a", 3), contestant("b", 4));
        assert_eq!(a.samples(0), [1.0; 19]);
        assert_eq!(a.ratios(&b, 0), [1.0; 18]);
        assert_eq!(a.counted(), Counted { visits: 19, of: 20 });
    }

    #[test]
    fn a_contest_without_evenkeel_is_none() {
        for ours in [Ok(0.0), Err("it does not load".to_owned())] {
            let mut contestants = [
                Contestant::new("a", Ok(1.0)),
                Contestant::new("evenkeel, TC", ours),
            ];
            let failed = contest(&mut contestants, 3, "a test", visit);
            assert!(failed.unwrap_err().to_string().contains("evenkeel, TC"));
        }
    }
}
