//! What the backend answers to plain (not gRPC) requests, the same over both protocols.

use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};

use super::Backend;
use crate::load::STATS_PATH;

/// The longest body `/evenkeel/bytes/N` gives.
pub const MOST_BYTES: u64 = 1 << 30;

const BYTES_PATH: &str = "/evenkeel/bytes/";
/// `content-type` of every plain answer (filler included: nobody looks at it).
pub(super) const TYPE: &str = "application/json";

static FILLER: [u8; 16 * 1024] = [b'.'; 16 * 1024];

/// A response body: one small piece, or filler of a given length.
pub(super) enum Content {
    Small(Option<Bytes>),
    Filler { left: u64 },
}

/// The answer to `path` for `client`, who may have asked for a size.
pub(super) fn answer(
    path: &str,
    wanted_size: Option<u64>,
    client: SocketAddr,
    backend: &Backend,
) -> Content {
    let of_path = path
        .strip_prefix(BYTES_PATH)
        .and_then(|length| length.parse::<u64>().ok());
    if let Some(length) = of_path.or(wanted_size) {
        return Content::Filler {
            left: length.min(MOST_BYTES),
        };
    }
    let stats = backend.stats();
    let body = if path == STATS_PATH {
        serde_json::json!(stats)
    } else {
        serde_json::json!({ "backend": stats.name, "client": client.to_string(), "path": path })
    };
    Content::Small(Some(Bytes::from(format!("{body}\n"))))
}

impl Content {
    /// The next piece of at most 16 KiB, `None` at the end.
    pub(super) fn next_piece(&mut self) -> Option<Bytes> {
        match self {
            Self::Small(whole) => whole.take(),
            Self::Filler { left: 0 } => None,
            Self::Filler { left } => {
                let length = FILLER
                    .len()
                    .min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left -= length as u64;
                Some(Bytes::from_static(&FILLER[..length]))
            }
        }
    }

    fn left(&self) -> u64 {
        match self {
            Self::Small(whole) => whole.as_ref().map_or(0, |whole| whole.len() as u64),
            Self::Filler { left } => *left,
        }
    }
}

impl Body for Content {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Poll::Ready(self.next_piece().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left() == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left())
    }
}
