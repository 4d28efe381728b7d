//! The one place that turns a failure of ours into what a client understands.
//!
//! | failure | HTTP | gRPC |
//! | --- | --- | --- |
//! | no service, no backend, all backends down or full | 503 | 14 UNAVAILABLE |
//! | the backend's connection was lost before it answered | 502 | 14 UNAVAILABLE |
//! | nothing moved for `stream_idle_timeout_ms` | 504 | 4 DEADLINE_EXCEEDED |
//! | a transfer coding other than `chunked` | 501 | 12 UNIMPLEMENTED |
//! | the same in the backend's answer | 502 | 14 UNAVAILABLE |
//!
//! A gRPC client gets the failure as a trailers-only response: status 200 and `grpc-status` in the only header block.

use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response, StatusCode};

/// Why a stream could not be forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The address belongs to no service, or to one that takes no streams here.
    #[error("no such service here")]
    NoService,
    /// Nothing to choose from: none configured, all draining, all down or all full.
    #[error("no backend available")]
    NoBackend,
    /// The connection was lost before the response.
    #[error("backend connection lost")]
    UpstreamLost,
    /// Neither side moved for too long, and there was no response yet.
    #[error("stream idle for too long")]
    TimedOut,
    /// A transfer coding other than `chunked`, which only HTTP/1.1 has (RFC 9112, section 6.1).
    #[error("unknown transfer coding")]
    UnknownCoding,
    /// The same in a backend's answer.
    #[error("unknown transfer coding of the backend")]
    UnknownAnswer,
}

impl Failure {
    /// The status for HTTP clients.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::NoService | Self::NoBackend => StatusCode::SERVICE_UNAVAILABLE,
            Self::UpstreamLost | Self::UnknownAnswer => StatusCode::BAD_GATEWAY,
            Self::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Self::UnknownCoding => StatusCode::NOT_IMPLEMENTED,
        }
    }

    /// The `grpc-status` for gRPC clients.
    #[must_use]
    pub const fn grpc_status(self) -> HeaderValue {
        match self {
            Self::NoService | Self::NoBackend | Self::UpstreamLost | Self::UnknownAnswer => {
                HeaderValue::from_static("14")
            }
            Self::TimedOut => HeaderValue::from_static("4"),
            Self::UnknownCoding => HeaderValue::from_static("12"),
        }
    }

    const fn message(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::NoService => "evenkeel: no such service here",
            Self::NoBackend => "evenkeel: no backend available",
            Self::UpstreamLost => "evenkeel: backend connection lost",
            Self::TimedOut => "evenkeel: stream idle for too long",
            Self::UnknownCoding => "evenkeel: unknown transfer coding",
            Self::UnknownAnswer => "evenkeel: unknown transfer coding of the backend",
        })
    }

    /// The whole response, without content.
    #[must_use]
    pub fn response(self, grpc: bool) -> Response<()> {
        let mut response = Response::new(());
        if grpc {
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert("grpc-status", self.grpc_status());
            headers.insert("grpc-message", self.message());
        } else {
            *response.status_mut() = self.status();
        }
        response
    }
}

/// True for gRPC requests: `application/grpc`, alone or with a suffix such as `+proto`.
#[must_use]
pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        value
            .as_bytes()
            .strip_prefix(b"application/grpc")
            .is_some_and(|rest| matches!(rest.first(), None | Some(b'+' | b';')))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grpc_is_told_by_its_content_type() {
        for (value, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/grpc;charset=utf-8", true),
            ("application/grpc-web", false),
            ("application/json", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(value));
            assert_eq!(is_grpc(&headers), expected, "{value}");
        }
    }

    #[test]
    fn grpc_failures_are_trailers_only_with_status_200() {
        let response = Failure::NoBackend.response(true);
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["grpc-status"], "14");
        assert_eq!(
            Failure::UpstreamLost.response(false).status(),
            StatusCode::BAD_GATEWAY
        );
    }
}
