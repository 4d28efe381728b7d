//! One stream, from the client's request to the end of the backend's response.
//!
//! 1. Choose a backend by the service's policy, and get a connection to it with room for one more stream.
//!    A new table that takes the backend away meanwhile has it choose again.
//! 2. Send the request; move its content ([`Pump`]) while it comes.
//! 3. Forward interim responses, the response, its content and trailers, each as it comes.
//!
//! How it can end otherwise:
//!
//! | what happens | what the other side sees |
//! | --- | --- |
//! | client resets, or goes | backend: RST_STREAM, same code (CANCEL if it went) |
//! | backend resets | client: RST_STREAM, same code, after all that came before it |
//! | backend: REFUSED_STREAM or GOAWAY below this stream, replay possible | client: nothing; another backend is tried |
//! | no backend, or connection lost before the response | client: the answer in [`respond`](super::respond) |
//! | connection lost after the response began | client: RST_STREAM INTERNAL_ERROR |
//! | nothing moved for [`Limits::stream_idle_timeout_ms`] | backend: RST_STREAM CANCEL; client: the same once the response began, before it the answer in [`respond`](super::respond) |
//!
//! Only what the backend is known not to have looked at is retried (RFC 9113, section 8.7), at most `retries` times. The search
//! for a backend that can be reached ends after [`Limits::search_time`].
//!
//! [`Limits::stream_idle_timeout_ms`]: super::limits::Limits::stream_idle_timeout_ms
//! [`Limits::search_time`]: super::limits::Limits::search_time

mod ending;
mod opening;

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::client::ResponseFuture;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{Request, Response};
use tokio::time::Instant;

use super::downstream::Client;
use super::pump::{Pump, Pumped, Watch};
use super::registry::Open;
use super::replay::{Keep, Replay};
use super::respond::{Failure, is_grpc};
use super::stats::{BackendCounters, Counter, InFlight};
use super::upstream::Ticket;
use super::worker::View;

/// A stream being forwarded.
pub struct Exchange {
    client: Rc<Client>,
    _open: Open,
    view: Rc<View>,
    head: Request<()>,
    without_content: bool,
    /// The request's content, until its end was handed over.
    upload: Option<Pump>,
    replay: Replay,
    respond: SendResponse<Bytes>,
    /// Backends that refused, and the reset that one of them gave.
    tried: Vec<usize>,
    refused: Option<Reason>,
    /// Attempts that a backend refused.
    refusals: u32,
    /// Times it was placed on another backend, by a new table.
    placed_again: u32,
    /// When the search for a backend that can be reached ends, once one could not.
    search_ends: Option<Instant>,
    attempt: Option<Attempt>,
    response: ResponseState,
    /// The reset that the client gets once all that came before it is on its way.
    parting: Option<Reason>,
    /// Milliseconds of the worker's tick before something was passed on last: a store for each chunk, and no timer.
    moved_at: u64,
    /// That was too long ago.
    idle: bool,
}

struct Attempt {
    position: usize,
    _in_flight: InFlight,
    opened: Option<Opened>,
}

struct Opened {
    send: SendStream<Bytes>,
    response: ResponseFuture,
    _ticket: Ticket,
}

enum ResponseState {
    Awaited,
    Content { pump: Pump, send: SendStream<Bytes> },
    Done { send: SendStream<Bytes> },
}

/// Answers a stream whose service is gone.
pub fn refuse(mut respond: SendResponse<Bytes>, request: &Request<RecvStream>) {
    let response = Failure::NoService.response(is_grpc(request.headers()));
    // An error means that the client has gone.
    let _ = respond.send_response(response, true);
}

/// Counts response content, and what the client earns by it.
struct Deliver<'a> {
    client: &'a Client,
    moved_at: &'a mut u64,
    bytes: &'a Counter,
}

impl Watch for Deliver<'_> {
    fn chunk(&mut self, chunk: &Bytes, _last: bool) {
        self.bytes.add(chunk.len() as u64);
        self.client.io.earn(|guard| guard.data_sent(chunk.len()));
        *self.moved_at = self.client.worker.now();
    }

    fn trailers(&mut self) {
        *self.moved_at = self.client.worker.now();
    }
}

// === impl Exchange ===

impl Exchange {
    /// An exchange that has yet to choose a backend.
    pub fn new(
        client: Rc<Client>,
        open: Open,
        view: Rc<View>,
        request: Request<RecvStream>,
        respond: SendResponse<Bytes>,
    ) -> Self {
        let (mut parts, content) = request.into_parts();
        // `h2` accepts a request without `:authority` only if it does not claim to be HTTP/2.
        if parts.uri.authority().is_none() {
            parts.version = http::Version::HTTP_11;
        }
        let without_content = content.is_end_stream();
        let room = client.worker.limits.replay_bytes;
        let now = client.worker.now();
        Self {
            client,
            _open: open,
            view,
            head: Request::from_parts(parts, ()),
            without_content,
            upload: (!without_content).then(|| Pump::new(content)),
            replay: Replay::new(room),
            respond,
            tried: Vec::new(),
            refused: None,
            refusals: 0,
            placed_again: 0,
            search_ends: None,
            attempt: None,
            response: ResponseState::Awaited,
            parting: None,
            moved_at: now,
            idle: false,
        }
    }

    /// Milliseconds of the worker's tick before something was passed on last, in either direction.
    pub fn moved_at(&self) -> u64 {
        self.moved_at
    }

    /// Nothing was passed on for too long: the exchange ends when it is polled next.
    pub fn end_as_idle(&mut self) {
        self.idle = true;
    }

    fn drive(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(reason) = self.parting {
            self.reset_client(reason);
            return Poll::Ready(());
        }
        if self.idle {
            self.time_out();
            return Poll::Ready(());
        }
        loop {
            if self.opened().is_none() {
                match self.open(cx) {
                    Poll::Ready(true) => {}
                    Poll::Ready(false) => return Poll::Ready(()),
                    Poll::Pending => break,
                }
            }
            if self.upload(cx).is_ready() {
                return Poll::Ready(());
            }
            match self.download(cx) {
                // Refused: open again.
                Poll::Ready(true) => {}
                Poll::Ready(false) => return Poll::Ready(()),
                Poll::Pending => break,
            }
        }
        // Last, so that an exchange that is done by now need not ask.
        let reason = ready!(self.client_reset(cx));
        self.abandon(reason);
        Poll::Ready(())
    }

    fn opened(&mut self) -> Option<&mut Opened> {
        self.attempt.as_mut()?.opened.as_mut()
    }

    fn counters(&self) -> Option<&BackendCounters> {
        let position = self.attempt.as_ref()?.position;
        Some(self.view.pools[position].counters())
    }

    /// The code with which the client gave up, if it did.
    fn client_reset(&mut self, cx: &mut Context<'_>) -> Poll<Reason> {
        let reset = match &mut self.response {
            ResponseState::Awaited => self.respond.poll_reset(cx),
            ResponseState::Content { send, .. } | ResponseState::Done { send } => {
                send.poll_reset(cx)
            }
        };
        reset.map(|reset| reset.unwrap_or(Reason::CANCEL))
    }

    /// Moves request content; `Ready` when the exchange is over by it.
    fn upload(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(Attempt {
            position,
            opened: Some(opened),
            ..
        }) = &mut self.attempt
        else {
            return Poll::Pending;
        };
        let Some(pump) = &mut self.upload else {
            return Poll::Pending;
        };
        let mut keep = Keep {
            replay: &mut self.replay,
            bytes: &self.view.pools[*position].counters().request_bytes,
            moved_at: &mut self.moved_at,
            now: self.client.worker.now(),
        };
        match ready!(pump.poll(&mut opened.send, &mut keep, cx)) {
            Pumped::Done => self.upload = None,
            Pumped::Reset(reason) => {
                self.abandon(reason);
                return Poll::Ready(());
            }
            Pumped::Lost => {
                self.abandon(Reason::CANCEL);
                return Poll::Ready(());
            }
            // The response tells why. The pump stays: another backend may want the rest.
            Pumped::Refused => {}
        }
        Poll::Pending
    }

    /// Moves the response; true when another backend is to be tried, false when the exchange is over.
    fn download(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if matches!(self.response, ResponseState::Awaited) {
            match ready!(self.await_response(cx)) {
                Ok(()) => {}
                Err(error) => return Poll::Ready(self.failed(&error)),
            }
        }
        if matches!(self.response, ResponseState::Content { .. }) {
            ready!(self.deliver(cx));
        }
        self.linger(cx).map(|()| false)
    }

    /// Forwards interim responses and the head of the response.
    fn await_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        let Some(opened) = self.attempt.as_mut().and_then(|a| a.opened.as_mut()) else {
            return Poll::Pending;
        };
        while let Some(interim) = ready!(opened.response.poll_informational(cx)) {
            // An error means that the client has gone, which `client_reset` sees.
            let _ = self.respond.send_informational(interim?);
            self.moved_at = self.client.worker.now();
        }
        let (head, content) = ready!(Pin::new(&mut opened.response).poll(cx))?.into_parts();
        let ends = content.is_end_stream();
        self.moved_at = self.client.worker.now();
        match self
            .respond
            .send_response(Response::from_parts(head, ()), ends)
        {
            Ok(send) if ends => {
                self.response = ResponseState::Done { send };
                self.answered();
            }
            Ok(send) => {
                self.response = ResponseState::Content {
                    pump: Pump::new(content),
                    send,
                };
            }
            // The client has gone; the task learns it from the connection.
            Err(_) => return Poll::Pending,
        }
        Poll::Ready(Ok(()))
    }

    /// Moves response content.
    fn deliver(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let position = self.attempt.as_ref().map_or(0, |attempt| attempt.position);
        let ResponseState::Content { pump, send } = &mut self.response else {
            return Poll::Ready(());
        };
        let mut deliver = Deliver {
            client: &self.client,
            moved_at: &mut self.moved_at,
            bytes: &self.view.pools[position].counters().response_bytes,
        };
        match ready!(pump.poll(send, &mut deliver, cx)) {
            Pumped::Done => {
                let state = std::mem::replace(&mut self.response, ResponseState::Awaited);
                if let ResponseState::Content { send, .. } = state {
                    self.response = ResponseState::Done { send };
                }
                self.answered();
                Poll::Ready(())
            }
            Pumped::Reset(reason) => {
                if let Some(counters) = self.counters() {
                    counters.reset_by_backend.add(1);
                }
                self.part(reason, cx)
            }
            Pumped::Lost => {
                if let Some(counters) = self.counters() {
                    counters.failed.add(1);
                }
                self.part(Reason::INTERNAL_ERROR, cx)
            }
            // The client has gone, which `client_reset` sees next.
            Pumped::Refused => Poll::Pending,
        }
    }

    /// Resets the client's stream at the next turn, when the connection has sent what came before.
    fn part(&mut self, reason: Reason, cx: &mut Context<'_>) -> Poll<()> {
        self.parting = Some(reason);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// After the response: the request may still be coming, and the backend may still want it.
    fn linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.upload.is_none() {
            return Poll::Ready(());
        }
        let Some(opened) = self.opened() else {
            return Poll::Ready(());
        };
        match ready!(opened.send.poll_reset(cx)) {
            // Dropping the client's stream sends NO_ERROR behind the response.
            Ok(Reason::NO_ERROR) | Err(_) => Poll::Ready(()),
            Ok(reason) => self.part(reason, cx),
        }
    }
}

impl Future for Exchange {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.get_mut().drive(cx)
    }
}
