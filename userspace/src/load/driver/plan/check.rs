//! Which settings make no sense.

use http::Method;
use std::time::Duration;

use super::{Budget, Kind, Plan};
use crate::load::GRPC_STREAM;
use crate::load::distribution::{LARGEST, Sizes};
use crate::load::echo::content::MOST_BYTES;

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
}

#[cfg(test)]
mod tests {
    use http::Uri;

    use super::super::tests::plan;
    use super::*;
    use crate::load::driver::schedule::Schedule;

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
