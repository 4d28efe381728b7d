//! Connections of one worker to one backend, shared by all streams of that worker.
//!
//! - Streams share as few connections as possible: the fewer sockets, the more frames go into one system call.
//! - A connection is full when it has as many streams as the backend's SETTINGS allow (or [`Limits::upstream_streams`]);
//!   then another is opened. Nothing is ever queued inside `h2`, and nothing is sent before SETTINGS came.
//! - A backend that cannot be reached is `down`: it gets no streams, and is tried again in the background with growing
//!   pauses, so that no stream has to find out. Streams that wait meanwhile go elsewhere.
//!
//! [`Limits::upstream_streams`]: super::limits::Limits::upstream_streams

mod connection;

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

pub use self::connection::{Ticket, Upstream};
use super::limits::Limits;
use super::stats::{BackendCounters, Load};

/// The upstream connections of one worker to one backend of one service.
pub struct Pool {
    /// Where the backend serves.
    pub address: SocketAddr,
    /// Its load and counters.
    pub load: Arc<Load>,
    /// Idle HTTP/1.1 connections.
    pub http1: super::http1::Idle,
    worker: usize,
    limits: Rc<Limits>,
    connections: RefCell<Vec<Rc<Upstream>>>,
    reach: Cell<Reach>,
    waiting: RefCell<Vec<Waker>>,
    retired: Cell<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// No attempt under way.
    Quiet,
    /// The first attempt in a row is under way.
    Connecting,
    /// The last attempt failed; more follow in the background.
    Down,
}

/// The answer to a stream that wants a connection.
pub enum Acquired {
    /// This one has room.
    Ready(Rc<Upstream>),
    /// One is being made; the task is woken when it is known what came of it.
    Waiting,
    /// The backend is down, or takes no more streams.
    Unavailable,
}

// === impl Pool ===

impl Pool {
    /// A pool without connections.
    pub fn new(
        address: SocketAddr,
        load: Arc<Load>,
        worker: usize,
        limits: Rc<Limits>,
    ) -> Rc<Self> {
        Rc::new(Self {
            address,
            load,
            http1: super::http1::Idle::default(),
            worker,
            limits,
            connections: RefCell::default(),
            reach: Cell::new(Reach::Quiet),
            waiting: RefCell::default(),
            retired: Cell::new(false),
        })
    }

    /// This worker's counters for the backend.
    pub fn counters(&self) -> &BackendCounters {
        self.load.of(self.worker)
    }

    /// True when it makes no sense to send a stream here.
    pub fn is_down(&self) -> bool {
        self.reach.get() == Reach::Down && self.connections.borrow().is_empty()
    }

    /// True when the backend is no longer in the table.
    pub fn is_retired(&self) -> bool {
        self.retired.get()
    }

    /// A connection for one more stream.
    pub fn acquire(self: &Rc<Self>, cx: &mut Context<'_>) -> Acquired {
        let connections = self.connections.borrow();
        if let Some(upstream) = connections.iter().find(|upstream| upstream.has_room()) {
            return Acquired::Ready(upstream.clone());
        }
        match self.reach.get() {
            Reach::Down => return Acquired::Unavailable,
            Reach::Quiet if connections.len() >= self.limits.upstream_connections => {
                return Acquired::Unavailable;
            }
            Reach::Quiet => {
                self.reach.set(Reach::Connecting);
                tokio::task::spawn_local(self.clone().connect());
            }
            Reach::Connecting => {}
        }
        self.waiting.borrow_mut().push(cx.waker().clone());
        Acquired::Waiting
    }

    /// Takes a connection out: it is broken, or going away.
    pub fn remove(&self, upstream: &Rc<Upstream>) {
        self.connections
            .borrow_mut()
            .retain(|kept| !Rc::ptr_eq(kept, upstream));
    }

    /// The backend is no longer in the table: connections end with their last stream.
    pub fn retire(&self) {
        self.retired.set(true);
        for upstream in self.connections.take() {
            upstream.close_when_idle();
        }
        self.http1.clear();
    }

    /// Looks after idle and silent connections; `now` in milliseconds.
    pub fn tick(&self, now: u64) {
        let limits = &*self.limits;
        self.connections
            .borrow_mut()
            .retain(|upstream| upstream.tick(now, limits));
        self.http1.expire(now, limits.upstream_idle_timeout_ms);
    }

    /// Connects until it works or the pool is retired.
    async fn connect(self: Rc<Self>) {
        let mut failures = 0;
        loop {
            let attempt = connection::establish(&self, &self.limits);
            match tokio::time::timeout(self.limits.connect_timeout(), attempt).await {
                // Nobody would ever close it: those who wait go elsewhere.
                Ok(Ok(upstream)) if self.retired.get() => upstream.close_when_idle(),
                Ok(Ok(upstream)) => {
                    if failures > 0 {
                        tracing::info!(backend = %self.address, "backend is up");
                    }
                    self.connections.borrow_mut().push(upstream);
                    self.reach.set(Reach::Quiet);
                    self.wake_waiting();
                    return;
                }
                result => {
                    if failures == 0 {
                        let error = match result {
                            Ok(Err(error)) => error.to_string(),
                            _ => "connect timeout".to_owned(),
                        };
                        tracing::warn!(backend = %self.address, error, "backend is down");
                    }
                }
            }
            self.reach.set(Reach::Down);
            self.wake_waiting();
            if self.retired.get() {
                return;
            }
            failures += 1;
            self.counters().connect_failures.add(1);
            tokio::time::sleep(self.limits.backoff(failures)).await;
        }
    }

    fn wake_waiting(&self) {
        for waker in self.waiting.take() {
            waker.wake();
        }
    }
}
