//! Distributions as they stand on the command line: payload sizes, and how long a backend works on a request.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use rand::RngExt as _;
use rand_distr::{Distribution as _, Exp1, LogNormal};

use super::Malformed;
use super::random::Generator;

/// The largest payload: what the echo backend takes in one gRPC message.
pub const LARGEST: usize = 16 << 20;

/// How many bytes a payload has.
#[derive(Clone, Debug, PartialEq)]
pub enum Sizes {
    /// Always as many.
    Fixed(usize),
    /// Any number from the first to the second, each as likely.
    Uniform(usize, usize),
    /// Log-normal, as sizes of messages and files mostly are: half are smaller than the median; of their logarithms
    /// `sigma` is the standard deviation.
    LogNormal {
        /// The median.
        median: usize,
        /// Standard deviation of the natural logarithm.
        sigma: f64,
    },
    /// One of several, by weight.
    Choice(Vec<(usize, u32)>),
}

/// How long a backend works on a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceTime {
    /// Always as long.
    Fixed(Duration),
    /// Exponentially distributed around a mean.
    Exponential(Duration),
}

// === impl Sizes ===

impl Sizes {
    const ALLOWED: Malformed = Malformed(
        "BYTES, uniform:A..B, lognormal:MEDIAN,SIGMA or choice:BYTES*WEIGHT,…; at most 16 MiB each",
    );

    /// Draws one.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "sizes are far below 2^53, and a float is cut off at 0 and at the largest number"
    )]
    pub(crate) fn draw(&self, random: &mut Generator) -> usize {
        match self {
            Self::Fixed(size) => *size,
            Self::Uniform(least, most) => random.random_range(*least..=*most),
            Self::LogNormal { median, sigma } => {
                let drawn = LogNormal::new((*median as f64).ln(), *sigma)
                    .map_or(*median as f64, |sizes| sizes.sample(random));
                (drawn.round() as usize).min(LARGEST)
            }
            Self::Choice(choices) => {
                let total = choices.iter().map(|(_, weight)| u64::from(*weight)).sum();
                let mut ticket = random.random_range(0..total);
                for (size, weight) in choices {
                    match ticket.checked_sub(u64::from(*weight)) {
                        Some(rest) => ticket = rest,
                        None => return *size,
                    }
                }
                0
            }
        }
    }

    /// Those of answers as on the command line, where one size for all may be larger than any payload.
    pub fn of_answers(text: &str) -> Result<Self, Malformed> {
        text.parse().map(Self::Fixed).or_else(|_| text.parse())
    }

    /// Whether every payload is empty.
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Self::Fixed(0)
    }

    fn parse(text: &str) -> Option<Self> {
        let size = |text: &str| text.parse::<usize>().ok().filter(|bytes| *bytes <= LARGEST);
        let Some((kind, details)) = text.split_once(':') else {
            return size(text).map(Self::Fixed);
        };
        match kind {
            "uniform" => {
                let (least, most) = details.split_once("..")?;
                let (least, most) = (size(least)?, size(most)?);
                (least <= most).then_some(Self::Uniform(least, most))
            }
            "lognormal" => {
                let (median, sigma) = details.split_once(',')?;
                let median = size(median).filter(|median| *median > 0)?;
                let sigma = sigma.parse::<f64>().ok()?;
                (sigma.is_finite() && sigma >= 0.0).then_some(Self::LogNormal { median, sigma })
            }
            "choice" => {
                let choice = |text: &str| {
                    let (bytes, weight) = text.split_once('*')?;
                    Some((size(bytes)?, weight.parse::<u32>().ok()?))
                };
                let choices = details.split(',').map(choice).collect::<Option<Vec<_>>>()?;
                let any = choices.iter().any(|(_, weight)| *weight > 0);
                any.then_some(Self::Choice(choices))
            }
            _ => None,
        }
    }
}

impl FromStr for Sizes {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        Self::parse(text).ok_or(Self::ALLOWED)
    }
}

impl From<usize> for Sizes {
    fn from(size: usize) -> Self {
        Self::Fixed(size)
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(size) => write!(f, "{size}"),
            Self::Uniform(least, most) => write!(f, "uniform:{least}..{most}"),
            Self::LogNormal { median, sigma } => write!(f, "lognormal:{median},{sigma}"),
            Self::Choice(choices) => {
                let choices: Vec<String> = choices
                    .iter()
                    .map(|(size, weight)| format!("{size}*{weight}"))
                    .collect();
                write!(f, "choice:{}", choices.join(","))
            }
        }
    }
}

// === impl ServiceTime ===

impl ServiceTime {
    const ALLOWED: Malformed =
        Malformed("a duration such as 2ms, or exponential:MEAN; at most an hour");
    /// A request takes no longer, whatever was drawn.
    const LONGEST: Duration = Duration::from_secs(3600);

    /// Draws one.
    pub(crate) fn draw(self, random: &mut Generator) -> Duration {
        match self {
            Self::Fixed(time) => time,
            Self::Exponential(mean) => {
                let times: f64 = Exp1.sample(random);
                Duration::try_from_secs_f64(mean.as_secs_f64() * times)
                    .unwrap_or(Self::LONGEST)
                    .min(Self::LONGEST)
            }
        }
    }

    /// Whether it is always nothing.
    pub(crate) fn is_nothing(self) -> bool {
        matches!(self, Self::Fixed(time) | Self::Exponential(time) if time.is_zero())
    }
}

impl FromStr for ServiceTime {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        let duration = |text: &str| {
            humantime::parse_duration(text)
                .ok()
                .filter(|time| *time <= Self::LONGEST)
                .ok_or(Self::ALLOWED)
        };
        match text.strip_prefix("exponential:") {
            Some(mean) => duration(mean).map(Self::Exponential),
            None => duration(text).map(Self::Fixed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::random::{Purpose, generator};
    use super::*;
    use proptest::prelude::*;

    fn drawn(sizes: &Sizes, count: usize) -> Vec<usize> {
        let mut random = generator(1, Purpose::Payload, 0);
        (0..count).map(|_| sizes.draw(&mut random)).collect()
    }

    fn share(values: &[usize], of: impl Fn(usize) -> bool) -> f64 {
        values.iter().filter(|value| of(**value)).count() as f64 / values.len() as f64
    }

    #[test]
    fn sizes_read_as_they_print() {
        for text in [
            "0",
            "1024",
            "uniform:10..20",
            "lognormal:1000,1.5",
            "choice:100*9,10000*1",
        ] {
            assert_eq!(text.parse::<Sizes>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn sizes_that_cannot_be_are_refused() {
        for text in [
            "",
            "x",
            "-1",
            "16777217",
            "uniform:20..10",
            "uniform:1",
            "lognormal:0,1",
            "lognormal:5,-1",
            "lognormal:5,inf",
            "choice:",
            "choice:5",
            "choice:5*0",
            "normal:1,1",
        ] {
            assert!(text.parse::<Sizes>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_one_size_for_all_answers_may_be_larger_than_a_payload() {
        assert_eq!(Sizes::of_answers("1073741824"), Ok(Sizes::Fixed(1 << 30)));
        assert_eq!(Sizes::of_answers("uniform:1..2"), Ok(Sizes::Uniform(1, 2)));
        assert!(Sizes::of_answers("uniform:1..16777217").is_err());
    }

    #[test]
    fn half_of_log_normal_sizes_are_below_the_median_and_two_thirds_within_sigma() {
        let sizes = drawn(&"lognormal:1000,0.5".parse().unwrap(), 20_000);
        let below = share(&sizes, |size| size < 1000);
        assert!((below - 0.5).abs() < 0.02, "{below}");
        let (low, high) = (1000.0 * (-0.5_f64).exp(), 1000.0 * 0.5_f64.exp());
        let within = share(&sizes, |size| (low..high).contains(&(size as f64)));
        assert!((within - 0.683).abs() < 0.02, "{within}");
    }

    #[test]
    fn choices_come_by_weight() {
        let sizes = drawn(&"choice:100*9,10000*1,7*0".parse().unwrap(), 20_000);
        let large = share(&sizes, |size| size == 10_000);
        assert!((large - 0.1).abs() < 0.01, "{large}");
        assert!(!sizes.contains(&7));
    }

    #[test]
    fn exponential_service_times_have_their_mean() {
        let service: ServiceTime = "exponential:10ms".parse().unwrap();
        let mut random = generator(1, Purpose::Service, 0);
        let total: Duration = (0..20_000).map(|_| service.draw(&mut random)).sum();
        let mean = total.as_secs_f64() / 20_000.0;
        assert!((mean - 0.010).abs() < 0.0003, "{mean}");
        assert_eq!(
            "2ms".parse(),
            Ok(ServiceTime::Fixed(Duration::from_millis(2)))
        );
        assert!("exponential:never".parse::<ServiceTime>().is_err());
    }

    proptest! {
        #[test]
        fn no_size_is_larger_than_the_largest(median in 1..=LARGEST, sigma in 0.0..20.0, seed: u64) {
            let mut random = generator(seed, Purpose::Payload, 0);
            let sizes = Sizes::LogNormal { median, sigma };
            prop_assert!(sizes.draw(&mut random) <= LARGEST);
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,40}") {
            let _ = text.parse::<Sizes>();
            let _ = text.parse::<ServiceTime>();
        }
    }
}
