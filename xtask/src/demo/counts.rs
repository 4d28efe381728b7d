//! Three counts of the same requests, and whether they are equal. Pure.

use serde::Serialize;

/// Requests in total and by backend, as one party counted them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// In total; counted apart from the backends' figures where the party can.
    pub total: u64,
    /// By backend, in the order of the configuration.
    pub per_backend: Vec<u64>,
}

impl Tally {
    /// A tally whose total is the sum.
    #[must_use]
    pub fn summed(per_backend: Vec<u64>) -> Self {
        Self {
            total: per_backend.iter().sum(),
            per_backend,
        }
    }

    /// What was added since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            total: self.total.saturating_sub(before.total),
            per_backend: self
                .per_backend
                .iter()
                .zip(&before.per_backend)
                .map(|(now, then)| now.saturating_sub(*then))
                .collect(),
        }
    }

    /// Share of each backend, 0 to 1.
    #[must_use]
    pub fn shares(&self) -> Vec<f64> {
        let sum: u64 = self.per_backend.iter().sum();
        self.per_backend
            .iter()
            .map(|count| *count as f64 / sum.max(1) as f64)
            .collect()
    }

    /// max / mean: 1 is balanced, N is all on one of N. 0 if nothing was counted.
    #[must_use]
    pub fn hot_factor(&self) -> f64 {
        let most = self.shares().into_iter().fold(0.0, f64::max);
        most * self.per_backend.len() as f64
    }

    /// Jain's index: 1 is balanced, 1/N is all on one of N. 0 if nothing was counted.
    #[must_use]
    pub fn fairness(&self) -> f64 {
        let squares: f64 = self.shares().iter().map(|share| share * share).sum();
        if squares == 0.0 {
            0.0
        } else {
            1.0 / (self.per_backend.len() as f64 * squares)
        }
    }
}

/// What the three parties counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// `streams`, or `flows` where each request has a connection of its own.
    pub unit: &'static str,
    /// The data path, from outside the connections.
    pub kernel: Tally,
    /// The backends, of what they served.
    pub backends: Tally,
    /// The client, of complete and correct answers.
    pub client: Tally,
}

impl Comparison {
    /// Whether all three counted the same, in total and for every backend.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.kernel == self.backends && self.backends == self.client
    }

    /// In words, how they differ.
    #[must_use]
    pub fn objection(&self) -> Option<String> {
        (!self.agrees()).then(|| {
            let spell = |tally: &Tally| format!("{} {:?}", tally.total, tally.per_backend);
            format!(
                "the counts differ: kernel {}, backends {}, client {}",
                spell(&self.kernel),
                spell(&self.backends),
                spell(&self.client)
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_run_is_as_hot_as_there_are_backends() {
        let pinned = Tally::summed(vec![0, 9, 0, 0]);
        assert_eq!(pinned.hot_factor(), 4.0);
        assert_eq!(pinned.fairness(), 0.25);
    }

    #[test]
    fn a_level_run_has_factor_and_fairness_one() {
        let level = Tally::summed(vec![5, 5]);
        assert_eq!(level.hot_factor(), 1.0);
        assert_eq!(level.fairness(), 1.0);
        assert_eq!(Tally::summed(vec![0, 0]).fairness(), 0.0);
    }

    #[test]
    fn equal_totals_with_other_backends_are_an_objection() {
        let comparison = Comparison {
            unit: "streams",
            kernel: Tally::summed(vec![1, 2]),
            backends: Tally::summed(vec![1, 2]),
            client: Tally::summed(vec![2, 1]),
        };
        assert!(!comparison.agrees());
        assert!(
            comparison
                .objection()
                .is_some_and(|text| text.contains("client 3 [2, 1]"))
        );
    }
}
