//! What happened: counts, failures by class, results by backend, latency.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use http::HeaderValue;
use serde::Serialize;

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Failure {
    /// No connection could be made.
    Connect,
    /// No complete answer in time.
    Timeout,
    /// The stream was reset by the peer.
    Reset,
    /// The connection broke with the request in flight.
    ConnectionLost,
    /// The peer refused or went away so often that we gave up.
    Refused,
    /// An HTTP status other than 2xx.
    HttpStatus,
    /// No `grpc-status`, or one other than 0.
    GrpcStatus,
    /// The echo was not what had been sent.
    Mismatch,
    /// The peer broke the protocol.
    Protocol,
}

/// A failed request: the class, and the words for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failed {
    pub(super) class: Failure,
    pub(super) cause: String,
}

impl Failed {
    pub(super) fn new(class: Failure, cause: impl std::fmt::Display) -> Self {
        Self {
            class,
            cause: cause.to_string(),
        }
    }
}

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

/// Counts since the interval began; starts anew every time it is taken.
pub(super) struct Interval {
    pub(super) ok: u64,
    pub(super) failed: u64,
    pub(super) per_backend: BTreeMap<String, u64>,
    latency: Histogram<u64>,
}

/// Filled by all clients of a run, which share one thread.
pub(super) struct Recorder {
    pub(super) started: Instant,
    pub(super) ok: Cell<u64>,
    pub(super) failed: Cell<u64>,
    pub(super) retried: Cell<u64>,
    pub(super) streams: Cell<u64>,
    pub(super) connections: Cell<u64>,
    pub(super) failures: RefCell<BTreeMap<Failure, u64>>,
    pub(super) causes: RefCell<BTreeMap<String, u64>>,
    backends: RefCell<Vec<BackendCount>>,
    latency: RefCell<Histogram<u64>>,
    interval_start: Cell<(u64, u64)>,
    interval_latency: RefCell<Histogram<u64>>,
}

struct BackendCount {
    name: HeaderValue,
    ok: u64,
    at_interval_start: u64,
}

/// Longest latency told apart, an hour in microseconds; three digits are kept.
const LONGEST: u64 = 3_600_000_000;
/// Distinct causes kept in words; further ones are still counted by class.
const CAUSES: usize = 64;

impl Recorder {
    pub(super) fn new() -> Self {
        let zero = || Cell::new(0);
        Self {
            started: Instant::now(),
            ok: zero(),
            failed: zero(),
            retried: zero(),
            streams: zero(),
            connections: zero(),
            failures: RefCell::default(),
            causes: RefCell::default(),
            backends: RefCell::default(),
            latency: RefCell::new(histogram()),
            interval_start: Cell::new((0, 0)),
            interval_latency: RefCell::new(histogram()),
        }
    }

    pub(super) fn succeeded(&self, backend: Option<&HeaderValue>, latency: Duration) {
        bump(&self.ok);
        let micros = u64::try_from(latency.as_micros()).unwrap_or(LONGEST);
        self.latency.borrow_mut().saturating_record(micros);
        self.interval_latency.borrow_mut().saturating_record(micros);
        let Some(name) = backend else { return };
        let mut backends = self.backends.borrow_mut();
        match backends.iter_mut().find(|known| known.name == name) {
            Some(known) => known.ok += 1,
            None => backends.push(BackendCount {
                name: name.clone(),
                ok: 1,
                at_interval_start: 0,
            }),
        }
    }

    pub(super) fn failed(&self, Failed { class, cause }: Failed) {
        bump(&self.failed);
        *self.failures.borrow_mut().entry(class).or_default() += 1;
        let mut causes = self.causes.borrow_mut();
        if causes.len() < CAUSES || causes.contains_key(&cause) {
            *causes.entry(cause).or_default() += 1;
        }
    }

    pub(super) fn per_backend(&self) -> BTreeMap<String, u64> {
        self.backends
            .borrow()
            .iter()
            .map(|backend| (text(&backend.name), backend.ok))
            .collect()
    }

    pub(super) fn latency(&self) -> Latency {
        summary(&self.latency.borrow())
    }

    /// What happened since the last call.
    pub(super) fn take_interval(&self) -> Interval {
        let now = (self.ok.get(), self.failed.get());
        let before = self.interval_start.replace(now);
        let mut per_backend = BTreeMap::new();
        for backend in self.backends.borrow_mut().iter_mut() {
            per_backend.insert(text(&backend.name), backend.ok - backend.at_interval_start);
            backend.at_interval_start = backend.ok;
        }
        let mut histogram = self.interval_latency.borrow_mut();
        let latency = histogram.clone();
        histogram.reset();
        Interval {
            ok: now.0 - before.0,
            failed: now.1 - before.1,
            per_backend,
            latency,
        }
    }
}

impl Interval {
    pub(super) fn latency(&self) -> Latency {
        summary(&self.latency)
    }
}

pub(super) fn bump(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}

fn text(name: &HeaderValue) -> String {
    String::from_utf8_lossy(name.as_bytes()).into_owned()
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, 3).expect("constant bounds that the constructor allows")
}

fn summary(histogram: &Histogram<u64>) -> Latency {
    let at = |quantile| histogram.value_at_quantile(quantile);
    let min = if histogram.is_empty() {
        0
    } else {
        histogram.min()
    };
    Latency {
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
