//! Which backends are to be checked when, and what is known of each.
//!
//! Checks of a backend begin an interval apart, give or take a tenth ([`JITTER`]), so that those of many backends, or of many
//! balancers, do not stay together. One is never begun while the last one is under way, and of all only so many are under way at
//! once; where more are due, those begin first that have been due for longest.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::rngs::ChaCha8Rng;
use rand::{RngExt as _, SeedableRng as _};

use super::{Health, Settings, Tracker, Unreachable};

/// Which part of an interval checks are earlier or later than an interval apart, in thousandths.
const JITTER: u32 = 100;

/// A backend of a service, by the service's name.
pub type Key = (String, SocketAddr);

/// A check to be made now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Of this backend.
    pub key: Key,
    /// How long it may take.
    pub timeout: Duration,
    /// Tells it from a check of the same backend before that was removed meanwhile.
    number: u64,
}

/// What is known of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// What is thought of it.
    pub health: Health,
    /// Since when; of one that nothing is known of, since it is to be checked.
    pub since: Instant,
    /// Why the last check failed, if it did.
    pub failure: Option<Unreachable>,
}

/// What a result changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// What was thought.
    pub from: Health,
    /// What is thought now.
    pub to: Health,
}

/// The backends that are checked.
pub struct Checks {
    backends: BTreeMap<Key, Checked>,
    random: ChaCha8Rng,
    /// Checks begun.
    begun: u64,
    /// Of those, the ones that are not done yet; also of backends that were removed meanwhile.
    under_way: usize,
    /// See [`Checks::waited`].
    waited: u64,
    /// See [`Checks::version`].
    version: u64,
}

struct Checked {
    settings: Settings,
    tracker: Tracker,
    due: Instant,
    /// The number of the check that is under way.
    under_way: Option<u64>,
    /// Whether the one that is due was counted as waiting.
    waits: bool,
    since: Instant,
    failure: Option<Unreachable>,
}

impl Checks {
    /// Of no backends; `seed` is for when checks begin.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            backends: BTreeMap::new(),
            random: ChaCha8Rng::seed_from_u64(seed),
            begun: 0,
            under_way: 0,
            waited: 0,
            version: 0,
        }
    }

    /// Changes with every verdict that changes, and where one is no longer given: what follows from them is as it was as long as
    /// this is.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Makes these the backends that are checked. What is known of those that were checked before stays known.
    pub fn set(&mut self, wanted: impl IntoIterator<Item = (Key, Settings)>, now: Instant) {
        let mut before = std::mem::take(&mut self.backends);
        let of = |(key, settings): (Key, Settings)| {
            let mut checked = before
                .remove(&key)
                .unwrap_or_else(|| Checked::new(settings, now));
            if checked.settings != settings {
                checked.settings = settings;
                checked.due = checked.due.min(now + settings.interval);
            }
            (key, checked)
        };
        self.backends = wanted.into_iter().map(of).collect();
        if before.values().any(Checked::is_down) {
            self.version += 1;
        }
    }

    /// The checks that are due and for which there is room among `at_once`; they count as begun, and [`Checks::done`] must be told
    /// of each.
    pub fn due(&mut self, now: Instant, at_once: usize) -> Vec<Due> {
        let is_due = |checked: &Checked| checked.under_way.is_none() && checked.due <= now;
        // Of those due since the same moment, as all are at first, in order of their keys: it must not be up to how they are selected.
        let by_due = |(a_key, a): &(&Key, &mut Checked), (b_key, b): &(&Key, &mut Checked)| {
            (a.due, *a_key).cmp(&(b.due, *b_key))
        };
        let backends = self.backends.iter_mut();
        let mut ready: Vec<_> = backends.filter(|(_, checked)| is_due(checked)).collect();
        let room = at_once.saturating_sub(self.under_way).min(ready.len());
        if room < ready.len() {
            // Not sorted as a whole: that takes milliseconds with 65,536 backends, and is done again as soon as one check is over.
            ready.select_nth_unstable_by(room, by_due);
        }
        for (_, checked) in ready.split_off(room) {
            self.waited += u64::from(!checked.waits);
            checked.waits = true;
        }
        ready.sort_unstable_by(by_due);
        self.under_way += room;
        let random = &mut self.random;
        let begun = &mut self.begun;
        let begin = |(key, checked): (&Key, &mut Checked)| {
            let settings = checked.settings;
            let part = random.random_range(1000 - JITTER..=1000 + JITTER);
            checked.due = now + settings.interval * part / 1000;
            *begun += 1;
            checked.under_way = Some(*begun);
            checked.waits = false;
            Due {
                key: key.clone(),
                timeout: settings.timeout,
                number: *begun,
            }
        };
        ready.into_iter().map(begin).collect()
    }

    /// Checks that were due and had to wait until others were done.
    #[must_use]
    pub const fn waited(&self) -> u64 {
        self.waited
    }

    /// When the next check is due; of a backend whose last one is still under way, when that must be over. In the past where one
    /// waits.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.backends.values().map(|checked| checked.due).min()
    }

    /// Takes in what came of a check; tells what that changed.
    pub fn done(
        &mut self,
        check: &Due,
        result: Result<(), Unreachable>,
        now: Instant,
    ) -> Option<Change> {
        self.under_way = self.under_way.saturating_sub(1);
        // Not there: it was removed meanwhile, and perhaps added again.
        let checked = self.backends.get_mut(&check.key)?;
        checked
            .under_way
            .take_if(|number| *number == check.number)?;
        let from = checked.tracker.health();
        let says_nothing = matches!(result, Err(Unreachable::NotTried(_)));
        let good = result.is_ok();
        checked.failure = result.err();
        if says_nothing || !checked.tracker.take(good, &checked.settings) {
            return None;
        }
        checked.since = now;
        self.version += 1;
        Some(Change {
            from,
            to: checked.tracker.health(),
        })
    }

    /// Whether a backend does not answer.
    #[must_use]
    pub fn is_down(&self, service: &str, backend: SocketAddr) -> bool {
        // For a host that checks nothing: it is asked of every backend.
        if self.backends.is_empty() {
            return false;
        }
        let checked = self.backends.get(&(service.to_owned(), backend));
        checked.is_some_and(Checked::is_down)
    }

    /// Whether any does not.
    #[must_use]
    pub fn any_is_down(&self) -> bool {
        self.backends.values().any(Checked::is_down)
    }

    /// What is known of a backend; `None` if it is not checked.
    #[must_use]
    pub fn of(&self, service: &str, backend: SocketAddr) -> Option<Known> {
        let checked = self.backends.get(&(service.to_owned(), backend))?;
        Some(Known {
            health: checked.tracker.health(),
            since: checked.since,
            failure: checked.failure.clone(),
        })
    }
}

impl Checked {
    fn new(settings: Settings, now: Instant) -> Self {
        Self {
            settings,
            tracker: Tracker::default(),
            due: now,
            under_way: None,
            waits: false,
            since: now,
            failure: None,
        }
    }

    fn is_down(&self) -> bool {
        self.tracker.health() == Health::Down
    }
}

#[cfg(test)]
mod tests;
