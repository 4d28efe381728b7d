//! Checks of backends, told the time.

use super::*;

const INTERVAL: Duration = Duration::from_secs(10);
/// More than any test has backends.
const ALL: usize = 1000;

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
    let due = checks.due(now, ALL);
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
        let due = checks.due(start + INTERVAL * percent / 100, ALL).len();
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
    assert!(checks.due(later, ALL).is_empty());
    assert!(checks.next() < Some(later), "when it must be over");
    checks.done(&first[0], Ok(()), later);
    assert_eq!(checks.due(later, ALL).len(), 1);
}

fn backends(due: &[Due]) -> Vec<Key> {
    due.iter().map(|due| due.key.clone()).collect()
}

#[test]
fn only_so_many_are_under_way_and_who_waits_is_counted_once() {
    let start = Instant::now();
    let mut checks = of(1..=5, start);
    let first = checks.due(start, 2);
    assert_eq!(backends(&first), [1, 2].map(key));
    for _ in 0..3 {
        assert_eq!(checks.due(start, 2), []);
    }
    assert_eq!(checks.waited(), 3);
    assert!(checks.next() <= Some(start), "to be asked again at once");
    checks.done(&first[1], Ok(()), start);
    assert_eq!(backends(&checks.due(start, 2)), [key(3)], "one place");
    assert_eq!(backends(&checks.due(start, 4)), [4, 5].map(key), "two more");
    assert_eq!(checks.waited(), 3);
}

#[test]
fn of_many_due_at_the_same_moment_the_first_by_their_keys_begin() {
    let start = Instant::now();
    let mut checks = of(1..=200, start);
    assert_eq!(backends(&checks.due(start, 3)), [1, 2, 3].map(key));
    assert_eq!(checks.waited(), 197);
}

#[test]
fn who_has_been_due_for_longest_is_first_so_that_all_get_their_turn() {
    let start = Instant::now();
    let mut checks = of(1..=5, start);
    let mut seen = Vec::new();
    for round in 0..5 {
        // All are due again by then.
        let now = start + 2 * INTERVAL * round;
        let due = checks.due(now, 1);
        checks.done(&due[0], Ok(()), now);
        seen.extend(backends(&due));
    }
    assert_eq!(seen, [1, 2, 3, 4, 5].map(key));
}

#[test]
fn a_check_of_a_backend_that_was_removed_keeps_its_place_until_it_is_done() {
    let start = Instant::now();
    let mut checks = of(1..=1, start);
    let old = begun(&mut checks, start);
    checks.set([(key(2), settings())], start);
    assert_eq!(checks.due(start, 1), []);
    checks.done(&old[0], Ok(()), start);
    assert_eq!(backends(&checks.due(start, 1)), [key(2)]);
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
    assert_eq!(backends(&checks.due(later, ALL)), [key(3)]);
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
