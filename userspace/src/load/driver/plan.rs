//! What a run of the load driver does: the validated settings.

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
use crate::load::distribution::{LARGEST, Sizes};
use crate::load::echo::content::MOST_BYTES;
use crate::load::{GRPC_STREAM, GRPC_UNARY};

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
    /// Weights that a closed loop over time cannot give.
    #[error(
        "--weights with --streams {streams} and no --rate: in a closed loop over time a client's share is its part of \
         --streams, and the lightest would get less than one stream beside the heaviest: use --rate or --schedule, \
         --requests, or --streams {needed} or more"
    )]
    Shares {
        /// Streams that the heaviest client gets.
        streams: u32,
        /// With so many the lightest gets one.
        needed: u32,
    },
    /// A rate that is not a positive number.
    #[error("--rate must be a positive number of requests per second")]
    Rate,
    /// HTTP/1.1 has no concurrent streams.
    #[error(
        "--streams {0} with --http1: an HTTP/1.1 connection carries one request at a time, use --connections"
    )]
    Http1Streams(u32),
    /// Nobody to send to.
    #[error("no address to send requests to")]
    NoAddress,
    /// More than an echo backend gives.
    #[error("--response-size {found}: an echo backend gives at most {most} bytes")]
    ResponseSize {
        /// What was asked for.
        found: u64,
        /// What there is.
        most: u64,
    },
    /// A stream is that of the echo service.
    #[error(
        "URL path `{0}` with --grpc stream: only the echo service answers each message with its echo, leave the path out"
    )]
    PathOfStream(String),
    /// Not a request for an answer.
    #[error("--method CONNECT: it makes a tunnel, there is nothing to measure")]
    Tunnel,
    /// An answer to HEAD has no body.
    #[error("--response-size with --method HEAD: such an answer has no body")]
    ResponseOfHead,
    /// A stream of messages has no one response.
    #[error("--response-size with --grpc stream: each message is answered by itself")]
    ResponseOfStream,
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
            ("threads", self.threads == 0),
            ("resolve-every", self.resolve_every == Some(Duration::ZERO)),
        ];
        if let Some((name, _)) = zero.into_iter().find(|(_, is_zero)| *is_zero) {
            return Err(PlanError::Zero(name));
        }
        if self.url.scheme_str() != Some("http") || self.url.authority().is_none() {
            return Err(PlanError::Url(self.url.to_string()));
        }
        if self.addresses.iter().all(Vec::is_empty) {
            return Err(PlanError::NoAddress);
        }
        if matches!(self.kind, Kind::Http1 { .. }) && self.streams != 1 {
            return Err(PlanError::Http1Streams(self.streams));
        }
        if self.method == Some(Method::CONNECT) {
            return Err(PlanError::Tunnel);
        }
        if matches!(self.kind, Kind::GrpcStream { .. })
            && !["/", GRPC_STREAM].contains(&self.url.path())
        {
            return Err(PlanError::PathOfStream(self.url.path().to_owned()));
        }
        self.validate_weights()?;
        self.validate_response_size()
    }

    /// Where weights act through the concurrency, there must be enough of it for them to be what they say.
    fn validate_weights(&self) -> Result<(), PlanError> {
        let some = || self.weights.iter().copied().filter(|weight| *weight > 0);
        let (Some(lightest), Some(heaviest)) = (some().min(), some().max()) else {
            return Ok(());
        };
        // A hundredth of a stream is not missed: Zipf weights are rounded.
        let needed = heaviest.saturating_sub(lightest / 100).div_ceil(lightest);
        if self.is_closed_over_time() && self.streams < needed {
            return Err(PlanError::Shares {
                streams: self.streams,
                needed,
            });
        }
        Ok(())
    }

    fn validate_response_size(&self) -> Result<(), PlanError> {
        let most = match self.kind {
            Kind::GrpcUnary | Kind::GrpcStream { .. } => LARGEST as u64,
            Kind::Http2 | Kind::Http1 { .. } => MOST_BYTES,
        };
        match (&self.response_size, self.kind) {
            (Some(_), Kind::GrpcStream { .. }) => Err(PlanError::ResponseOfStream),
            (Some(_), _) if self.method == Some(Method::HEAD) => Err(PlanError::ResponseOfHead),
            (Some(Sizes::Fixed(found)), _) if *found as u64 > most => {
                Err(PlanError::ResponseSize {
                    found: *found as u64,
                    most,
                })
            }
            _ => Ok(()),
        }
    }

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

    #[test]
    fn weights_that_a_closed_loop_over_time_cannot_give_are_refused() {
        let mut plan = plan(&[10, 1, 0], Budget::Duration(Duration::from_secs(1)));
        for (streams, refused) in [(1, true), (9, true), (10, false)] {
            plan.streams = streams;
            let needed = PlanError::Shares {
                streams,
                needed: 10,
            };
            assert_eq!(plan.validate().err(), refused.then_some(needed));
        }
        plan.weights = vec![1_000_000, 500_000, 333_333];
        plan.streams = 3;
        assert_eq!(plan.validate(), Ok(()));
        assert_eq!(plan.concurrency(), [3, 2, 1]);
        plan.streams = 1;
        plan.schedule = Some(Schedule::Const(5.0));
        assert_eq!(plan.validate(), Ok(()));
        plan.schedule = None;
        plan.budget = Budget::Requests(5);
        assert_eq!(plan.validate(), Ok(()));
    }

    #[test]
    fn settings_that_do_nothing_are_refused() {
        let refused = |change: fn(&mut Plan)| {
            let mut plan = plan(&[1], Budget::Requests(1));
            change(&mut plan);
            plan.validate().expect_err("refused")
        };
        assert_eq!(
            refused(|plan| plan.weights = Vec::new()),
            PlanError::Zero("connections")
        );
        assert_eq!(
            refused(|plan| plan.budget = Budget::Requests(0)),
            PlanError::Zero("requests")
        );
        assert_eq!(
            refused(|plan| plan.kind = Kind::Http1 { keep_alive: true }),
            PlanError::Http1Streams(20)
        );
        assert_eq!(
            refused(|plan| plan.addresses = Vec::new()),
            PlanError::NoAddress
        );
        assert_eq!(
            refused(|plan| plan.method = Some(Method::CONNECT)),
            PlanError::Tunnel
        );
        assert_eq!(
            refused(|plan| {
                plan.kind = Kind::GrpcStream { messages: 1 };
                plan.url = Uri::from_static("http://127.0.0.1:1/pkg.Service/Method");
            }),
            PlanError::PathOfStream("/pkg.Service/Method".to_owned())
        );
        assert_eq!(
            refused(|plan| {
                plan.kind = Kind::GrpcUnary;
                plan.response_size = Some(Sizes::Fixed(1 << 30));
            }),
            PlanError::ResponseSize {
                found: MOST_BYTES,
                most: 16 << 20
            }
        );
    }
}
