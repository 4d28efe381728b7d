//! When something of a connection's request moved last, and the end of one in which nothing does
//! ([`Limits::stream_idle_timeout_ms`](crate::l7::limits::Limits::stream_idle_timeout_ms)).
//!
//! HTTP/1.1 has one request at a time on a connection, so this is of the connection. Before its response has begun a request
//! is answered; after that only the end of the connection tells the client that the rest will not come (RFC 9112,
//! section 8). What a tunnel does nobody can tell from silence, so none is ended.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::l7::worker::{TICK_MS, Worker};

/// What moves in the request of a connection.
pub struct Activity {
    worker: Rc<Worker>,
    /// In milliseconds, by the worker's clock.
    moved_at: Cell<u64>,
    /// Nothing moved for too long.
    expired: Cell<bool>,
    /// The request that waits for its response, if one does.
    waiting: RefCell<Option<Waker>>,
}

/// What a look at a request came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Look again then, in milliseconds.
    Again(u64),
    /// Its client gets an answer.
    Answers,
    /// Its response stopped: the connection is to end.
    Ends,
}

impl Activity {
    /// That of a new connection.
    pub fn new(worker: Rc<Worker>) -> Self {
        Self {
            moved_at: Cell::new(worker.now()),
            worker,
            expired: Cell::new(false),
            waiting: RefCell::default(),
        }
    }

    /// Takes down that something moved.
    pub fn moved(&self) {
        self.moved_at.set(self.worker.now());
    }

    /// Whether nothing moved for too long.
    pub fn is_expired(&self) -> bool {
        self.expired.get()
    }

    /// Waits for the response to a request that begins now, or until nothing has moved for too long, which is `None`.
    pub async fn until_expired<T>(&self, response: impl Future<Output = T>) -> Option<T> {
        self.moved();
        self.expired.set(false);
        let mut response = pin!(response);
        let response = poll_fn(|cx| {
            if self.expired.get() {
                return Poll::Ready(None);
            }
            let polled = response.as_mut().poll(cx).map(Some);
            *self.waiting.borrow_mut() = Some(cx.waker().clone());
            polled
        })
        .await;
        self.waiting.take();
        self.moved();
        response
    }

    /// When to look first at a request that begins now; `None` where requests may take any time.
    pub fn first_look(&self) -> Option<u64> {
        // What moved did so up to a tick after the one that it is noted with: never too early.
        let patience = self.worker.limits.stream_idle_timeout_ms;
        (patience > 0).then(|| self.worker.now() + patience + TICK_MS)
    }

    /// Looks whether anything moved of late.
    pub fn look(&self) -> Look {
        let patience = self.worker.limits.stream_idle_timeout_ms + TICK_MS;
        let due = self.moved_at.get() + patience;
        if self.worker.now() < due {
            return Look::Again(due);
        }
        self.expired.set(true);
        match self.waiting.take() {
            Some(request) => {
                request.wake();
                Look::Answers
            }
            None => Look::Ends,
        }
    }
}
