//! When requests are meant to start in an open loop.
//!
//! | schedule | requests per second |
//! | --- | --- |
//! | `const:R` | R |
//! | `step:R1@D1,R2@D2,…` | R1 for D1, then R2 for D2, … then the run is over; 0 is a pause |
//! | `ramp:R1..R2@D` | from R1 to R2, evenly over D, then the run is over |
//! | `poisson:R` | R on average, independent of one another, as from many users |
//!
//! All but the last are exact: request number i is meant to start when the rate, summed up over time, reaches i. What
//! was meant is never moved by what happens meanwhile; that is what makes the loop open.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rand_distr::{Distribution as _, Exp1};

use crate::load::Malformed;
use crate::load::random::{Generator, Purpose, generator};

/// Requests per second over time.
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    /// The same all the time.
    Const(f64),
    /// One rate after the other.
    Step(Vec<(f64, Duration)>),
    /// From one rate to another in so much time.
    Ramp(f64, f64, Duration),
    /// A Poisson process of this rate.
    Poisson(f64),
}

/// The times at which requests are meant to start, counted from the start of the schedule; they never go back.
#[derive(Debug)]
pub(super) struct Starts {
    pieces: Vec<Piece>,
    /// Position in `pieces`.
    at: usize,
    /// Start of that piece, and requests meant before it.
    began: f64,
    before: f64,
    /// Requests given out, or the next arrival of a Poisson process in the time of a process of rate 1.
    next: f64,
    random: Option<Generator>,
}

/// A time in which the rate goes evenly from one figure to another.
#[derive(Clone, Copy, Debug)]
struct Piece {
    from: f64,
    to: f64,
    /// In seconds; without end for the schedules that have none.
    lasts: f64,
}

// === impl Schedule ===

impl Schedule {
    const ALLOWED: Malformed = Malformed(
        "const:RATE, poisson:RATE, step:RATE@DURATION,… or ramp:RATE..RATE@DURATION; rates are requests per second",
    );

    /// When it is over by itself.
    #[must_use]
    pub fn end(&self) -> Option<Duration> {
        match self {
            Self::Const(_) | Self::Poisson(_) => None,
            Self::Step(steps) => Some(steps.iter().map(|(_, lasts)| *lasts).sum()),
            Self::Ramp(_, _, lasts) => Some(*lasts),
        }
    }

    /// Whether arrivals are independent of one another.
    #[must_use]
    pub fn is_random(&self) -> bool {
        matches!(self, Self::Poisson(_))
    }

    /// The intended starts, after `warm_up` at the rate with which the schedule begins.
    pub(super) fn starts(&self, warm_up: Duration, seed: u64) -> Starts {
        let constant = |rate| Piece {
            from: rate,
            to: rate,
            lasts: f64::INFINITY,
        };
        let mut pieces = match self {
            Self::Const(rate) | Self::Poisson(rate) => vec![constant(*rate)],
            Self::Ramp(from, to, lasts) => vec![Piece {
                from: *from,
                to: *to,
                lasts: lasts.as_secs_f64(),
            }],
            Self::Step(steps) => steps
                .iter()
                .map(|(rate, lasts)| Piece {
                    lasts: lasts.as_secs_f64(),
                    ..constant(*rate)
                })
                .collect(),
        };
        if let (Some(first), false) = (pieces.first().copied(), warm_up.is_zero()) {
            let warming = Piece {
                lasts: warm_up.as_secs_f64(),
                ..constant(first.from)
            };
            pieces.insert(0, warming);
        }
        let random = self
            .is_random()
            .then(|| generator(seed, Purpose::Schedule, 0));
        let mut starts = Starts {
            pieces,
            at: 0,
            began: 0.0,
            before: 0.0,
            next: 0.0,
            random,
        };
        starts.draw();
        starts
    }

    fn parse(text: &str) -> Option<Self> {
        let rate = |text: &str| {
            text.parse::<f64>()
                .ok()
                .filter(|rate| rate.is_finite() && *rate >= 0.0)
        };
        let some = |rate: &f64| *rate > 0.0;
        let duration = |text: &str| {
            humantime::parse_duration(text)
                .ok()
                .filter(|duration| !duration.is_zero())
        };
        let (kind, details) = text.split_once(':')?;
        match kind {
            "const" => rate(details).filter(some).map(Self::Const),
            "poisson" => rate(details).filter(some).map(Self::Poisson),
            "ramp" => {
                let (rates, lasts) = details.split_once('@')?;
                let (from, to) = rates.split_once("..")?;
                let (from, to) = (rate(from)?, rate(to)?);
                (from + to > 0.0).then_some(Self::Ramp(from, to, duration(lasts)?))
            }
            "step" => {
                let step = |text: &str| {
                    let (steady, lasts) = text.split_once('@')?;
                    Some((rate(steady)?, duration(lasts)?))
                };
                let steps = details.split(',').map(step).collect::<Option<Vec<_>>>()?;
                steps
                    .iter()
                    .any(|(rate, _)| *rate > 0.0)
                    .then_some(Self::Step(steps))
            }
            _ => None,
        }
    }
}

impl FromStr for Schedule {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        Self::parse(text).ok_or(Self::ALLOWED)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Const(rate) => write!(f, "const:{rate}"),
            Self::Poisson(rate) => write!(f, "poisson:{rate}"),
            Self::Ramp(from, to, lasts) => {
                write!(
                    f,
                    "ramp:{from}..{to}@{}",
                    humantime::format_duration(*lasts)
                )
            }
            Self::Step(steps) => {
                let steps: Vec<String> = steps
                    .iter()
                    .map(|(rate, lasts)| format!("{rate}@{}", humantime::format_duration(*lasts)))
                    .collect();
                write!(f, "step:{}", steps.join(","))
            }
        }
    }
}

// === impl Starts ===

impl Starts {
    /// Goes on to the next arrival: one request further, or as far as a Poisson process of rate 1 goes.
    fn draw(&mut self) {
        if let Some(random) = &mut self.random {
            let gap: f64 = Exp1.sample(random);
            self.next += gap;
        }
    }
}

impl Iterator for Starts {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        loop {
            let piece = self.pieces.get(self.at)?;
            let wanted = self.next - self.before;
            if let Some(within) = piece.reaches(wanted) {
                if self.random.is_some() {
                    self.draw();
                } else {
                    self.next += 1.0;
                }
                return Duration::try_from_secs_f64(self.began + within).ok();
            }
            self.before += piece.requests();
            self.began += piece.lasts;
            self.at += 1;
        }
    }
}

// === impl Piece ===

impl Piece {
    /// How many requests it holds.
    fn requests(&self) -> f64 {
        f64::midpoint(self.from, self.to) * self.lasts
    }

    /// After how many seconds so many requests were meant to start; `None` if not within this piece.
    fn reaches(&self, wanted: f64) -> Option<f64> {
        // Rounding must not give the first request of the next piece to this one.
        const SLACK: f64 = 1e-9;
        if self.lasts.is_finite() && wanted > self.requests() - SLACK {
            return None;
        }
        if wanted <= 0.0 {
            return (self.from > 0.0 || self.to > 0.0).then_some(0.0);
        }
        let steepness = if self.lasts.is_finite() {
            (self.to - self.from) / self.lasts
        } else {
            0.0
        };
        // The smaller root of `from t + steepness t^2 / 2 = wanted`, in the form that loses no digits when the rate
        // hardly changes.
        let root = (self.from * self.from + 2.0 * steepness * wanted)
            .max(0.0)
            .sqrt();
        Some(2.0 * wanted / (self.from + root))
    }
}

#[cfg(test)]
mod tests;
