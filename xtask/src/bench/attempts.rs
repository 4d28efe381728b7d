//! Visits that fail, in scenarios of many points: such a visit costs its own point a sample and no other point
//! anything. A point without a single sample says why in its cells, and a claim that does not hold names every point
//! that failed, so that nobody takes what is left for all there was.

use std::collections::BTreeMap;

use anyhow::{Result, bail};

use super::result::{Cell, Claim};

/// So many failures in a row are not the points' own: what they all share is gone, and each would wait in vain.
const MOST_IN_A_ROW: usize = 6;
/// Letters of a reason that a cell shows; the claim shows them, too.
const SHOWN: usize = 200;

/// How the visits of a scenario went.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    made: usize,
    in_a_row: usize,
    /// By point: how many visits failed, and why the first did.
    failed: BTreeMap<String, (usize, String)>,
}

impl Attempts {
    /// Keeps what a visit to `point` showed, or why it failed; fails once too many have in a row.
    pub(super) fn keep<T>(&mut self, point: &str, visit: Result<T>) -> Result<Option<T>> {
        self.made += 1;
        let error = match visit {
            Ok(seen) => {
                self.in_a_row = 0;
                return Ok(Some(seen));
            }
            Err(error) => error,
        };
        self.in_a_row += 1;
        if self.in_a_row >= MOST_IN_A_ROW {
            bail!(error.context(format!("{point}, after {MOST_IN_A_ROW} failures in a row")));
        }
        let why = format!("{error:#}");
        let line = why.lines().next().unwrap_or_default();
        let failed = self
            .failed
            .entry(point.to_owned())
            .or_insert_with(|| (0, line.chars().take(SHOWN).collect()));
        failed.0 += 1;
        Ok(None)
    }

    /// Adds what was seen elsewhere at the same time.
    pub(super) fn join(&mut self, other: Self) {
        self.made += other.made;
        self.failed.extend(other.failed);
    }

    /// What stands in a cell of `point`: the figure, or why there is none.
    pub(super) fn cell(&self, point: &str, samples: &[f64]) -> Cell {
        match (samples, self.failed.get(point)) {
            ([], Some((_, why))) => Cell::Missing {
                what: format!("failed: {why}"),
            },
            _ => Cell::figure(samples),
        }
    }

    /// That no visit failed; only where one did.
    pub(super) fn claim(&self) -> Option<Claim> {
        if self.failed.is_empty() {
            return None;
        }
        let count: usize = self.failed.values().map(|(count, _)| count).sum();
        let each = self.failed.iter();
        let each: Vec<String> = each
            .map(|(point, (count, why))| format!("{point} ({count} x): {why}"))
            .collect();
        Some(Claim::new(
            "Every visit could be measured",
            format!("{count} of {} failed: {}", self.made, each.join("; ")),
            false,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn a_visit_that_fails_is_named_and_the_others_stay() -> Result<()> {
        let mut attempts = Attempts::default();
        assert_eq!(attempts.keep("a", Ok(1))?, Some(1));
        assert!(attempts.claim().is_none());
        for _ in 0..2 {
            let failed: Result<u8> = Err(anyhow!("refused\nmore").context("of 5"));
            assert_eq!(attempts.keep("b", failed)?, None);
        }
        let what = |point: &str, samples: &[f64]| match attempts.cell(point, samples) {
            Cell::Missing { what } => Some(what),
            _ => None,
        };
        assert_eq!(what("b", &[]).as_deref(), Some("failed: of 5: refused"));
        assert_eq!(what("b", &[1.0]), None, "one sample is better than none");
        assert_eq!(what("a", &[]), None);
        let claim = attempts.claim().expect("two failed");
        assert_eq!(claim.seen, "2 of 3 failed: b (2 x): of 5: refused");
        assert!(!claim.holds);
        Ok(())
    }

    #[test]
    fn when_everything_fails_nobody_waits_for_the_rest() {
        let mut attempts = Attempts::default();
        let fails = |attempts: &mut Attempts, point: usize| {
            attempts.keep::<()>(&point.to_string(), Err(anyhow!("gone")))
        };
        for point in 1..MOST_IN_A_ROW {
            assert!(matches!(fails(&mut attempts, point), Ok(None)));
        }
        let error = fails(&mut attempts, MOST_IN_A_ROW).unwrap_err();
        assert!(format!("{error:#}").contains("in a row: gone"), "{error:#}");
    }
}
