//! A worker's books of its downstream connections: how it reaches them to drain or close them, and their timeouts.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::Waker;

use super::limits::Limits;
use super::worker::{View, Worker};

/// The downstream connections of a worker.
#[derive(Default)]
pub struct Connections {
    by_id: RefCell<HashMap<u64, Rc<Handle>>>,
    next: Cell<u64>,
}

/// How the worker reaches one of its downstream connections.
#[derive(Default)]
pub struct Handle {
    /// The address that the client connected to.
    pub local: Cell<Option<SocketAddr>>,
    /// The client has said what protocol it speaks.
    pub heard: Cell<bool>,
    /// The connection shall go away, gracefully.
    pub drain: Cell<bool>,
    /// The connection shall close now.
    pub close: Cell<bool>,
    /// What becomes of the bytes for the client.
    pub outflow: Arc<Outflow>,
    /// Streams, requests and tunnels open now.
    open: Cell<usize>,
    /// There was one since the last tick.
    busy: Cell<bool>,
    /// Milliseconds of the last tick that found it busy, and of the last that found bytes flowing, or none waiting.
    busy_at: Cell<u64>,
    flowing_at: Cell<u64>,
    /// Milliseconds from when on its streams are to be looked at, if at all; and that they are to be now.
    look_at: Cell<Option<u64>>,
    look: Cell<bool>,
    /// It is closed because it took nothing.
    stalled: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// What becomes of the bytes for a client. Atomic only because hyper wants sockets that could move to another thread.
///
/// A client that reads slowly leaves its socket full at every look, so that fullness alone says nothing: what counts is
/// whether any bytes left since the last.
#[derive(Debug, Default)]
pub struct Outflow {
    waiting: AtomicBool,
    moved: AtomicBool,
}

/// A stream, an HTTP/1.1 request or a tunnel: while there is one, and be it silent, its connection is not idle.
pub struct Open(Rc<Handle>);

/// A downstream connection in the worker's books; dropping it takes it out.
pub struct Registered {
    worker: Rc<Worker>,
    view: Rc<View>,
    id: u64,
    /// The worker's handle to it.
    pub handle: Rc<Handle>,
}

// === impl Handle ===

impl Handle {
    /// Remembers the task of the connection.
    pub fn remember(&self, waker: &Waker) {
        let mut kept = self.waker.borrow_mut();
        if !kept.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
            *kept = Some(waker.clone());
        }
    }

    /// Asks the connection to go away, gracefully.
    pub fn ask_to_drain(&self) {
        self.drain.set(true);
        self.wake();
    }

    /// Closes the connection.
    pub fn close_now(&self) {
        self.close.set(true);
        self.wake();
    }

    /// Has [`Handle::look_is_due`] be true from then on; `at` in milliseconds.
    pub fn look_at(&self, at: u64) {
        self.look_at.set(Some(at));
    }

    /// True once for each call of [`Handle::look_at`], when its time has come.
    pub fn look_is_due(&self) -> bool {
        self.look.take()
    }

    /// One more stream is open, until the result is dropped.
    pub fn opened(self: &Rc<Self>) -> Open {
        self.open.set(self.open.get() + 1);
        self.busy.set(true);
        Open(self.clone())
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Looks at its timeouts; `now` in milliseconds.
    pub fn tick(&self, now: u64, limits: &Limits) {
        if self.busy.take() || self.open.get() > 0 {
            self.busy_at.set(now);
        }
        if self.outflow.is_flowing() {
            self.flowing_at.set(now);
        }
        let idle = now.saturating_sub(self.busy_at.get());
        let patience = limits.stream_idle_timeout_ms;
        if now.saturating_sub(self.flowing_at.get()) >= limits.stall_timeout_ms {
            self.stalled.set(true);
            self.close_now();
        } else if patience > 0 && idle >= limits.idle_timeout_ms + patience {
            // Left of its streams are only answers in `h2`, for which the client opens no window.
            self.close_now();
        } else if idle >= limits.idle_timeout_ms && !self.drain.replace(true) {
            self.wake();
        }
        if self.open.get() > 0 && self.look_at.get().is_some_and(|at| now >= at) {
            self.look_at.set(None);
            self.look.set(true);
            self.wake();
        }
    }
}

// === impl Outflow ===

impl Outflow {
    /// After a write: whether the socket took any bytes, and whether others wait because it takes no more.
    pub fn wrote(&self, any: bool, waiting: bool) {
        if any {
            self.moved.store(true, Relaxed);
        }
        self.waiting.store(waiting, Relaxed);
    }

    /// True when no bytes wait, or some left since the last call.
    fn is_flowing(&self) -> bool {
        self.moved.swap(false, Relaxed) || !self.waiting.load(Relaxed)
    }
}

// === impl Open ===

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
    }
}

// === impl Connections ===

impl Connections {
    /// True when no client is left that has said anything.
    pub fn are_silent(&self) -> bool {
        !self
            .by_id
            .borrow()
            .values()
            .any(|handle| handle.heard.get())
    }

    /// Calls `each` with every connection.
    pub fn each(&self, each: impl Fn(&Handle)) {
        self.by_id.borrow().values().for_each(|handle| each(handle));
    }

    fn insert(&self, handle: &Rc<Handle>) -> u64 {
        let id = self.next.get();
        self.next.set(id + 1);
        self.by_id.borrow_mut().insert(id, handle.clone());
        id
    }

    fn remove(&self, id: u64) {
        self.by_id.borrow_mut().remove(&id);
    }
}

// === impl Registered ===

impl Registered {
    /// Books a connection; `now` in milliseconds.
    pub fn new(worker: &Rc<Worker>, local: SocketAddr, view: &Rc<View>, now: u64) -> Self {
        let handle = Rc::new(Handle::default());
        handle.local.set(Some(local));
        handle.busy_at.set(now);
        handle.flowing_at.set(now);
        view.counters().connections_active.add(1);
        Self {
            id: worker.connections.insert(&handle),
            worker: worker.clone(),
            view: view.clone(),
            handle,
        }
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.worker.connections.remove(self.id);
        let counters = self.view.counters();
        counters.connections_active.sub(1);
        if self.handle.stalled.get() {
            counters.stalled.add(1);
        }
        self.worker.shared.connections.fetch_sub(1, Relaxed);
    }
}
