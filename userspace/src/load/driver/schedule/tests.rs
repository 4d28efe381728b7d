//! Exact starts.

use super::*;
use proptest::prelude::*;

fn schedule(text: &str) -> Schedule {
    text.parse().unwrap()
}

fn millis(text: &str, warm_up: u64) -> Vec<u128> {
    schedule(text)
        .starts(Duration::from_millis(warm_up), 1)
        .take(1000)
        .map(|start| (start + Duration::from_nanos(500)).as_millis())
        .collect()
}

#[test]
fn schedules_read_as_they_print() {
    for text in [
        "const:100",
        "poisson:2.5",
        "ramp:0..1000@1m",
        "step:100@5s,0@1s,200@500ms",
    ] {
        assert_eq!(schedule(text).to_string(), text);
    }
}

#[test]
fn schedules_that_send_nothing_are_refused() {
    for text in [
        "",
        "100",
        "const:",
        "const:0",
        "const:-1",
        "const:inf",
        "const:NaN",
        "poisson:0",
        "ramp:0..0@1s",
        "ramp:1..2",
        "ramp:1..2@0s",
        "step:0@1s",
        "step:5@1s,",
        "step:5",
        "sine:5",
    ] {
        assert!(text.parse::<Schedule>().is_err(), "{text}");
    }
}

#[test]
fn a_constant_rate_starts_requests_at_even_distances() {
    assert_eq!(millis("const:1000", 0)[..5], [0, 1, 2, 3, 4]);
    let far = schedule("const:3").starts(Duration::ZERO, 1).nth(3_000_000);
    assert_eq!(far, Some(Duration::from_secs(1_000_000)), "no drift");
}

#[test]
fn steps_follow_one_another_without_a_gap_and_end() {
    assert_eq!(
        millis("step:10@300ms,0@1s,5@400ms", 0),
        [0, 100, 200, 1300, 1500]
    );
    assert_eq!(
        schedule("step:10@300ms,5@400ms").end(),
        Some(Duration::from_millis(700))
    );
}

#[test]
fn a_ramp_sends_what_its_rate_sums_up_to() {
    // From 0 to 100 per second in a second: n requests after sqrt(n / 50) seconds, 50 in all.
    let starts: Vec<Duration> = schedule("ramp:0..100@1s")
        .starts(Duration::ZERO, 1)
        .collect();
    assert_eq!(starts.len(), 50);
    for (number, start) in starts.iter().enumerate() {
        let exact = (number as f64 / 50.0).sqrt();
        assert!(
            (start.as_secs_f64() - exact).abs() < 1e-8,
            "{number}: {start:?}"
        );
    }
    // Down to nothing it is the same from behind.
    assert_eq!(
        schedule("ramp:100..0@1s").starts(Duration::ZERO, 1).count(),
        50
    );
}

#[test]
fn the_warm_up_comes_before_the_schedule_at_its_first_rate() {
    assert_eq!(
        millis("step:10@200ms,20@100ms", 300),
        [0, 100, 200, 300, 400, 500, 550]
    );
}

#[test]
fn poisson_arrivals_have_the_rate_and_the_spread_of_a_poisson_process() {
    let starts: Vec<f64> = schedule("poisson:1000")
        .starts(Duration::ZERO, 5)
        .take(50_000)
        .map(|start| start.as_secs_f64())
        .collect();
    assert!((starts[49_999] - 50.0).abs() < 1.0, "{}", starts[49_999]);
    let gaps: Vec<f64> = starts.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
    let variation = variance.sqrt() / mean;
    assert!((variation - 1.0).abs() < 0.03, "{variation}");
}

#[test]
fn the_seed_decides_a_poisson_schedule() {
    let starts = |seed| schedule("poisson:10").starts(Duration::ZERO, seed).nth(100);
    assert_eq!(starts(1), starts(1));
    assert_ne!(starts(1), starts(2));
}

proptest! {
    #[test]
    fn starts_never_go_back_and_end_with_the_schedule(
        steps in prop::collection::vec((0_u32..2000, 1_u64..500), 1..6), seed: u64
    ) {
        prop_assume!(steps.iter().any(|(rate, _)| *rate > 0));
        let steps = steps.iter().map(|(rate, ms)| (f64::from(*rate), Duration::from_millis(*ms))).collect();
        let schedule = Schedule::Step(steps);
        let end = schedule.end().unwrap();
        let mut last = Duration::ZERO;
        for start in schedule.starts(Duration::ZERO, seed) {
            prop_assert!(start >= last && start < end + Duration::from_micros(1), "{:?} after {:?}", start, last);
            last = start;
        }
    }

    #[test]
    fn a_ramp_holds_as_many_requests_as_its_mean_rate(from in 0_u32..1000, to in 0_u32..1000, ms in 1_u64..3000) {
        prop_assume!(from + to > 0);
        let lasts = Duration::from_millis(ms);
        let count = Schedule::Ramp(f64::from(from), f64::from(to), lasts).starts(Duration::ZERO, 1).count();
        let exact = f64::from(from + to) / 2.0 * lasts.as_secs_f64();
        prop_assert!((count as f64 - exact).abs() <= 1.0, "{} of {}", count, exact);
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,40}") {
        let _ = text.parse::<Schedule>();
    }
}
