//! The result of a run.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::plan::Plan;
use super::record::{Failure, Latency, Recorder};

/// What a run did, as printed by `--json`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// Where the requests went.
    pub url: String,
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
    /// Good answers by the backend that gave them.
    pub per_backend: BTreeMap<String, u64>,
    /// Latency of good answers, from the intended start in an open loop.
    pub latency: Latency,
    /// Failures by class.
    pub failures: BTreeMap<Failure, u64>,
    /// Failures in words.
    pub causes: BTreeMap<String, u64>,
}

pub(super) fn build(plan: &Plan, recorder: &Recorder) -> Report {
    let (ok, failed) = (recorder.ok.get(), recorder.failed.get());
    let elapsed_seconds = recorder.started.elapsed().as_secs_f64();
    let failures = recorder.failures.borrow().clone();
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rate = ok as f64 / elapsed_seconds.max(1e-9);
    Report {
        url: plan.url.to_string(),
        requests: ok + failed,
        ok,
        failed,
        reset: failures.get(&Failure::Reset).copied().unwrap_or(0),
        retried: recorder.retried.get(),
        streams: recorder.streams.get(),
        connections: recorder.connections.get(),
        elapsed_seconds,
        rate,
        per_backend: recorder.per_backend(),
        latency: recorder.latency(),
        failures,
        causes: recorder.causes.borrow().clone(),
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

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            requests,
            ok,
            failed,
            retried,
            connections,
            elapsed_seconds,
            rate,
            latency,
            ..
        } = self;
        writeln!(
            f,
            "requests     {requests} in {elapsed_seconds:.2} s: {ok} ok, {failed} failed, {retried} retried"
        )?;
        writeln!(
            f,
            "throughput   {rate:.0} requests/s over {connections} connections"
        )?;
        let Latency {
            p50,
            p90,
            p99,
            p999,
            max,
            ..
        } = latency;
        let [p50, p90, p99, p999, max] = [p50, p90, p99, p999, max].map(|value| micros(*value));
        writeln!(
            f,
            "latency      p50 {p50}  p90 {p90}  p99 {p99}  p99.9 {p999}  max {max}"
        )?;
        for (name, count) in &self.per_backend {
            #[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
            let share = 100.0 * *count as f64 / (*ok).max(1) as f64;
            writeln!(f, "backend      {name:<16} {count:>10}  {share:5.1} %")?;
        }
        for (cause, count) in &self.causes {
            writeln!(f, "failure      {count:>10} x {cause}")?;
        }
        Ok(())
    }
}
