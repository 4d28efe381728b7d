//! What a run of the load driver does: the validated settings, and how the work is shared out.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::Uri;

/// What one request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A plain HTTP/2 request: GET, or POST when there is a payload.
    Http2,
    /// A unary gRPC call to the echo service.
    GrpcUnary,
    /// A bidirectional gRPC stream: so many messages, each sent once the echo of the one before arrived.
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

/// When the run is over.
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
    /// Where the requests go; scheme `http`, path and query as sent.
    pub url: Uri,
    /// The resolved address.
    pub target: SocketAddr,
    /// What one request is.
    pub kind: Kind,
    /// One client = one connection at a time, with a weight each: its share of the requests.
    pub weights: Vec<u32>,
    /// Requests in flight at most on one connection.
    pub streams: u32,
    /// When it is over.
    pub budget: Budget,
    /// Requests per second over all clients (open loop); `None`: as fast as answers come (closed loop).
    pub rate: Option<f64>,
    /// Bytes of payload in a request (gRPC: in a message).
    pub payload: usize,
    /// A request that takes longer than this has failed.
    pub timeout: Duration,
    /// When connections are renewed.
    pub renewal: Renewal,
    /// Local addresses, taken in turn by the connections; empty: the kernel's choice.
    pub sources: Vec<IpAddr>,
}

/// A setting that makes no sense.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlanError {
    /// Not an `http` URL, or one without a host.
    #[error("URL `{0}`: expected http://HOST:PORT[/PATH] (TLS is not supported)")]
    Url(String),
    /// Zero where at least one is needed.
    #[error("--{0} is 0, at least 1 is needed")]
    Zero(&'static str),
    /// The weights do not fit the connections.
    #[error("--weights has {weights} values for {connections} connections, one each is needed")]
    Weights {
        /// Weights given.
        weights: usize,
        /// Connections asked for.
        connections: usize,
    },
    /// A rate that is not a positive number.
    #[error("--rate must be a positive number of requests per second")]
    Rate,
    /// HTTP/1.1 has no concurrent streams.
    #[error(
        "--streams {0} with --http1: an HTTP/1.1 connection carries one request at a time, use --connections"
    )]
    Http1Streams(u32),
}

impl Plan {
    /// Refuses settings that would do nothing or not what they say.
    pub fn validate(&self) -> Result<(), PlanError> {
        let zero = [
            ("connections", self.weights.is_empty()),
            ("streams", self.streams == 0),
            ("weights", self.weights.iter().all(|weight| *weight == 0)),
            ("requests", self.budget == Budget::Requests(0)),
            ("duration", self.budget == Budget::Duration(Duration::ZERO)),
            ("timeout", self.timeout.is_zero()),
            ("reconnect-every", self.renewal.after_requests == Some(0)),
            (
                "connection-lifetime",
                self.renewal.after == Some(Duration::ZERO),
            ),
            ("messages", self.kind == Kind::GrpcStream { messages: 0 }),
        ];
        if let Some((name, _)) = zero.into_iter().find(|(_, is_zero)| *is_zero) {
            return Err(PlanError::Zero(name));
        }
        if self.url.scheme_str() != Some("http") || self.url.authority().is_none() {
            return Err(PlanError::Url(self.url.to_string()));
        }
        if self
            .rate
            .is_some_and(|rate| !rate.is_finite() || rate <= 0.0)
        {
            return Err(PlanError::Rate);
        }
        if matches!(self.kind, Kind::Http1 { .. }) && self.streams != 1 {
            return Err(PlanError::Http1Streams(self.streams));
        }
        Ok(())
    }

    /// Concurrent streams of each client. In a closed loop over time concurrency is what sets the pace, so it is
    /// there that the weights act: the heaviest client gets all of `streams`, a lighter one its part, at least one.
    pub fn concurrency(&self) -> Vec<u32> {
        let closed_over_time = self.rate.is_none() && matches!(self.budget, Budget::Duration(_));
        let heaviest = self.weights.iter().copied().max().unwrap_or(1).max(1);
        let share = |weight: &u32| match (weight, closed_over_time) {
            (0, _) => 0,
            (_, false) => self.streams,
            (weight, true) => {
                let share = u64::from(self.streams) * u64::from(*weight) / u64::from(heaviest);
                u32::try_from(share).unwrap_or(self.streams).max(1)
            }
        };
        self.weights.iter().map(share).collect()
    }

    /// `total` requests shared out by weight; every one is given to somebody.
    pub fn quotas(&self, total: u64) -> Vec<u64> {
        let mut turns = Turns::new(&self.weights);
        let sum: u64 = self
            .weights
            .iter()
            .copied()
            .map(u64::from)
            .sum::<u64>()
            .max(1);
        let (rounds, rest) = (total / sum, total % sum);
        let mut quotas: Vec<u64> = self
            .weights
            .iter()
            .map(|weight| u64::from(*weight) * rounds)
            .collect();
        for _ in 0..rest {
            quotas[turns.next()] += 1;
        }
        quotas
    }
}

/// Smooth weighted round-robin: any run of `sum(weights)` turns gives each client exactly its weight, and heavy ones
/// are spread out instead of bunched.
#[derive(Debug)]
pub struct Turns {
    weights: Vec<u32>,
    credit: Vec<i64>,
    sum: i64,
}

impl Turns {
    /// Starts with everybody at zero credit.
    pub fn new(weights: &[u32]) -> Self {
        let sum = weights.iter().copied().map(i64::from).sum();
        Self {
            weights: weights.to_vec(),
            credit: vec![0; weights.len()],
            sum,
        }
    }

    /// The client whose turn it is (0 when there is none at all).
    #[expect(
        clippy::should_implement_trait,
        reason = "never ends, so Option would only have to be unwrapped"
    )]
    pub fn next(&mut self) -> usize {
        let mut best = 0;
        for (client, weight) in self.weights.iter().enumerate() {
            self.credit[client] += i64::from(*weight);
            if self.credit[client] > self.credit[best] {
                best = client;
            }
        }
        if let Some(credit) = self.credit.get_mut(best) {
            *credit -= self.sum;
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(weights: &[u32], budget: Budget) -> Plan {
        Plan {
            url: Uri::from_static("http://127.0.0.1:1/"),
            target: SocketAddr::from(([127, 0, 0, 1], 1)),
            kind: Kind::Http2,
            weights: weights.to_vec(),
            streams: 20,
            budget,
            rate: None,
            payload: 0,
            timeout: Duration::from_secs(1),
            renewal: Renewal::default(),
            sources: Vec::new(),
        }
    }

    #[test]
    fn every_request_is_given_to_somebody() {
        for total in [1, 7, 100, 1009] {
            let quotas = plan(&[20, 1, 1, 3], Budget::Requests(total)).quotas(total);
            assert_eq!(quotas.iter().sum::<u64>(), total);
        }
    }

    #[test]
    fn quotas_follow_the_weights() {
        assert_eq!(
            plan(&[8, 1, 1], Budget::Requests(1)).quotas(1000),
            [800, 100, 100]
        );
    }

    #[test]
    fn turns_spread_the_heavy_client_out() {
        let mut turns = Turns::new(&[2, 1, 1]);
        let order: Vec<usize> = (0..8).map(|_| turns.next()).collect();
        assert_eq!(order, [0, 1, 2, 0, 0, 1, 2, 0]);
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

    #[test]
    fn settings_that_do_nothing_are_refused() {
        assert_eq!(
            plan(&[], Budget::Requests(1)).validate(),
            Err(PlanError::Zero("connections"))
        );
        assert_eq!(
            plan(&[1], Budget::Requests(0)).validate(),
            Err(PlanError::Zero("requests"))
        );
        let mut http1 = plan(&[1], Budget::Requests(1));
        http1.kind = Kind::Http1 { keep_alive: true };
        assert_eq!(http1.validate(), Err(PlanError::Http1Streams(20)));
    }
}
