//! Latencies, counted in the kernel in log-linear buckets.

use evenkeel_ebpf::watch::{BUCKETS, bucket_start};
use serde::{Deserialize, Serialize};

/// How often each bucket was met, and the sum of what was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    /// By bucket; as many as [`BUCKETS`], or none at all.
    pub buckets: Vec<u64>,
    /// Nanoseconds in all.
    pub nanoseconds: u64,
}

/// A range of latencies, and how many were in it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Bucket {
    /// The least latency in it, in microseconds.
    pub from_us: f64,
    /// The least one above it.
    pub below_us: f64,
    /// How many were in it.
    pub count: u64,
}

/// Figures of a histogram, in microseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Streams that were timed.
    pub count: u64,
    /// Exact.
    pub mean_us: f64,
    /// Half of them took no longer. Percentiles are right to 1/16.
    pub p50_us: f64,
    /// 9 in 10 took no longer.
    pub p90_us: f64,
    /// 99 in 100 took no longer.
    pub p99_us: f64,
    /// 999 in 1,000 took no longer.
    pub p999_us: f64,
    /// All of them: the buckets, a sixteenth wide, in which there are any, from the fastest on.
    pub histogram: Vec<Bucket>,
}

impl Latency {
    /// The histogram by powers of two of the finest bucket (1.024 us), from the first one in which there are any to the last,
    /// with those in between in which there are none.
    #[must_use]
    pub fn octaves(&self) -> Vec<Bucket> {
        let unit = bucket_start(1) as f64 / 1e3;
        // The first octave is what is below the finest bucket's end.
        let octave = |bucket: &Bucket| {
            let units = (bucket.from_us / unit).round() as u64;
            units.checked_ilog2().map_or(0, |power| power + 1)
        };
        let end = |octave: u32| (1_u64 << octave.min(63)) as f64 * unit;
        let (Some(first), Some(last)) = (self.histogram.first(), self.histogram.last()) else {
            return Vec::new();
        };
        (octave(first)..=octave(last))
            .map(|number| Bucket {
                from_us: number.checked_sub(1).map_or(0.0, end),
                below_us: end(number),
                count: self
                    .histogram
                    .iter()
                    .filter(|bucket| octave(bucket) == number)
                    .map(|bucket| bucket.count)
                    .sum(),
            })
            .collect()
    }
}

impl Histogram {
    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// Adds another one.
    pub fn add(&mut self, other: &Self) {
        if self.buckets.len() < other.buckets.len() {
            self.buckets.resize(other.buckets.len(), 0);
        }
        for (mine, others) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += others;
        }
        self.nanoseconds = self.nanoseconds.saturating_add(other.nanoseconds);
    }

    /// The latency that the given share of streams did not exceed, in microseconds: the end of the bucket in which it
    /// lies, so that it is never too low. `None` of nothing.
    #[must_use]
    pub fn percentile(&self, share: f64) -> Option<f64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let wanted = ((count as f64 * share).ceil() as u64).clamp(1, count);
        let mut seen = 0;
        for (index, met) in (0..BUCKETS).zip(&self.buckets) {
            seen += met;
            if seen >= wanted {
                return Some(bucket_start(index + 1) as f64 / 1e3);
            }
        }
        None
    }

    /// The figures; `None` of nothing.
    #[must_use]
    pub fn latency(&self) -> Option<Latency> {
        let count = self.count();
        Some(Latency {
            count,
            mean_us: self.nanoseconds as f64 / 1e3 / count.max(1) as f64,
            p50_us: self.percentile(0.5)?,
            p90_us: self.percentile(0.9)?,
            p99_us: self.percentile(0.99)?,
            p999_us: self.percentile(0.999)?,
            histogram: self.met(),
        })
    }

    /// The buckets in which there are any.
    fn met(&self) -> Vec<Bucket> {
        let start = |index| bucket_start(index) as f64 / 1e3;
        (0..BUCKETS)
            .zip(&self.buckets)
            .filter(|(_, met)| **met > 0)
            .map(|(index, met)| Bucket {
                from_us: start(index),
                below_us: start(index + 1),
                count: *met,
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::Histogram;
    use evenkeel_ebpf::watch::{BUCKETS, bucket};

    fn of(latencies: impl Iterator<Item = u64>) -> Histogram {
        let mut histogram = Histogram {
            buckets: vec![0; BUCKETS as usize],
            nanoseconds: 0,
        };
        for nanoseconds in latencies {
            histogram.buckets[bucket(nanoseconds) as usize] += 1;
            histogram.nanoseconds += nanoseconds;
        }
        histogram
    }

    #[test]
    fn percentiles_are_at_most_a_sixteenth_too_high_and_never_too_low() {
        let histogram = of((1..=10_000).map(|n| n * 10_000));
        for (share, exact) in [(0.5, 50_000.0), (0.9, 90_000.0), (0.99, 99_000.0)] {
            let found = histogram.percentile(share).unwrap();
            assert!(
                found >= exact && found <= exact * 17.0 / 16.0,
                "{share}: {found}"
            );
        }
        let latency = histogram.latency().unwrap();
        assert!((latency.mean_us - 50_005.0).abs() < 1.0, "{latency:?}");
    }

    #[test]
    fn nothing_counted_has_no_latency() {
        assert_eq!(Histogram::default().latency(), None);
        assert_eq!(of(std::iter::empty()).latency(), None);
    }

    #[test]
    fn every_latency_is_in_the_bucket_that_is_told_and_in_one_octave() {
        let nanoseconds: Vec<u64> = (0..40)
            .map(|power| 3_u64.pow(power / 2) << (power % 2))
            .collect();
        let latency = of(nanoseconds.iter().copied()).latency().unwrap();
        for buckets in [latency.histogram.clone(), latency.octaves()] {
            let mut left = nanoseconds.clone();
            for bucket in &buckets {
                let (from, below) = (bucket.from_us * 1e3, bucket.below_us * 1e3);
                let before = left.len();
                left.retain(|ns| (*ns as f64) < from || *ns as f64 >= below);
                assert_eq!((before - left.len()) as u64, bucket.count, "{bucket:?}");
            }
            assert_eq!(left, [0_u64; 0], "in none");
        }
        let octaves = latency.octaves();
        let mut pairs = octaves.windows(2);
        assert!(
            pairs.all(|pair| pair[0].below_us == pair[1].from_us),
            "{octaves:?}"
        );
        assert_eq!((octaves[0].from_us, octaves[0].below_us), (0.0, 1.024));
        assert_eq!((octaves[1].from_us, octaves[1].below_us), (1.024, 2.048));
    }

    #[test]
    fn histograms_add_up() {
        let mut sum = Histogram::default();
        sum.add(&of([1_000_000].into_iter()));
        sum.add(&of([3_000_000, 5_000_000].into_iter()));
        assert_eq!(sum, of([1_000_000, 3_000_000, 5_000_000].into_iter()));
    }
}
