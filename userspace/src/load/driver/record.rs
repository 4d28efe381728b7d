//! What happened: counts, failures by class, results by backend and by connection, latency.
//!
//! One recorder for each thread of a run. It is locked for each request by its own thread only, and once a second by
//! whoever shows progress, so the lock is free when it is wanted.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use http::HeaderValue;
use serde::Serialize;
use tokio::time::Instant;

use super::answer::Answer;
use super::work::Start;

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
    /// The echo was not what had been sent, or the answer not as long as asked for.
    Mismatch,
    /// The peer broke the protocol.
    Protocol,
    /// Too many requests were due already (open loop).
    NotSent,
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

/// Number of a connection in its recorder; `None`: not one of those listed.
pub(super) type Listed = Option<usize>;

/// Filled by all clients of a thread.
pub(super) struct Recorder {
    counts: Mutex<Counts>,
    /// Requests that were meant to start before this are warm-up.
    measured_from: Instant,
}

/// What one thread, or all of them, counted.
#[derive(Clone)]
pub(super) struct Counts {
    pub(super) ok: u64,
    pub(super) failed: u64,
    pub(super) retried: u64,
    pub(super) streams: u64,
    pub(super) connections: u64,
    pub(super) warm_up: WarmUp,
    pub(super) failures: BTreeMap<Failure, u64>,
    pub(super) causes: BTreeMap<String, u64>,
    /// Failures whose words are none of `causes`.
    pub(super) other_causes: u64,
    /// Latencies without what backends say they took, where they do.
    pub(super) beyond: Histogram<u64>,
    /// From the arrival of answers, where the kernel says when that was, until they were counted.
    pub(super) read_delay: Histogram<u64>,
    /// From the intended start of an open loop's requests until they were given out.
    pub(super) start_delay: Histogram<u64>,
    pub(super) backends: Vec<BackendCounts>,
    pub(super) listed: Vec<ConnectionCounts>,
    /// Connections that are not in `listed` for want of room.
    pub(super) unlisted: u64,
}

/// Requests that are in no other figure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct WarmUp {
    /// With a good answer.
    pub ok: u64,
    /// The others.
    pub failed: u64,
}

/// Good answers of one backend.
#[derive(Clone)]
pub(super) struct BackendCounts {
    /// `None`: answers that named none; [`OTHER`]: those of all backends beyond [`BACKENDS`].
    pub(super) name: Option<HeaderValue>,
    /// Since the last interval.
    pub(super) recent: Histogram<u64>,
    /// Before that.
    pub(super) earlier: Histogram<u64>,
}

/// What went over one connection.
#[derive(Clone)]
pub(super) struct ConnectionCounts {
    pub(super) client: usize,
    pub(super) address: SocketAddr,
    pub(super) streams: u64,
    pub(super) ok: u64,
    pub(super) failed: u64,
    pub(super) micros: u64,
    pub(super) longest: u64,
    /// Good answers by position in `backends`.
    pub(super) backends: Vec<(usize, u64)>,
}

/// Longest latency told apart, an hour in microseconds; three digits are kept.
const LONGEST: u64 = 3_600_000_000;
/// Distinct causes kept in words by one thread; failures with further ones are still counted, by class and as others.
const CAUSES: usize = 64;
/// Backends told apart; further ones count as one. Each has histograms of a few hundred kilobytes, so tests do with fewer.
const BACKENDS: usize = if cfg!(test) { 16 } else { 1024 };
/// The name of that one.
const OTHER: HeaderValue = HeaderValue::from_static("(other)");
/// Connections listed one by one; further ones are still counted, and how many they are.
pub(super) const CONNECTIONS: usize = 1 << 16;

// === impl Recorder ===

impl Recorder {
    pub(super) fn new(measured_from: Instant) -> Self {
        Self {
            counts: Mutex::new(Counts::new()),
            measured_from,
        }
    }

    /// The counts; a client that panicked does not take them along.
    pub(super) fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection was made; `alone` when it carries one request only, so that it is not worth listing.
    pub(super) fn opened(&self, client: usize, address: SocketAddr, alone: bool) -> Listed {
        let mut counts = self.counts();
        counts.connections += 1;
        if alone {
            return None;
        }
        if counts.listed.len() >= CONNECTIONS {
            counts.unlisted += 1;
            return None;
        }
        counts.listed.push(ConnectionCounts {
            client,
            address,
            streams: 0,
            ok: 0,
            failed: 0,
            micros: 0,
            longest: 0,
            backends: Vec::new(),
        });
        Some(counts.listed.len() - 1)
    }

    pub(super) fn opened_stream(&self, connection: Listed) {
        let mut counts = self.counts();
        counts.streams += 1;
        if let Some(listed) = counts.listed(connection) {
            listed.streams += 1;
        }
    }

    /// A request that was meant to start then is sent again.
    pub(super) fn retried(&self, intended: Instant) {
        if intended >= self.measured_from {
            self.counts().retried += 1;
        }
    }

    pub(super) fn succeeded(&self, connection: Listed, answer: &Answer, start: Start) {
        let Start { intended, late } = start;
        let latency = answer.over.at.saturating_duration_since(intended);
        let mut counts = self.counts();
        if intended < self.measured_from {
            counts.warm_up.ok += 1;
            return;
        }
        counts.ok += 1;
        let micros = rounded_micros(latency);
        if let Some(took) = answer.took {
            let beyond = rounded_micros(latency.saturating_sub(took));
            counts.beyond.saturating_record(beyond);
        }
        if let Some(arrived) = answer.over.stamped {
            let delay = rounded_micros(arrived.elapsed());
            counts.read_delay.saturating_record(delay);
        }
        if let Some(late) = late {
            counts.start_delay.saturating_record(rounded_micros(late));
        }
        let backend = counts.backend(answer.backend.as_ref());
        counts.backends[backend].recent.saturating_record(micros);
        let Some(listed) = counts.listed(connection) else {
            return;
        };
        listed.ok += 1;
        listed.micros = listed.micros.saturating_add(micros);
        listed.longest = listed.longest.max(micros);
        match listed
            .backends
            .iter_mut()
            .find(|(known, _)| *known == backend)
        {
            Some((_, ok)) => *ok += 1,
            None => listed.backends.push((backend, 1)),
        }
    }

    pub(super) fn failed(&self, connection: Listed, intended: Instant, failed: Failed) {
        let mut counts = self.counts();
        let Failed { class, cause } = failed;
        if intended < self.measured_from {
            counts.warm_up.failed += 1;
            return;
        }
        counts.failed += 1;
        *counts.failures.entry(class).or_default() += 1;
        if let Some(listed) = counts.listed(connection) {
            listed.failed += 1;
        }
        if counts.causes.len() < CAUSES || counts.causes.contains_key(&cause) {
            *counts.causes.entry(cause).or_default() += 1;
        } else {
            counts.other_causes += 1;
        }
    }
}

// === impl Counts ===

impl Counts {
    pub(super) fn new() -> Self {
        Self {
            ok: 0,
            failed: 0,
            retried: 0,
            streams: 0,
            connections: 0,
            warm_up: WarmUp::default(),
            failures: BTreeMap::new(),
            causes: BTreeMap::new(),
            other_causes: 0,
            beyond: histogram(),
            read_delay: histogram(),
            start_delay: histogram(),
            backends: Vec::new(),
            listed: Vec::new(),
            unlisted: 0,
        }
    }

    fn listed(&mut self, connection: Listed) -> Option<&mut ConnectionCounts> {
        self.listed.get_mut(connection?)
    }

    /// Position of a backend.
    fn backend(&mut self, name: Option<&HeaderValue>) -> usize {
        let position = |backends: &[BackendCounts], name: Option<&HeaderValue>| {
            backends
                .iter()
                .position(|known| known.name.as_ref() == name)
        };
        if let Some(known) = position(&self.backends, name) {
            return known;
        }
        let other = (self.backends.len() >= BACKENDS).then_some(OTHER);
        let name = name.map(|name| other.as_ref().unwrap_or(name));
        position(&self.backends, name).unwrap_or_else(|| {
            self.backends.push(BackendCounts {
                name: name.cloned(),
                recent: histogram(),
                earlier: histogram(),
            });
            self.backends.len() - 1
        })
    }

    /// Adds what another thread counted.
    pub(super) fn add(&mut self, other: &Self) {
        self.ok += other.ok;
        self.failed += other.failed;
        self.retried += other.retried;
        self.streams += other.streams;
        self.connections += other.connections;
        self.unlisted += other.unlisted;
        self.other_causes += other.other_causes;
        self.warm_up.ok += other.warm_up.ok;
        self.warm_up.failed += other.warm_up.failed;
        for (class, count) in &other.failures {
            *self.failures.entry(*class).or_default() += count;
        }
        for (cause, count) in &other.causes {
            *self.causes.entry(cause.clone()).or_default() += count;
        }
        add(&mut self.beyond, &other.beyond);
        add(&mut self.read_delay, &other.read_delay);
        add(&mut self.start_delay, &other.start_delay);
        let mut positions = Vec::with_capacity(other.backends.len());
        for theirs in &other.backends {
            let position = self.backend(theirs.name.as_ref());
            let ours = &mut self.backends[position];
            add(&mut ours.recent, &theirs.recent);
            add(&mut ours.earlier, &theirs.earlier);
            positions.push(position);
        }
        for listed in &other.listed {
            let mut listed = listed.clone();
            for (backend, _) in &mut listed.backends {
                *backend = positions[*backend];
            }
            self.listed.push(listed);
        }
    }

    /// Latencies of each backend since the last interval was taken; starts the next one.
    pub(super) fn take_recent(&mut self, into: &mut BTreeMap<Option<String>, Histogram<u64>>) {
        for backend in &mut self.backends {
            let name = backend.name.as_ref().map(text);
            add(into.entry(name).or_insert_with(histogram), &backend.recent);
            add(&mut backend.earlier, &backend.recent);
            backend.recent.reset();
        }
    }
}

// === impl BackendCounts ===

impl BackendCounts {
    /// All latencies.
    pub(super) fn latencies(&self) -> Histogram<u64> {
        let mut all = self.earlier.clone();
        add(&mut all, &self.recent);
        all
    }
}

/// A name as text.
pub(super) fn text(name: &HeaderValue) -> String {
    String::from_utf8_lossy(name.as_bytes()).into_owned()
}

/// An empty histogram of latencies, in microseconds.
pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, 3).expect("constant bounds that the constructor allows")
}

/// Adds `from` to `to`; both were made by [`histogram`].
pub(super) fn add(to: &mut Histogram<u64>, from: &Histogram<u64>) {
    to.add(from).expect("histograms of the same bounds");
}

/// The nearest number of microseconds; cutting off would make every latency half a microsecond too short on average.
fn rounded_micros(latency: Duration) -> u64 {
    u64::try_from((latency.as_nanos() + 500) / 1000).unwrap_or(LONGEST)
}

#[cfg(test)]
mod tests;
