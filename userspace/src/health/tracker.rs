//! From results to a verdict: a backend is down after `fall` failures in a row, and up again after `rise` successes in a row.
//! The very first result decides alone: a daemon that starts must not send connections to what is dead, nor keep them from
//! what is not.

use super::Settings;

/// What is thought of a backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Health {
    /// Nothing yet: it is used.
    #[default]
    Unknown,
    /// It answers.
    Up,
    /// It does not.
    Down,
}

/// The results for one backend.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tracker {
    health: Health,
    /// Results in a row that speak against `health`.
    against: u32,
}

impl Tracker {
    /// What is thought of it.
    #[must_use]
    pub fn health(&self) -> Health {
        self.health
    }

    /// Takes a result in; true if it changed what is thought of the backend.
    pub fn take(&mut self, good: bool, settings: &Settings) -> bool {
        let (agrees, enough) = match self.health {
            Health::Unknown => (false, 1),
            Health::Up => (good, settings.fall),
            Health::Down => (!good, settings.rise),
        };
        if agrees {
            self.against = 0;
            return false;
        }
        self.against = self.against.saturating_add(1);
        if self.against < enough {
            return false;
        }
        self.health = if good { Health::Up } else { Health::Down };
        self.against = 0;
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn settings(fall: u32, rise: u32) -> Settings {
        Settings {
            fall,
            rise,
            ..Settings::default()
        }
    }

    #[test]
    fn the_first_result_decides_alone() {
        for (good, health) in [(true, Health::Up), (false, Health::Down)] {
            let mut tracker = Tracker::default();
            assert_eq!(tracker.health(), Health::Unknown);
            assert!(tracker.take(good, &settings(5, 5)));
            assert_eq!(tracker.health(), health);
        }
    }

    proptest! {
        /// The rule said again, over the whole history instead of a count.
        #[test]
        fn it_takes_so_many_results_in_a_row_to_change_a_verdict(
            results in prop::collection::vec(any::<bool>(), 1..200), fall in 1_u32..6, rise in 1_u32..6
        ) {
            let settings = settings(fall, rise);
            let mut tracker = Tracker::default();
            let mut verdict = results[0];
            let mut since = 0;
            for (position, good) in results.iter().enumerate() {
                let needed = if verdict { fall } else { rise } as usize;
                let contrary = results[since..=position]
                    .iter()
                    .rev()
                    .take_while(|good| **good != verdict)
                    .count();
                let changes = position == 0 || contrary >= needed;
                if changes {
                    verdict = *good;
                    since = position + 1;
                }
                prop_assert_eq!(tracker.take(*good, &settings), changes);
                let health = if verdict { Health::Up } else { Health::Down };
                prop_assert_eq!(tracker.health(), health);
            }
        }
    }
}
