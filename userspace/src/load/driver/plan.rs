//! What a run of the load driver does: the validated settings.

mod check;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Method, Uri};

use super::balance::Balance;
use super::head::Field;
use super::schedule::Schedule;
use super::share;
use super::target::Target;
use crate::load::arrival::Clock;
use crate::load::distribution::Sizes;
use crate::load::{GRPC_STREAM, GRPC_UNARY};

pub use check::PlanError;

/// What one request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A plain HTTP/2 request.
    Http2,
    /// A unary gRPC call: of the method that the URL's path names, or of the echo service where that is `/`.
    GrpcUnary,
    /// A bidirectional gRPC stream of the echo service: so many messages, each sent once the echo of the one before arrived.
    GrpcStream {
        /// Messages in one stream.
        messages: u32,
    },
    /// A plain HTTP/1.1 request; one at a time on a connection.
    Http1 {
        /// Whether a connection serves more than one request.
        keep_alive: bool,
    },
}

/// When the run is over, warm-up not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Budget {
    /// After this many requests.
    Requests(u64),
    /// After this time; requests in flight then still finish.
    Duration(Duration),
}

/// When clients leave a healthy connection for a new one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Renewal {
    /// After this many requests on one connection.
    pub after_requests: Option<u64>,
    /// At this age.
    pub after: Option<Duration>,
}

/// The settings of a run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// What is asked for: scheme `http`, authority, path and query as sent.
    pub url: Uri,
    /// Who is asked; names are resolved again when connections fail or are lost.
    pub targets: Vec<Target>,
    /// The addresses that each target has at the start.
    pub addresses: Vec<Vec<SocketAddr>>,
    /// How often names are resolved again, besides.
    pub resolve_every: Option<Duration>,
    /// How a client chooses among the addresses.
    pub balance: Balance,
    /// What one request is.
    pub kind: Kind,
    /// The clients, with a weight each: its share of the requests.
    pub weights: Vec<u32>,
    /// Requests in flight at most from one client.
    pub streams: u32,
    /// When it is over.
    pub budget: Budget,
    /// When requests start (open loop); `None`: as fast as answers come (closed loop).
    pub schedule: Option<Schedule>,
    /// Requests that start in this time at the beginning are left out of all figures.
    pub warm_up: Duration,
    /// `None`: GET, or POST when there is a payload.
    pub method: Option<Method>,
    /// Fields of every request, besides those that it needs.
    pub headers: Vec<Field>,
    /// Bytes of payload in a request (gRPC: in a message).
    pub payload: Sizes,
    /// The payload itself; `None`: filler.
    pub content: Option<Bytes>,
    /// Asks an echo backend for so many bytes; `None`: for its usual answer (gRPC: the payload sent back).
    pub response_size: Option<Sizes>,
    /// The header field of an answer that names the backend.
    pub backend_header: HeaderName,
    /// A request that takes longer than this, from its intended start, has failed.
    pub timeout: Duration,
    /// When connections are renewed.
    pub renewal: Renewal,
    /// Local addresses, taken in turn by the connections; empty: the kernel's choice.
    pub sources: Vec<IpAddr>,
    /// Threads that the clients are divided among.
    pub threads: usize,
    /// Threads never sleep, so that no wakeup is in the latencies.
    pub spin: bool,
    /// By which clock an answer is over.
    pub clock: Clock,
    /// Where every random choice comes from.
    pub seed: u64,
}

impl Plan {
    /// Whether there is anything to send with a request.
    #[must_use]
    pub fn has_payload(&self) -> bool {
        match &self.content {
            Some(content) => !content.is_empty(),
            None => !self.payload.is_nothing(),
        }
    }

    /// The path of gRPC calls, where requests are that.
    pub(super) fn grpc_path(&self) -> Option<&str> {
        match (self.kind, self.url.path()) {
            (Kind::GrpcUnary, "/") => Some(GRPC_UNARY),
            (Kind::GrpcUnary, path) => Some(path),
            (Kind::GrpcStream { .. }, _) => Some(GRPC_STREAM),
            (Kind::Http2 | Kind::Http1 { .. }, _) => None,
        }
    }

    fn is_closed_over_time(&self) -> bool {
        self.schedule.is_none() && matches!(self.budget, Budget::Duration(_))
    }

    /// Concurrent streams of each client. In a closed loop over time concurrency is what sets the pace, so it is
    /// there that the weights act: the heaviest client gets all of `streams`, a lighter one its part.
    #[must_use]
    pub fn concurrency(&self) -> Vec<u32> {
        let closed_over_time = self.is_closed_over_time();
        let heaviest = self.weights.iter().copied().max().unwrap_or(1).max(1);
        let share = |weight: &u32| match (weight, closed_over_time) {
            (0, _) => 0,
            (_, false) => self.streams,
            (weight, true) => {
                let all = u64::from(self.streams) * u64::from(*weight);
                let share = (all + u64::from(heaviest) / 2) / u64::from(heaviest);
                u32::try_from(share).unwrap_or(self.streams)
            }
        };
        self.weights.iter().map(share).collect()
    }

    /// `total` requests shared out by weight; every one is given to somebody.
    #[must_use]
    pub fn quotas(&self, total: u64) -> Vec<u64> {
        share::quotas(&self.weights, total)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A plan for tests: one request after the other, to nobody.
    pub(crate) fn plan(weights: &[u32], budget: Budget) -> Plan {
        let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
        Plan {
            url: Uri::from_static("http://127.0.0.1:1/"),
            targets: vec![Target::Address(nobody)],
            addresses: vec![vec![nobody]],
            resolve_every: None,
            balance: Balance::PickFirst,
            kind: Kind::Http2,
            weights: weights.to_vec(),
            streams: 20,
            budget,
            schedule: None,
            warm_up: Duration::ZERO,
            method: None,
            headers: Vec::new(),
            payload: Sizes::Fixed(0),
            content: None,
            response_size: None,
            backend_header: HeaderName::from_static(crate::load::BACKEND_HEADER),
            timeout: Duration::from_secs(30),
            renewal: Renewal::default(),
            sources: Vec::new(),
            threads: 1,
            spin: false,
            clock: Clock::default(),
            seed: 1,
        }
    }

    #[test]
    fn in_a_closed_loop_over_time_weights_set_the_concurrency() {
        let second = Budget::Duration(Duration::from_secs(1));
        assert_eq!(plan(&[10, 1, 0], second).concurrency(), [20, 2, 0]);
        assert_eq!(
            plan(&[10, 1, 0], Budget::Requests(5)).concurrency(),
            [20, 20, 0]
        );
    }
}
