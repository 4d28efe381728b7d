//! One HTTP/2 connection of the driver: many streams over a socket, at little cost for each.
//!
//! What is received is read by `h2` ([`h2::Codec`]: frames and HPACK); what keeps streams, and what sends, is ours. A load generator says what a server
//! can do only as long as it is the faster of the two, and in `h2`'s own client a request cost half as much again as in
//! h2load: three fifths of the driver's time went into its table of streams behind a lock, the queues of frames in it,
//! and requests and responses built anew for each stream. A client whose requests are all alike needs less:
//!
//! | part | what it does |
//! | --- | --- |
//! | [`Mux`] | opens streams, as many at a time as the peer takes |
//! | [`template`] | the head of every request, worked out once |
//! | [`stream`] | one request and its answer: windows, pieces, how it ended |
//! | [`pump`] | the task of the connection: all that can be read, then all that is to be sent with one call |
//! | [`take`] | what each frame that was read does |
//!
//! Semantics are those of RFC 9113:
//! - no stream before the peer's SETTINGS, then as many as it says;
//! - a GOAWAY (section 6.8) or the last stream number stops new streams; streams above the GOAWAY's last one, and those
//!   reset with `REFUSED_STREAM`, were not processed; all others finish;
//! - data is sent as both windows allow (section 5.2). What was received is given back to the stream's window when it is
//!   taken, so that a stream holds [`STREAM_WINDOW`] bytes at most; the connection's window is the largest there is,
//!   because padding, which `h2` takes off unseen, is never given back;
//! - a stream that is dropped before both sides ended is reset with `CANCEL`; a connection whose last [`Mux`] is dropped
//!   finishes its streams, says GOAWAY, and closes.

mod pump;
mod stream;
mod take;
mod template;
#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;
use std::task::Waker;

use bytes::Bytes;
use h2::Reason;
use h2::frame::StreamId;
use tokio::sync::Notify;

pub(super) use pump::Pump;
use stream::State;
pub(super) use stream::{Head, Sender, Stream};
pub(super) use template::Template;

use super::dial::Socket;
use super::record::{Failed, Failure};
use super::rpc::Trouble;

/// The peer may send this much per stream before it is taken.
const STREAM_WINDOW: u32 = 1 << 20;
/// The largest window (RFC 9113, section 6.9.1).
const LARGEST_WINDOW: u32 = (1 << 31) - 1;
/// Windows before anybody said anything (RFC 9113, section 6.9.2).
const FIRST_WINDOW: u32 = 65_535;
/// A list of header fields longer than this is refused.
const HEADER_LIST: u32 = 16 * 1024;

/// Opens streams on a connection; while it is there the connection stays open.
pub(super) struct Mux(Rc<Shared>);

/// What the task of a connection, its streams, and its owner share.
struct Shared {
    template: Rc<Template>,
    /// To be sent, in order. As many as there are streams, a few times: each has at most its head, one piece of data, one
    /// window, and one reset in it.
    out: RefCell<VecDeque<Out>>,
    streams: RefCell<HashMap<u32, Rc<State>, BuildHasherDefault<ByNumber>>>,
    /// Wakes the task of the connection.
    pump: RefCell<Option<Waker>>,
    next: Cell<u32>,
    /// Whether the peer's SETTINGS came.
    settled: Cell<bool>,
    /// Streams that are open now, and how many the peer takes.
    open: Cell<usize>,
    most: Cell<usize>,
    /// Who waits for a stream, or for the SETTINGS.
    waiting: Cell<usize>,
    room: Notify,
    /// What may be sent on the connection, and on a new stream.
    window: Cell<i64>,
    first_window: Cell<i64>,
    /// Bytes of one DATA frame at most.
    largest_piece: Cell<usize>,
    /// Why there are no more streams.
    closed: RefCell<Option<Trouble>>,
    /// Whether the owner is gone.
    abandoned: Cell<bool>,
}

/// What is to be sent.
enum Out {
    Request {
        id: StreamId,
        end: bool,
        asked: Option<u64>,
    },
    Data {
        id: StreamId,
        piece: Bytes,
        end: bool,
    },
    Window {
        id: StreamId,
        bytes: u32,
    },
    Reset {
        id: StreamId,
        reason: Reason,
    },
}

/// Stream numbers are in no attacker's hand, they count: they are their own hash.
#[derive(Default)]
struct ByNumber(u64);

/// A place in the line of those who wait for a stream.
struct Waiting<'a>(&'a Shared);

// === impl Mux ===

impl Mux {
    /// A connection over `socket` whose requests begin with `template`; the task must be run.
    pub(super) fn new(socket: Socket, template: Rc<Template>) -> (Self, Pump) {
        let shared = Rc::new(Shared {
            template,
            out: RefCell::default(),
            streams: RefCell::default(),
            pump: RefCell::default(),
            next: Cell::new(1),
            open: Cell::new(0),
            settled: Cell::new(false),
            most: Cell::new(0),
            waiting: Cell::new(0),
            room: Notify::new(),
            window: Cell::new(FIRST_WINDOW.into()),
            first_window: Cell::new(FIRST_WINDOW.into()),
            largest_piece: Cell::new(h2::frame::DEFAULT_MAX_FRAME_SIZE as usize),
            closed: RefCell::default(),
            abandoned: Cell::new(false),
        });
        (Self(Rc::clone(&shared)), Pump::new(socket, shared))
    }

    /// Whether a new stream may be opened, now or once another ended.
    pub(super) fn takes_more(&self) -> bool {
        self.0.closed.borrow().is_none()
    }

    /// Resolves when the peer's SETTINGS came, with which its side begins (RFC 9113, section 3.4): whoever accepted speaks
    /// HTTP/2.
    pub(super) async fn met(&self) -> Result<(), Trouble> {
        let shared = &self.0;
        loop {
            if let Some(trouble) = &*shared.closed.borrow() {
                return Err(trouble.clone());
            }
            if shared.settled.get() {
                return Ok(());
            }
            let _waiting = Waiting::new(shared);
            shared.room.notified().await;
        }
    }

    /// Sends a request, which ends with its head if `end`, as soon as the peer takes one more stream. Where there are no more
    /// streams nothing was sent, whatever became of the connection: nobody can have processed the request.
    /// `asked` is how long an answer it asks for.
    pub(super) async fn open(&self, end: bool, asked: Option<u64>) -> Result<Stream, Trouble> {
        let shared = &self.0;
        loop {
            if let Some(trouble) = &*shared.closed.borrow() {
                return Err(Trouble::NotProcessed(trouble.clone().failed()));
            }
            if shared.open.get() < shared.most.get() {
                break;
            }
            let _waiting = Waiting::new(shared);
            shared.room.notified().await;
        }
        let number = shared.next.get();
        let id = StreamId::from(number);
        shared.next.set(number + 2);
        if number + 2 > u32::from(StreamId::MAX) {
            let cause = "the connection has no more stream numbers";
            shared.close(Trouble::NotProcessed(Failed::new(Failure::Refused, cause)));
        }
        shared.open.set(shared.open.get() + 1);
        let state = Rc::new(State::new(shared.first_window.get(), end));
        shared
            .streams
            .borrow_mut()
            .insert(number, Rc::clone(&state));
        shared.send(Out::Request { id, end, asked });
        Ok(Stream::new(Rc::clone(shared), id, state))
    }
}

impl Drop for Mux {
    fn drop(&mut self) {
        self.0.abandoned.set(true);
        self.0.wake_pump();
    }
}

// === impl Shared ===

impl Shared {
    fn send(&self, out: Out) {
        self.out.borrow_mut().push_back(out);
        self.wake_pump();
    }

    /// At most one wakeup for each turn of the task, which sets its waker again.
    fn wake_pump(&self) {
        if let Some(waker) = self.pump.borrow_mut().take() {
            waker.wake();
        }
    }

    fn stream(&self, id: StreamId) -> Option<Rc<State>> {
        self.streams.borrow().get(&id.into()).cloned()
    }

    /// Whether no more is to come: nobody may open a stream, and none is open.
    fn is_done(&self) -> bool {
        (self.abandoned.get() || self.closed.borrow().is_some())
            && self.streams.borrow().is_empty()
            && self.out.borrow().is_empty()
    }

    /// No more new streams, for that reason; the first reason stays.
    fn close(&self, trouble: Trouble) {
        self.closed.borrow_mut().get_or_insert(trouble);
        self.room.notify_waiters();
    }

    /// Fails the streams above `last`.
    fn fail_above(&self, last: u32, trouble: &Trouble) {
        for (number, state) in &*self.streams.borrow() {
            if *number > last {
                state.fail(trouble.clone());
            }
        }
    }

    /// Lets one in who waits, if there is room.
    fn let_in(&self) {
        if self.waiting.get() > 0 && self.open.get() < self.most.get() {
            self.room.notify_one();
        }
    }

    /// The peer takes so many streams.
    fn take_most(&self, most: usize) {
        let before = self.most.replace(most);
        for _ in 0..most.saturating_sub(before).min(self.waiting.get()) {
            self.room.notify_one();
        }
    }

    /// A stream is over.
    fn forget(&self, id: StreamId) {
        if self.streams.borrow_mut().remove(&id.into()).is_some() {
            self.open.set(self.open.get() - 1);
            self.let_in();
        }
        if self.abandoned.get() || self.closed.borrow().is_some() {
            self.wake_pump();
        }
    }
}

// === impl Waiting ===

impl<'a> Waiting<'a> {
    fn new(shared: &'a Shared) -> Self {
        shared.waiting.set(shared.waiting.get() + 1);
        Self(shared)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

// === impl ByNumber ===

impl Hasher for ByNumber {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0 << 8 | u64::from(*byte);
        }
    }

    /// Odd numbers that count: hashbrown takes its buckets from the low bits and its tags from the high ones.
    fn write_u32(&mut self, number: u32) {
        self.0 = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}
