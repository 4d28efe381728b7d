//! The client of every visit: h2load, which knows nothing of evenkeel.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};

use crate::{lab::Namespace, shell};

/// One run of h2load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Connections.
    pub(super) connections: u32,
    /// Streams at a time on each.
    pub(super) streams: u32,
    /// Requests in all.
    pub(super) requests: u32,
}

/// What a run showed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Requests a second.
    pub(super) rate: f64,
    /// The time that half of the requests took at most, in microseconds.
    pub(super) p50: f64,
    /// The time that 99 of 100 requests took at most, in microseconds.
    pub(super) p99: f64,
}

impl Load {
    /// `requests` over so many connections with so many streams at a time on each.
    pub(super) fn new((connections, streams): (u32, u32), requests: u32) -> Self {
        Self {
            connections,
            streams,
            requests,
        }
    }

    /// Runs it in `namespace`; fails unless every request succeeded.
    pub(super) fn run(&self, namespace: &Namespace, url: &str) -> Result<f64> {
        self.h2load(namespace, url, None)
    }

    /// Runs it with every request's time written to `log`, which costs the client something.
    pub(super) fn timed(&self, namespace: &Namespace, url: &str, log: &Path) -> Result<Seen> {
        if log.exists() {
            fs::remove_file(log)?;
        }
        let rate = self.h2load(namespace, url, Some(log))?;
        let times = times(&fs::read_to_string(log)?);
        Ok(Seen {
            rate,
            p50: quantile(&times, 0.5),
            p99: quantile(&times, 0.99),
        })
    }

    fn h2load(&self, namespace: &Namespace, url: &str, log: Option<&Path>) -> Result<f64> {
        let Self {
            connections,
            streams,
            requests,
        } = self;
        // A descriptor for each connection; a shell's 1,024 would not do. Only the soft limit is ours to raise.
        let mut h2load = namespace.command("prlimit");
        h2load.arg(format!("--nofile={}:", connections + 1000));
        h2load.arg("h2load").args([
            format!("--clients={connections}"),
            format!("--max-concurrent-streams={streams}"),
            format!("--requests={requests}"),
        ]);
        if let Some(log) = log {
            h2load.arg(format!("--log-file={}", log.display()));
        }
        let printed = shell::capture(h2load.arg(url))?;
        ensure!(
            printed.contains(&format!(" {requests} succeeded")),
            "not all of {requests} requests succeeded:\n{printed}"
        );
        rate_of(&printed).with_context(|| format!("h2load printed:\n{printed}"))
    }
}

/// h2load prints `finished in 2.05s, 48828.13 req/s, 2.62MB/s`.
fn rate_of(printed: &str) -> Option<f64> {
    let line = printed
        .lines()
        .find(|line| line.starts_with("finished in"))?;
    line.split(", ").nth(1)?.split(' ').next()?.parse().ok()
}

/// h2load logs a line for each request: when it began, its status, and how many microseconds it took. Sorted.
fn times(log: &str) -> Vec<f64> {
    let mut times: Vec<f64> = log
        .lines()
        .filter_map(|line| line.split('\t').nth(2)?.parse().ok())
        .collect();
    times.sort_by(f64::total_cmp);
    times
}

/// The value of which a share of `q` is not larger; 0 of nothing.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_the_time_that_its_share_of_requests_did_not_exceed() {
        let log: String = (1..=200).map(|time| format!("1\t200\t{time}\n")).collect();
        let times = times(&log);
        assert_eq!(quantile(&times, 0.99), 198.0);
        assert_eq!(quantile(&times, 0.5), 100.0);
        assert_eq!(quantile(&[], 0.5), 0.0);
    }

    #[test]
    fn the_rate_is_read_from_what_h2load_prints() {
        let printed = "\nfinished in 502.11ms, 48828.13 req/s, 2.62MB/s\nrequests: 1 total";
        assert_eq!(rate_of(printed), Some(48828.13));
        assert_eq!(rate_of("nothing"), None);
    }
}
