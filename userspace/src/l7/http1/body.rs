//! Content that is counted on its way, and keeps its request in flight until it ends.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::activity::Activity;
use crate::l7::registry::Open;
use crate::l7::stats::InFlight;
use crate::l7::upstream::Pool;

/// Content of a request, on its way to a backend.
pub struct Upload {
    /// As it comes from the client.
    pub content: Incoming,
    /// Whose counters it counts in.
    pub pool: Rc<Pool>,
    /// Where it says that it moves.
    pub activity: Rc<Activity>,
}

/// What a client gets: a backend's response, or an answer of ours.
pub enum Reply {
    /// From a backend.
    Backend {
        /// As it comes from the backend.
        content: Incoming,
        /// Ends when the content does.
        outcome: Outcome,
    },
    /// From us.
    Own(Option<Bytes>),
}

/// A request in flight: `ok` once its response has been passed on to the end, else nothing moved for too long, or the client
/// left it.
pub struct Outcome {
    pool: Rc<Pool>,
    _in_flight: InFlight,
    _open: Open,
    activity: Rc<Activity>,
    settled: bool,
}

// === impl Outcome ===

impl Outcome {
    /// A request that is being sent to a backend.
    pub fn new(pool: Rc<Pool>, in_flight: InFlight, open: Open, activity: Rc<Activity>) -> Self {
        pool.counters().opened.add(1);
        Self {
            pool,
            _in_flight: in_flight,
            _open: open,
            activity,
            settled: false,
        }
    }

    /// The response is complete.
    pub fn ok(&mut self) {
        if !std::mem::replace(&mut self.settled, true) {
            self.pool.counters().ok.add(1);
        }
    }

    /// The backend could not be reached: the request goes to another.
    pub fn elsewhere(&mut self) {
        if !std::mem::replace(&mut self.settled, true) {
            self.pool.counters().retried.add(1);
        }
    }

    /// The backend's connection was lost.
    pub fn failed(&mut self) {
        if !std::mem::replace(&mut self.settled, true) {
            self.pool.counters().failed.add(1);
        }
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        if self.settled {
            return;
        }
        let counters = self.pool.counters();
        if self.activity.is_expired() {
            counters.timed_out.add(1);
        } else {
            counters.reset_by_client.add(1);
        }
    }
}

// === impl Upload ===

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.content).poll_frame(cx));
        if let Some(Ok(frame)) = &frame {
            self.activity.moved();
            let bytes = frame.data_ref().map_or(0, Buf::remaining);
            self.pool.counters().request_bytes.add(bytes as u64);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.content.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.content.size_hint()
    }
}

// === impl Reply ===

impl Body for Reply {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Own(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Backend { content, outcome } => {
                let frame = ready!(Pin::new(&mut *content).poll_frame(cx));
                match &frame {
                    Some(Ok(frame)) => {
                        outcome.activity.moved();
                        let bytes = frame.data_ref().map_or(0, Buf::remaining);
                        outcome.pool.counters().response_bytes.add(bytes as u64);
                        if content.is_end_stream() {
                            outcome.ok();
                        }
                    }
                    Some(Err(_)) => outcome.failed(),
                    None => outcome.ok(),
                }
                Poll::Ready(frame)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(text) => text.is_none(),
            Self::Backend { content, .. } => content.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(text) => SizeHint::with_exact(text.as_ref().map_or(0, Bytes::len) as u64),
            Self::Backend { content, .. } => content.size_hint(),
        }
    }
}
