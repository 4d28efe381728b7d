//! Which backends are to be checked when, and what is known of each.
//!
//! Checks of a backend begin an interval apart, give or take a tenth ([`JITTER`]), so that those of many backends, or of many
//! balancers, do not stay together. One is never begun while the last one is under way.

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
    /// See [`Checks::version`].
    version: u64,
}

struct Checked {
    settings: Settings,
    tracker: Tracker,
    due: Instant,
    /// The number of the check that is under way.
    under_way: Option<u64>,
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

    /// The checks that are due, which count as begun.
    pub fn due(&mut self, now: Instant) -> Vec<Due> {
        let Self {
            backends,
            random,
            begun,
            ..
        } = self;
        let mut due = Vec::new();
        for (key, checked) in backends {
            if checked.under_way.is_some() || now < checked.due {
                continue;
            }
            let settings = checked.settings;
            let part = random.random_range(1000 - JITTER..=1000 + JITTER);
            checked.due = now + settings.interval * part / 1000;
            *begun += 1;
            checked.under_way = Some(*begun);
            due.push(Due {
                key: key.clone(),
                timeout: settings.timeout,
                number: *begun,
            });
        }
        due
    }

    /// When the next check is due; of a backend whose last one is still under way, when that must be over.
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
            since: now,
            failure: None,
        }
    }

    fn is_down(&self) -> bool {
        self.tracker.health() == Health::Down
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn settings() -> Settings {
        Settings {
            interval: INTERVAL,
            ..Settings::default()
        }
    }

    fn key(number: u8) -> Key {
        ("a".to_owned(), SocketAddr::from(([10, 0, 0, number], 80)))
    }

    fn of(numbers: std::ops::RangeInclusive<u8>, now: Instant) -> Checks {
        let mut checks = Checks::new(1);
        checks.set(numbers.map(|number| (key(number), settings())), now);
        checks
    }

    fn refused() -> Result<(), Unreachable> {
        Err(Unreachable::Refused(std::io::ErrorKind::ConnectionRefused))
    }

    /// Begins the checks that are due at `now`.
    fn begun(checks: &mut Checks, now: Instant) -> Vec<Due> {
        let due = checks.due(now);
        assert!(!due.is_empty());
        due
    }

    #[test]
    fn all_are_checked_at_once_and_then_an_interval_apart_but_not_together() {
        let start = Instant::now();
        let mut checks = of(1..=100, start);
        let first = begun(&mut checks, start);
        assert_eq!(first.len(), 100);
        for due in &first {
            checks.done(due, Ok(()), start);
        }
        let mut times = Vec::new();
        for percent in 0..=120_u32 {
            let due = checks.due(start + INTERVAL * percent / 100).len();
            times.extend(std::iter::repeat_n(percent, due));
        }
        assert_eq!(times.len(), 100);
        assert!(times[0] >= 90 && times[99] <= 111, "{times:?}");
        let together = times.chunk_by(|a, b| a == b).map(<[u32]>::len).max();
        assert!(together.is_some_and(|most| most < 30), "{times:?}");
    }

    #[test]
    fn a_check_that_is_under_way_is_not_begun_again() {
        let start = Instant::now();
        let mut checks = of(1..=1, start);
        let first = begun(&mut checks, start);
        let later = start + 10 * INTERVAL;
        assert!(checks.due(later).is_empty());
        assert!(checks.next() < Some(later), "when it must be over");
        checks.done(&first[0], Ok(()), later);
        assert_eq!(checks.due(later).len(), 1);
    }

    #[test]
    fn what_is_known_survives_other_backends_and_other_settings() {
        let start = Instant::now();
        let mut checks = of(1..=2, start);
        let first = begun(&mut checks, start);
        let change = checks.done(&first[0], refused(), start);
        assert_eq!(
            change,
            Some(Change {
                from: Health::Unknown,
                to: Health::Down
            })
        );
        let eager = Settings {
            interval: INTERVAL / 10,
            ..settings()
        };
        let later = start + Duration::from_millis(1);
        checks.set([1, 3].map(|number| (key(number), eager)), later);
        assert!(checks.is_down("a", key(1).1), "still");
        assert!(checks.of("a", key(2).1).is_none(), "no longer checked");
        let due: Vec<Key> = checks.due(later).into_iter().map(|due| due.key).collect();
        assert_eq!(due, [key(3)]);
        let next = checks.next();
        assert!(next <= Some(later + INTERVAL / 10), "the new interval");
    }

    #[test]
    fn a_check_of_a_backend_that_was_removed_says_nothing_of_one_that_was_added_since() {
        let start = Instant::now();
        let mut checks = of(1..=1, start);
        let old = begun(&mut checks, start);
        checks.set([], start);
        assert_eq!(checks.done(&old[0], refused(), start), None);
        checks.set([(key(1), settings())], start);
        let new = begun(&mut checks, start);
        assert_eq!(checks.done(&old[0], refused(), start), None);
        assert!(!checks.is_down("a", key(1).1));
        assert!(checks.done(&new[0], refused(), start).is_some());
    }

    #[test]
    fn why_the_last_check_failed_is_known_until_one_succeeds() {
        let start = Instant::now();
        let mut checks = of(1..=1, start);
        let mut tell = |result, round| {
            let now = start + 2 * INTERVAL * round;
            let due = begun(&mut checks, now);
            checks.done(&due[0], result, now);
            let known = checks.of("a", key(1).1).expect("checked");
            (known.health, known.failure)
        };
        assert_eq!(tell(Ok(()), 0), (Health::Up, None));
        assert_eq!(tell(refused(), 1), (Health::Up, refused().err()));
        assert_eq!(tell(Ok(()), 2), (Health::Up, None));
    }

    #[test]
    fn what_went_wrong_on_this_host_says_nothing_of_a_backend() {
        let start = Instant::now();
        let mut checks = of(1..=1, start);
        let why = Unreachable::NotTried("too many open files".to_owned());
        for round in 0..10 {
            let now = start + 2 * INTERVAL * round;
            let due = begun(&mut checks, now);
            assert_eq!(checks.done(&due[0], Err(why.clone()), now), None);
        }
        let known = checks.of("a", key(1).1).expect("checked");
        assert_eq!((known.health, known.failure), (Health::Unknown, Some(why)));
    }
}
