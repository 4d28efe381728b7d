//! The result of a run.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::plan::Plan;
use super::record::{ConnectionCounts, Counts, Failure, WarmUp, add, histogram, text};

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

/// Beyond so many microseconds a client is late by itself: wakeups do not take as long, and what comes on top of it is in the
/// latencies.
const TOO_LATE: u64 = 1_000;

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

/// Microseconds in the unit that reads best.
pub(super) fn micros(micros: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let value = micros as f64;
    match micros {
        0..1_000 => format!("{micros} us"),
        1_000..1_000_000 => format!("{:.1} ms", value / 1e3),
        _ => format!("{:.2} s", value / 1e6),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
fn percent(part: u64, of: u64) -> f64 {
    100.0 * part as f64 / of.max(1) as f64
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            p50,
            p90,
            p99,
            p999,
            max,
            ..
        } = self;
        let [p50, p90, p99, p999, max] = [p50, p90, p99, p999, max].map(|value| micros(*value));
        write!(
            f,
            "p50 {p50}  p90 {p90}  p99 {p99}  p99.9 {p999}  max {max}"
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seed,
            balance,
            schedule,
            requests,
            ok,
            failed,
            retried,
            connections,
            elapsed_seconds,
            rate,
            warm_up,
            latency,
            beyond_backend,
            ..
        } = self;
        writeln!(
            f,
            "requests     {requests} in {elapsed_seconds:.2} s: {ok} ok, {failed} failed, {retried} retried"
        )?;
        if *warm_up != WarmUp::default() {
            let WarmUp { ok, failed } = warm_up;
            writeln!(
                f,
                "warm-up      {ok} ok, {failed} failed, in no other figure"
            )?;
        }
        writeln!(
            f,
            "throughput   {rate:.0} requests/s over {connections} connections, {balance}"
        )?;
        writeln!(f, "latency      {latency}")?;
        if let Some(beyond) = beyond_backend {
            writeln!(
                f,
                "beyond       {beyond}, without the time that backends took"
            )?;
        }
        self.write_delays(f)?;
        if let Some(schedule) = schedule {
            writeln!(
                f,
                "schedule     {schedule}, latency from the intended start"
            )?;
        }
        for (name, count) in &self.per_backend {
            let share = percent(*count, *ok);
            write!(f, "backend      {name:<16} {count:>10}  {share:5.1} %")?;
            match self.latency_by_backend.get(name) {
                Some(latency) => writeln!(
                    f,
                    "  p50 {}  p99 {}",
                    micros(latency.p50),
                    micros(latency.p99)
                )?,
                None => writeln!(f)?,
            }
        }
        self.write_busiest(f)?;
        for (cause, count) in &self.causes {
            writeln!(f, "failure      {count:>10} x {cause}")?;
        }
        if self.other_causes > 0 {
            let count = self.other_causes;
            writeln!(
                f,
                "failure      {count:>10} x for other reasons, too many to list"
            )?;
        }
        writeln!(f, "seed         {seed}")
    }
}

impl Report {
    /// How late this program was, and whether that matters.
    fn write_delays(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let delays = [
            ("answers read", &self.read_delay),
            ("requests started", &self.start_delay),
        ];
        let known = || {
            let known = |(what, delay): (_, &Option<Latency>)| Some((what, delay.clone()?));
            delays.into_iter().filter_map(known)
        };
        let words: Vec<String> = known()
            .map(|(what, Latency { p50, p99, max, .. })| {
                let [p50, p99, max] = [p50, p99, max].map(micros);
                format!("{what} late by p50 {p50}  p99 {p99}  max {max}")
            })
            .collect();
        if words.is_empty() {
            return Ok(());
        }
        let slow = known().any(|(_, delay)| delay.p99 > TOO_LATE);
        let verdict = if slow {
            ": this client was the bottleneck, unless packets were lost on the way"
        } else {
            ""
        };
        writeln!(f, "client       {}{verdict}", words.join(", "))
    }

    /// The busiest connections, where there are several.
    fn write_busiest(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 3;
        if self.per_connection.len() < 2 {
            return Ok(());
        }
        let mut busiest: Vec<&Connection> = self.per_connection.iter().collect();
        busiest.sort_by_key(|connection| Reverse(connection.ok));
        for connection in busiest.iter().take(SHOWN) {
            let Connection {
                client,
                address,
                ok,
                max,
                ..
            } = connection;
            let share = percent(*ok, self.ok);
            let from = format!("client {client}");
            writeln!(
                f,
                "connection   {from:<16} {ok:>10}  {share:5.1} %  to {address}  max {}",
                micros(*max)
            )?;
        }
        if self.connections_not_listed > 0 {
            let more = self.connections_not_listed;
            writeln!(
                f,
                "connection   {more} more are counted above, but not one by one"
            )?;
        }
        Ok(())
    }
}
