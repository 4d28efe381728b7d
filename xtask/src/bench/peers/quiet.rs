//! Which visits count: those that the hypervisor left us the processors for.
//!
//! On a shared machine somebody else's work makes a visit two or ten times as long, and those that it meets are not the same for all
//! rivals. The hypervisor says how much of the processors' time it gave away (`steal` of proc_stat(5)), so a visit is judged by that
//! alone, never by its figures:
//!
//! 1. a visit counts in which at most [`STOLEN`] of all processors' time was given away; two that are compared count if both do;
//! 2. where fewer than half are so, or fewer than [`LEAST`], the ones with the least count until so many do;
//! 3. how many count is told.
//!
//! Where nothing is stolen, or the hypervisor does not say so, all count.

use std::{iter::Sum, ops::AddAssign};

/// Share of the time of all processors that may be stolen from a visit. The clock ticks every 10 ms, so that in the shortest visits, of
/// 0.1 s on two processors, this is less than one tick. h2load's rate against nghttpd (10 x 10, 240 visits of 0.13 s): 307,000 a second
/// without a tick, 267,000 with two or three, 225,000 with more.
const STOLEN: f64 = 0.02;
/// As few as that always count: fewer have no interval that is sure.
const LEAST: usize = 9;

/// How many visits count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) visits: usize,
    /// Of so many.
    pub(super) of: usize,
}

impl Counted {
    /// What a report says of it; `None` if all count.
    pub(super) fn note(self) -> Option<String> {
        let Self { visits, of } = self;
        (visits < of).then(|| {
            format!(
                "{visits} of {of} visits count, and of ratios the pairs of which both do. From the others the hypervisor had taken more than \
                 {:.0} % of the processors' time, which is all that they were judged by; half and {LEAST} count in any case, those with \
                 the least.",
                STOLEN * 100.0
            )
        })
    }
}

impl AddAssign for Counted {
    fn add_assign(&mut self, other: Self) {
        self.visits += other.visits;
        self.of += other.of;
    }
}

impl Sum for Counted {
    fn sum<I: Iterator<Item = Self>>(each: I) -> Self {
        let mut sum = Self::default();
        each.for_each(|it| sum += it);
        sum
    }
}

/// Whether each visit counts, by the share that was stolen from it.
pub(super) fn count(stolen: &[f64]) -> Vec<bool> {
    let least = stolen.len().div_ceil(2).max(LEAST);
    let mut sorted = stolen.to_vec();
    sorted.sort_by(f64::total_cmp);
    // Past the end where all are few.
    let bound = match sorted.get(least - 1) {
        Some(stolen) => stolen.max(STOLEN),
        None => f64::INFINITY,
    };
    stolen.iter().map(|stolen| *stolen <= bound).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counted(stolen: &[f64]) -> usize {
        count(stolen).into_iter().filter(|counts| *counts).count()
    }

    #[test]
    fn where_nothing_is_stolen_every_visit_counts_and_nothing_is_said() {
        assert_eq!(counted(&[0.0; 41]), 41);
        assert_eq!(Counted { visits: 41, of: 41 }.note(), None);
    }

    #[test]
    fn a_visit_that_much_was_stolen_from_does_not_count_and_that_is_told() {
        let mut stolen = [0.01; 20];
        stolen[7] = 0.3;
        assert_eq!(
            count(&stolen),
            std::array::from_fn::<_, 20, _>(|it| it != 7)
        );
        let note = Counted { visits: 19, of: 20 }.note().expect("a note");
        assert!(note.starts_with("19 of 20 visits count"), "{note}");
    }

    proptest! {
        #[test]
        fn at_least_half_and_nine_count_and_none_less_quiet_than_one_that_does_not(
            stolen in prop::collection::vec(0.0..1.0, 0..130),
        ) {
            let counts = count(&stolen);
            let least = stolen.len().div_ceil(2).max(LEAST).min(stolen.len());
            prop_assert!(counts.iter().filter(|counts| **counts).count() >= least);
            let of = |wanted: bool| {
                let all = stolen.iter().zip(&counts);
                all.filter(move |(_, counts)| **counts == wanted).map(|(stolen, _)| *stolen)
            };
            let worst = of(true).fold(0.0, f64::max);
            prop_assert!(of(false).all(|stolen| stolen > worst && stolen > STOLEN));
        }
    }
}
