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

/// Figures of a histogram, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
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
        })
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
    fn histograms_add_up() {
        let mut sum = Histogram::default();
        sum.add(&of([1_000_000].into_iter()));
        sum.add(&of([3_000_000, 5_000_000].into_iter()));
        assert_eq!(sum, of([1_000_000, 3_000_000, 5_000_000].into_iter()));
    }
}
