//! One request and its answer, as the task of the connection fills it and the one who asked takes it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::Reason;
use h2::frame::StreamId;
use http::{HeaderMap, StatusCode};

use super::super::rpc::Trouble;
use super::{Out, STREAM_WINDOW, Shared};
use crate::load::arrival::Arrival;

/// Bytes taken of a stream before its window is told; a part of it, so that the peer never waits for that.
const TELL_AFTER: u32 = STREAM_WINDOW / 4;

/// The head of an answer.
pub(in super::super) struct Head {
    pub(in super::super) status: StatusCode,
    pub(in super::super) fields: HeaderMap,
}

/// A stream; dropped before both sides ended it is reset.
pub(in super::super) struct Stream {
    shared: Rc<Shared>,
    id: StreamId,
    state: Rc<State>,
    /// Bytes taken and not told.
    taken: u32,
}

/// Our side of a stream.
pub(in super::super) struct Sender {
    shared: Rc<Shared>,
    id: StreamId,
    state: Rc<State>,
}

/// What is known of a stream.
pub(super) struct State {
    pub(super) received: RefCell<Received>,
    /// Whether we ended our side.
    sent_end: Cell<bool>,
    /// A piece of data of ours is to be sent.
    pub(super) queued: Cell<bool>,
    /// What we may send.
    pub(super) window: Cell<i64>,
    waker: RefCell<Option<Waker>>,
}

/// The peer's side.
#[derive(Default)]
pub(super) struct Received {
    pub(super) head: Option<Head>,
    /// Whether there was a head, taken or not.
    pub(super) headed: bool,
    pub(super) pieces: VecDeque<Bytes>,
    pub(super) trailers: Option<HeaderMap>,
    /// The end, once it came.
    pub(super) ended: Option<Arrival>,
    pub(super) failed: Option<Trouble>,
    /// Bytes of `pieces`.
    pub(super) unread: u32,
    /// Bytes that are still to come, where the head said how many.
    pub(super) left: Option<u64>,
}

// === impl State ===

impl State {
    pub(super) fn new(window: i64, sent_end: bool) -> Self {
        Self {
            received: RefCell::default(),
            sent_end: Cell::new(sent_end),
            queued: Cell::new(false),
            window: Cell::new(window),
            waker: RefCell::new(None),
        }
    }

    /// Wakes whoever waits for it; once for all that comes before it runs.
    pub(super) fn wake(&self) {
        if let Some(waker) = self.waker.borrow_mut().take() {
            waker.wake();
        }
    }

    /// It failed, unless it had ended.
    pub(super) fn fail(&self, trouble: Trouble) {
        let mut received = self.received.borrow_mut();
        if received.ended.is_none() {
            received.failed.get_or_insert(trouble);
        }
        drop(received);
        self.wake();
    }

    fn wait(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        match &*waker {
            Some(known) if known.will_wake(cx.waker()) => {}
            _ => *waker = Some(cx.waker().clone()),
        }
    }
}

// === impl Received ===

impl Received {
    /// The peer ended its side with what arrived then; false when less came than it had said.
    pub(super) fn end(&mut self, arrival: Arrival) -> bool {
        let whole = self.left.is_none_or(|left| left == 0);
        self.ended = whole.then_some(arrival);
        whole
    }
}

// === impl Stream ===

impl Stream {
    pub(super) fn new(shared: Rc<Shared>, id: StreamId, state: Rc<State>) -> Self {
        Self {
            shared,
            id,
            state,
            taken: 0,
        }
    }

    /// Whether the peer has ended its side, and all of it was taken.
    pub(in super::super) fn is_over(&self) -> bool {
        let received = self.state.received.borrow();
        received.ended.is_some() && received.pieces.is_empty() && received.trailers.is_none()
    }

    /// The head of the answer.
    pub(in super::super) async fn head(&mut self) -> Result<Head, Trouble> {
        poll_fn(|cx| {
            let mut received = self.state.received.borrow_mut();
            match (received.head.take(), &received.failed) {
                (Some(head), _) => Poll::Ready(Ok(head)),
                (None, Some(trouble)) => Poll::Ready(Err(trouble.clone())),
                (None, None) => {
                    self.state.wait(cx);
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// The next piece of the answer; `None` at its end.
    pub(in super::super) async fn piece(&mut self) -> Option<Result<Bytes, Trouble>> {
        let piece = poll_fn(|cx| {
            let mut received = self.state.received.borrow_mut();
            if let Some(piece) = received.pieces.pop_front() {
                // A piece came in a frame, whose length has 24 bits.
                received.unread -= u32::try_from(piece.len()).unwrap_or(u32::MAX);
                return Poll::Ready(Some(Ok((piece, received.ended.is_some()))));
            }
            match &received.failed {
                _ if received.ended.is_some() => Poll::Ready(None),
                Some(trouble) => Poll::Ready(Some(Err(trouble.clone()))),
                None => {
                    self.state.wait(cx);
                    Poll::Pending
                }
            }
        });
        let (piece, ended) = match piece.await? {
            Ok(taken) => taken,
            Err(trouble) => return Some(Err(trouble)),
        };
        self.taken += u32::try_from(piece.len()).unwrap_or(u32::MAX);
        if self.taken >= TELL_AFTER && !ended {
            let bytes = std::mem::take(&mut self.taken);
            self.shared.send(Out::Window { id: self.id, bytes });
        }
        Some(Ok(piece))
    }

    /// The arrival of the peer's end; now, if that has not come.
    pub(in super::super) fn over(&self) -> Arrival {
        let received = self.state.received.borrow();
        received.ended.unwrap_or_else(Arrival::now)
    }

    /// The trailers, if there were any; once there are no more pieces.
    pub(in super::super) fn trailers(&mut self) -> Option<HeaderMap> {
        self.state.received.borrow_mut().trailers.take()
    }

    /// What sends on it, for who reads at the same time.
    pub(in super::super) fn sender(&self) -> Sender {
        Sender {
            shared: Rc::clone(&self.shared),
            id: self.id,
            state: Rc::clone(&self.state),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let received = self.state.received.borrow();
        let both_ended = received.ended.is_some() && self.state.sent_end.get();
        if !both_ended && received.failed.is_none() {
            self.shared.send(Out::Reset {
                id: self.id,
                reason: Reason::CANCEL,
            });
        }
        self.shared.forget(self.id);
    }
}

// === impl Sender ===

impl Sender {
    /// Sends `bytes` as the windows allow, and no more than the peer will take. A peer may answer, or reset, before it has
    /// read all of it; what it answered tells more, so this then simply ends.
    pub(in super::super) async fn send(&self, mut bytes: Bytes, end: bool) {
        while !bytes.is_empty() || (end && !self.state.sent_end.get()) {
            let Some(most) = poll_fn(|cx| self.room(cx, bytes.is_empty())).await else {
                return;
            };
            let piece = bytes.split_to(most.min(bytes.len()));
            let end = end && bytes.is_empty();
            let length = i64::try_from(piece.len()).unwrap_or(i64::MAX);
            self.state.window.set(self.state.window.get() - length);
            self.shared.window.set(self.shared.window.get() - length);
            self.state.sent_end.set(end);
            self.state.queued.set(true);
            let id = self.id;
            self.shared.send(Out::Data { id, piece, end });
        }
    }

    /// How many bytes may be sent now, some unless `nothing` is to be sent; `None` when the peer wants no more.
    fn room(&self, cx: &Context<'_>, nothing: bool) -> Poll<Option<usize>> {
        let received = self.state.received.borrow();
        if received.ended.is_some() || received.failed.is_some() {
            return Poll::Ready(None);
        }
        let window = self.state.window.get().min(self.shared.window.get());
        let window = usize::try_from(window).unwrap_or(0);
        if !self.state.queued.get() && (nothing || window > 0) {
            return Poll::Ready(Some(window.min(self.shared.largest_piece.get())));
        }
        self.state.wait(cx);
        Poll::Pending
    }
}
