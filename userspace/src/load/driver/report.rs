//! The result of a run.

mod display;

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::plan::Plan;
use super::record::{ConnectionCounts, Counts, Failure, WarmUp, add, histogram, text};

pub(super) use display::micros;

/// Latency at the usual points.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Latency {
    /// Always `us`: microseconds.
    pub unit: &'static str,
    /// Fastest.
    pub min: u64,
    /// Mean.
    pub mean: f64,
    /// Median.
    pub p50: u64,
    /// 90th percentile.
    pub p90: u64,
    /// 99th percentile.
    pub p99: u64,
    /// 99.9th percentile.
    pub p999: u64,
    /// Slowest.
    pub max: u64,
}

/// One connection of the run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Connection {
    /// Number of the client that made it, from 0.
    pub client: usize,
    /// Where it went.
    pub address: String,
    /// HTTP/2 streams opened on it, those of retries and of the warm-up included.
    pub streams: u64,
    /// Good answers.
    pub ok: u64,
    /// Failed requests.
    pub failed: u64,
    /// Mean latency of good answers, in microseconds.
    pub mean: f64,
    /// The longest, in microseconds.
    pub max: u64,
    /// Good answers by the backend that gave them: more than one name where streams were balanced on the way.
    pub per_backend: BTreeMap<String, u64>,
}

/// What a run did, as printed by `--json`. Figures leave the warm-up out, but for `streams` and `connections`, which are
/// what went over the wire.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// What was asked for.
    pub url: String,
    /// Where every random choice came from.
    pub seed: u64,
    /// Client-side policy.
    pub balance: String,
    /// Intended starts; `None`: closed loop.
    pub schedule: Option<String>,
    /// Requests that ended, one way or the other.
    pub requests: u64,
    /// Requests with a complete and correct answer.
    pub ok: u64,
    /// The others.
    pub failed: u64,
    /// Of the failed ones, those whose stream the peer reset.
    pub reset: u64,
    /// Requests sent again because the peer had not processed them; not failures.
    pub retried: u64,
    /// HTTP/2 streams opened, those of retried requests included.
    pub streams: u64,
    /// Connections made.
    pub connections: u64,
    /// Seconds from start to the last answer.
    pub elapsed_seconds: f64,
    /// Good answers per second.
    pub rate: f64,
    /// What was left out of the figures.
    pub warm_up: WarmUp,
    /// Good answers by the backend that gave them; `(other)` is all of those beyond the first 1,024.
    pub per_backend: BTreeMap<String, u64>,
    /// Latency of good answers, from the intended start in an open loop.
    pub latency: Latency,
    /// The same by backend.
    pub latency_by_backend: BTreeMap<String, Latency>,
    /// Latency without the time for which backends say they had the request: the way there and back, and this program.
    /// `None` where none says so; an echo backend does that takes its time.
    pub beyond_backend: Option<Latency>,
    /// From the arrival of an answer, as the kernel stamped it, until it was handled: how late this program was, or how long
    /// what came waited in the kernel for a lost packet before it. Up to a millisecond of it is in no latency. `None` by the
    /// process's clock, which knows nothing of it.
    pub read_delay: Option<Latency>,
    /// From the intended start of a request until it was given out to be sent (open loop): how late this program was. The
    /// wait for a free stream is not in it; all of it is in the latency.
    pub start_delay: Option<Latency>,
    /// Latencies of good answers: how many there were of at most so many microseconds and more than the line before.
    pub histogram: Vec<(u64, u64)>,
    /// The connections, in the order in which each thread made them; without those that carry one request only
    /// (HTTP/1.1 without keep-alive), and at most 65,536 for each thread.
    pub per_connection: Vec<Connection>,
    /// Connections beyond those, which are in no `per_connection`.
    pub connections_not_listed: u64,
    /// Failures by class.
    pub failures: BTreeMap<Failure, u64>,
    /// Failures in words, at most 64 different ones for each thread.
    pub causes: BTreeMap<String, u64>,
    /// Failures with other words.
    pub other_causes: u64,
}

pub(super) fn build(plan: &Plan, counts: &Counts, elapsed: Duration) -> Report {
    let elapsed_seconds = elapsed.saturating_sub(plan.warm_up).as_secs_f64();
    let mut all = histogram();
    let mut per_backend = BTreeMap::new();
    let mut latency_by_backend = BTreeMap::new();
    for backend in &counts.backends {
        let latencies = backend.latencies();
        add(&mut all, &latencies);
        if let Some(name) = backend.name.as_ref().map(text) {
            per_backend.insert(name.clone(), latencies.len());
            latency_by_backend.insert(name, Latency::of(&latencies));
        }
    }
    // Backends that served the warm-up only are in no figure.
    per_backend.retain(|_, ok| *ok > 0);
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = counts.ok as f64 / elapsed_seconds.max(1e-9);
    Report {
        url: plan.url.to_string(),
        seed: plan.seed,
        balance: plan.balance.to_string(),
        schedule: plan.schedule.as_ref().map(ToString::to_string),
        requests: counts.ok + counts.failed,
        ok: counts.ok,
        failed: counts.failed,
        reset: counts.failures.get(&Failure::Reset).copied().unwrap_or(0),
        retried: counts.retried,
        streams: counts.streams,
        connections: counts.connections,
        elapsed_seconds,
        rate,
        warm_up: counts.warm_up,
        per_backend,
        latency: Latency::of(&all),
        latency_by_backend,
        beyond_backend: Latency::of_some(&counts.beyond),
        read_delay: Latency::of_some(&counts.read_delay),
        start_delay: Latency::of_some(&counts.start_delay),
        histogram: all
            .iter_recorded()
            .map(|step| (step.value_iterated_to(), step.count_since_last_iteration()))
            .collect(),
        per_connection: counts
            .listed
            .iter()
            .map(|connection| Connection::of(connection, counts))
            .collect(),
        connections_not_listed: counts.unlisted,
        failures: counts.failures.clone(),
        causes: counts.causes.clone(),
        other_causes: counts.other_causes,
    }
}

// === impl Latency ===

impl Latency {
    /// Nothing of nothing.
    fn of_some(histogram: &Histogram<u64>) -> Option<Self> {
        (!histogram.is_empty()).then(|| Self::of(histogram))
    }

    pub(super) fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile);
        let min = if histogram.is_empty() {
            0
        } else {
            histogram.min()
        };
        Self {
            unit: "us",
            min,
            mean: histogram.mean(),
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max(),
        }
    }
}

// === impl Connection ===

impl Connection {
    fn of(connection: &ConnectionCounts, counts: &Counts) -> Self {
        let ConnectionCounts {
            client,
            address,
            streams,
            ok,
            failed,
            micros,
            longest,
            backends,
        } = connection;
        let named = |(backend, ok): &(usize, u64)| {
            let name = counts.backends.get(*backend)?.name.as_ref()?;
            Some((text(name), *ok))
        };
        #[expect(clippy::cast_precision_loss, reason = "a mean for people")]
        let mean = *micros as f64 / (*ok).max(1) as f64;
        Self {
            client: *client,
            address: address.to_string(),
            streams: *streams,
            ok: *ok,
            failed: *failed,
            mean,
            max: *longest,
            per_backend: backends.iter().filter_map(named).collect(),
        }
    }
}
