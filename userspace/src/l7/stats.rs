//! What the L7 path counts, and the report built from it.
//!
//! Every worker has its own counters, on cache lines of its own, and is their only writer: counting is a load and a store,
//! no locked instruction. Only the streams in flight, by which backends are chosen, are one figure for all workers.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed};

use serde::{Deserialize, Serialize};

/// A counter with one writer and any number of readers.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; only the owning worker may call it.
    pub fn add(&self, amount: u64) {
        self.0
            .store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    /// Takes away, for figures that are a level and not a sum; only the owning worker may call it.
    pub fn sub(&self, amount: u64) {
        self.0
            .store(self.0.load(Relaxed).wrapping_sub(amount), Relaxed);
    }

    /// The value now.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Whether a backend can be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Reach {
    /// Nothing is known, or nothing since it was down.
    #[default]
    Unknown = 0,
    /// Yes.
    Up = 1,
    /// No: the last attempt failed.
    Down = 2,
}

/// What a worker says of a backend's reachability, for others to read.
#[derive(Debug, Default)]
pub struct ReachCell(AtomicU8);

/// What one worker counts for one backend of a service.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct BackendCounters {
    /// Streams (and HTTP/1.1 requests) sent to it.
    pub opened: Counter,
    /// Of these: answered to the end.
    pub ok: Counter,
    /// Lost with the upstream connection.
    pub failed: Counter,
    /// Reset by the client.
    pub reset_by_client: Counter,
    /// Reset by the backend.
    pub reset_by_backend: Counter,
    /// Ended because nothing moved for `stream_idle_timeout_ms`.
    pub timed_out: Counter,
    /// Refused unprocessed, and tried elsewhere.
    pub retried: Counter,
    /// Attempts to connect that failed.
    pub connect_failures: Counter,
    /// Streams that found all upstream connections full, of which there were as many as may be.
    pub upstream_full: Counter,
    /// HTTP/1.1 connections closed because as many were kept as may be.
    pub http1_not_kept: Counter,
    /// Upstream connections made.
    pub upstream_opened: Counter,
    /// Upstream connections now.
    pub upstream_active: Counter,
    /// Request content forwarded.
    pub request_bytes: Counter,
    /// Response content forwarded.
    pub response_bytes: Counter,
    /// Whether this worker reaches it.
    pub reach: ReachCell,
}

/// What one worker counts for one service.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ServiceCounters {
    /// Client connections accepted.
    pub connections_opened: Counter,
    /// Client connections now.
    pub connections_active: Counter,
    /// Client connections that spoke HTTP/1.1.
    pub http1_connections: Counter,
    /// Streams that no backend could take.
    pub no_backend: Counter,
    /// Streams whose backend was removed or drained while they waited for a connection, and that chose again.
    pub placed_again: Counter,
    /// Clients told ENHANCE_YOUR_CALM.
    pub floods: Counter,
    /// Client connections closed because they took nothing for `stall_timeout_ms`.
    pub stalled: Counter,
    /// Bytes received from clients.
    pub received_bytes: Counter,
    /// Bytes sent to clients.
    pub sent_bytes: Counter,
}

/// The load of one backend of a service, and its counters by worker.
#[derive(Debug)]
pub struct Load {
    in_flight: InFlightCell,
    workers: Box<[BackendCounters]>,
}

/// On a cache line of its own: every worker writes it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct InFlightCell(AtomicU32);

/// A stream in flight; dropping it ends the count.
#[derive(Debug)]
pub struct InFlight(std::sync::Arc<Load>);

/// Figures of the whole L7 path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyStats {
    /// Workers.
    pub workers: usize,
    /// Client connections now.
    pub connections: u64,
    /// Client connections closed at once because `max_connections` were open.
    pub connections_refused: u64,
    /// By service, in the order in which they were given.
    pub services: Vec<ServiceStats>,
}

/// Figures of one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceStats {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: SocketAddr,
    /// Client connections accepted.
    pub connections_opened: u64,
    /// Client connections now.
    pub connections_active: u64,
    /// Client connections that spoke HTTP/1.1.
    pub http1_connections: u64,
    /// Streams that no backend could take.
    pub no_backend: u64,
    /// Streams whose backend was removed or drained while they waited for a connection, and that chose again.
    #[serde(default)]
    pub streams_placed_again: u64,
    /// Clients told ENHANCE_YOUR_CALM.
    pub floods: u64,
    /// Client connections closed because they took nothing for `stall_timeout_ms`.
    #[serde(default)]
    pub stalled: u64,
    /// Bytes received from clients.
    pub received_bytes: u64,
    /// Bytes sent to clients.
    pub sent_bytes: u64,
    /// By backend, in the order in which they were given.
    pub backends: Vec<BackendStats>,
}

/// Figures of one backend of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendStats {
    /// Its address.
    pub address: SocketAddr,
    /// Its weight.
    pub weight: u32,
    /// True when it gets no new streams.
    pub draining: bool,
    /// True when it cannot be reached, as far as the workers know: one at least tried in vain, and none has a connection.
    #[serde(default)]
    pub down: bool,
    /// Streams sent to it.
    pub streams_opened: u64,
    /// Streams now in flight.
    pub streams_active: u32,
    /// Streams answered to the end.
    pub streams_ok: u64,
    /// Streams lost with an upstream connection.
    pub streams_failed: u64,
    /// Streams reset, by the client or the backend.
    pub streams_reset: u64,
    /// Streams ended because nothing moved for `stream_idle_timeout_ms`.
    #[serde(default)]
    pub streams_timed_out: u64,
    /// Streams refused unprocessed, and tried elsewhere.
    pub streams_retried: u64,
    /// Attempts to connect that failed.
    pub connect_failures: u64,
    /// Streams that found all upstream connections full, of which there were `upstream_connections` in a worker.
    #[serde(default)]
    pub upstream_full: u64,
    /// HTTP/1.1 connections closed because `http1_idle_connections` were kept by a worker.
    #[serde(default)]
    pub http1_not_kept: u64,
    /// Upstream connections made.
    pub upstream_opened: u64,
    /// Upstream connections now.
    pub upstream_active: u64,
    /// Request content forwarded.
    pub request_bytes: u64,
    /// Response content forwarded.
    pub response_bytes: u64,
}

// === impl ReachCell ===

impl ReachCell {
    /// Says so.
    pub fn set(&self, reach: Reach) {
        self.0.store(reach as u8, Relaxed);
    }

    /// What was said last.
    #[must_use]
    pub fn get(&self) -> Reach {
        match self.0.load(Relaxed) {
            1 => Reach::Up,
            2 => Reach::Down,
            _ => Reach::Unknown,
        }
    }
}

// === impl Load ===

impl Load {
    /// No load yet, with counters for so many workers.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self {
            in_flight: InFlightCell::default(),
            workers: (0..workers).map(|_| BackendCounters::default()).collect(),
        }
    }

    /// Streams in flight over all workers.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.0.load(Relaxed)
    }

    /// The counters of a worker.
    #[must_use]
    pub fn of(&self, worker: usize) -> &BackendCounters {
        &self.workers[worker]
    }

    /// True when a worker cannot reach the backend, and none can.
    #[must_use]
    pub fn is_down(&self) -> bool {
        let says = |reach| self.workers.iter().any(|w| w.reach.get() == reach);
        says(Reach::Down) && !says(Reach::Up)
    }

    /// The sum of a counter over all workers.
    #[must_use]
    pub fn sum(&self, counter: impl Fn(&BackendCounters) -> &Counter) -> u64 {
        self.workers.iter().map(|w| counter(w).get()).sum()
    }
}

// === impl InFlight ===

impl InFlight {
    /// Counts one more stream in flight.
    #[must_use]
    pub fn new(load: &std::sync::Arc<Load>) -> Self {
        load.in_flight.0.fetch_add(1, Relaxed);
        Self(load.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn in_flight_ends_with_its_handle() {
        let load = Arc::new(Load::new(1));
        let (first, second) = (InFlight::new(&load), InFlight::new(&load));
        assert_eq!(load.in_flight(), 2);
        drop(first);
        assert_eq!(load.in_flight(), 1);
        drop(second);
        assert_eq!(load.in_flight(), 0);
    }

    #[test]
    fn a_backend_is_down_when_all_say_so_who_know() {
        use Reach::{Down, Unknown, Up};
        for (said, down) in [
            ([Unknown, Unknown, Unknown], false),
            ([Unknown, Down, Unknown], true),
            ([Down, Down, Down], true),
            ([Down, Up, Unknown], false),
            ([Up, Unknown, Unknown], false),
        ] {
            let load = Load::new(said.len());
            for (worker, reach) in said.into_iter().enumerate() {
                load.of(worker).reach.set(reach);
            }
            assert_eq!(load.is_down(), down, "{said:?}");
        }
    }

    #[test]
    fn sums_cover_all_workers() {
        let load = Load::new(3);
        load.of(0).opened.add(2);
        load.of(2).opened.add(5);
        assert_eq!(load.sum(|c| &c.opened), 7);
    }
}
