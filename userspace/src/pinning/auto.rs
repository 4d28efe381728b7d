//! Mode `auto`: when flows no longer do and streams must be balanced, and when they will do again.
//!
//! To `l7` when, in [`ROUNDS_UP`] intervals in a row, enough streams flowed to say anything, connections carried
//! several of them each (or balancing streams would change nothing), and the hot factor was over the threshold.
//!
//! Back to `l4` when, in [`ROUNDS_DOWN`] intervals in a row, enough connections came and each carried about one
//! stream, or was no HTTP/2 at all. The two conditions exclude each other and the way back is longer than the way
//! there: what lies between them keeps the mode it has. That is the hysteresis.

use std::fmt;

/// Intervals in a row that must agree before streams are balanced.
pub const ROUNDS_UP: u32 = 2;
/// Intervals in a row that must agree before flows are balanced again.
pub const ROUNDS_DOWN: u32 = 6;
/// Streams in an interval, for each backend, below which chance alone makes a hot factor: 20 streams at random vary by
/// 22 %, so that the hottest of ten backends is about 1.4.
const STREAMS_PER_BACKEND: u64 = 20;
/// A connection that carries more streams than this in its life is multiplexed.
const ABOUT_ONE: f64 = 1.5;

/// What one interval showed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Interval {
    /// Whether streams are balanced now.
    pub l7: bool,
    /// Streams opened.
    pub streams: u64,
    /// Flows opened.
    pub flows_opened: u64,
    /// Backends that take new flows.
    pub backends: usize,
    /// Hot factor of the interval's streams.
    pub hot_factor: Option<f64>,
}

/// Why the mode should change.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reason {
    /// Streams should be balanced: they land on one backend more than on others.
    Pinned {
        /// Hot factor of the last interval.
        hot_factor: f64,
        /// Streams of the last interval.
        streams: u64,
    },
    /// Flows will do: connections carry about one stream each.
    NotMultiplexed {
        /// Streams of the last interval.
        streams: u64,
        /// Flows opened in the last interval.
        flows_opened: u64,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pinned {
                hot_factor,
                streams,
            } => write!(
                f,
                "{streams} streams landed with a hot factor of {hot_factor:.2}: balancing streams from now on"
            ),
            Self::NotMultiplexed {
                streams,
                flows_opened,
            } => write!(
                f,
                "{flows_opened} connections carried {streams} streams: balancing flows will do from now on"
            ),
        }
    }
}

/// Decides for one service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Controller {
    agreeing: u32,
}

impl Controller {
    /// Takes one interval in; returns why to change the mode, if it should change.
    pub fn decide(
        &mut self,
        interval: &Interval,
        threshold: f64,
        min_streams: u64,
    ) -> Option<Reason> {
        let (reason, rounds) = if interval.l7 {
            (not_multiplexed(interval, min_streams), ROUNDS_DOWN)
        } else {
            (pinned(interval, threshold, min_streams), ROUNDS_UP)
        };
        if reason.is_none() {
            self.agreeing = 0;
            return None;
        }
        self.agreeing += 1;
        if self.agreeing < rounds {
            return None;
        }
        self.agreeing = 0;
        reason
    }
}

fn pinned(interval: &Interval, threshold: f64, min_streams: u64) -> Option<Reason> {
    let backends = u64::try_from(interval.backends).unwrap_or(u64::MAX);
    let enough = min_streams.max(backends.saturating_mul(STREAMS_PER_BACKEND));
    let hot_factor = interval.hot_factor?;
    let multiplexed = interval.streams as f64 > ABOUT_ONE * interval.flows_opened as f64;
    (interval.streams >= enough && multiplexed && hot_factor > threshold).then_some(
        Reason::Pinned {
            hot_factor,
            streams: interval.streams,
        },
    )
}

fn not_multiplexed(interval: &Interval, min_flows: u64) -> Option<Reason> {
    let about_one = interval.streams as f64 <= ABOUT_ONE * interval.flows_opened as f64;
    (interval.flows_opened >= min_flows && about_one).then_some(Reason::NotMultiplexed {
        streams: interval.streams,
        flows_opened: interval.flows_opened,
    })
}

#[cfg(test)]
mod tests {
    use super::{Controller, Interval, ROUNDS_DOWN, ROUNDS_UP, Reason};

    const PINNED: Interval = Interval {
        l7: false,
        streams: 1000,
        flows_opened: 1,
        backends: 4,
        hot_factor: Some(4.0),
    };
    const SINGLE: Interval = Interval {
        l7: true,
        streams: 1000,
        flows_opened: 1000,
        backends: 4,
        hot_factor: Some(1.0),
    };

    fn rounds_until_change(interval: &Interval) -> Option<u32> {
        let mut controller = Controller::default();
        (1..=20).find(|_| controller.decide(interval, 1.5, 100).is_some())
    }

    #[test]
    fn pinned_streams_are_balanced_after_two_intervals() {
        assert_eq!(rounds_until_change(&PINNED), Some(ROUNDS_UP));
    }

    #[test]
    fn connections_of_one_stream_go_back_after_six_intervals() {
        assert_eq!(rounds_until_change(&SINGLE), Some(ROUNDS_DOWN));
        let http1 = Interval {
            streams: 0,
            ..SINGLE
        };
        assert_eq!(rounds_until_change(&http1), Some(ROUNDS_DOWN));
    }

    #[test]
    fn what_lies_between_keeps_its_mode() {
        for (why, interval) in [
            (
                "few streams",
                Interval {
                    streams: 79,
                    ..PINNED
                },
            ),
            (
                "level",
                Interval {
                    hot_factor: Some(1.4),
                    ..PINNED
                },
            ),
            (
                "nothing to gain",
                Interval {
                    flows_opened: 1000,
                    ..PINNED
                },
            ),
            (
                "silence",
                Interval {
                    streams: 0,
                    hot_factor: None,
                    ..PINNED
                },
            ),
            (
                "multiplexed",
                Interval {
                    flows_opened: 100,
                    ..SINGLE
                },
            ),
            (
                "idle",
                Interval {
                    streams: 0,
                    flows_opened: 0,
                    ..SINGLE
                },
            ),
        ] {
            assert_eq!(rounds_until_change(&interval), None, "{why}");
        }
    }

    #[test]
    fn one_interval_that_disagrees_starts_the_count_again() {
        let mut controller = Controller::default();
        let level = Interval {
            hot_factor: Some(1.0),
            ..PINNED
        };
        for interval in [PINNED, level, PINNED, level, PINNED] {
            assert_eq!(controller.decide(&interval, 1.5, 100), None);
        }
        assert!(matches!(
            controller.decide(&PINNED, 1.5, 100),
            Some(Reason::Pinned { .. })
        ));
    }
}
