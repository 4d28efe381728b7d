//! Connections of one worker to one backend, shared by all streams of that worker.
//!
//! - Streams share as few connections as possible: the fewer sockets, the more frames go into one system call.
//! - A connection is full when it has as many streams as the backend's SETTINGS allow (or [`Limits::upstream_streams`]);
//!   then another is opened. Nothing is ever queued inside `h2`, and nothing is sent before SETTINGS came.
//! - A backend that cannot be reached is `down`: it gets no streams, and is tried again in the background with growing
//!   pauses, so that no stream has to find out. Streams that wait meanwhile go elsewhere.
//! - `down` is of a protocol ([`reach`]): requests of HTTP/1.1, whose connections are in [`Idle`], and streams of HTTP/2 learn
//!   from each other's attempts only what concerns them, which is whether there was a TCP connection.
//!
//! [`Limits::upstream_streams`]: super::limits::Limits::upstream_streams

mod connection;
mod reach;

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

pub use self::connection::{Ticket, Upstream};
use self::reach::Reachability;
use super::detect::Protocol;
use super::http1::{self, Idle};
use super::limits::Limits;
use super::listener::keepalive;
use super::stats::{BackendCounters, Load, Reach};

/// Unacknowledged bytes to a backend that has vanished end its connection after this long.
const USER_TIMEOUT: Duration = Duration::from_secs(20);

/// The upstream connections of one worker to one backend of one service.
pub struct Pool {
    /// Where the backend serves.
    pub address: SocketAddr,
    /// Its load and counters.
    pub load: Arc<Load>,
    /// Idle HTTP/1.1 connections.
    pub http1: Idle,
    /// The limits.
    pub limits: Rc<Limits>,
    worker: usize,
    connections: RefCell<Vec<Rc<Upstream>>>,
    reach: Reachability,
    /// An attempt is under way in the background, or follows after a pause.
    connecting: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
    retired: Cell<bool>,
}

/// The answer to a stream that wants a connection.
pub enum Acquired {
    /// This one has room.
    Ready(Rc<Upstream>),
    /// One is being made; the task is woken when it is known what came of it.
    Waiting,
    /// The backend is down, no longer in the table, or takes no more streams.
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
            http1: Idle::default(),
            limits,
            worker,
            connections: RefCell::default(),
            reach: Reachability::default(),
            connecting: Cell::new(false),
            waiting: RefCell::default(),
            retired: Cell::new(false),
        })
    }

    /// This worker's counters for the backend.
    pub fn counters(&self) -> &BackendCounters {
        self.load.of(self.worker)
    }

    /// True when it makes no sense to send a stream, or a request, of this protocol here.
    pub fn is_down(&self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Http1 => self.reach.http1() == Reach::Down && !self.http1.has_any(),
            Protocol::Http2 => {
                self.reach.http2() == Reach::Down && self.connections.borrow().is_empty()
            }
        }
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
        // Of a retired pool no connection is kept: a stream that waited for one would have another made, again and again.
        if self.retired.get() || self.reach.http2() == Reach::Down {
            return Acquired::Unavailable;
        }
        if !self.connecting.get() {
            if connections.len() >= self.limits.upstream_connections {
                self.counters().upstream_full.add(1);
                return Acquired::Unavailable;
            }
            self.connecting.set(true);
            tokio::task::spawn_local(self.clone().connect(Protocol::Http2, 0));
        }
        self.waiting.borrow_mut().push(cx.waker().clone());
        Acquired::Waiting
    }

    /// A TCP connection to the backend, which is all that both protocols have in common.
    pub async fn dial(&self) -> io::Result<TcpStream> {
        let connecting = TcpStream::connect(self.address);
        let dialled = match tokio::time::timeout(self.limits.connect_timeout(), connecting).await {
            Ok(dialled) => dialled.and_then(prepared),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "connect timeout")),
        };
        match &dialled {
            Ok(_) => self.reach.accepted(),
            Err(_) => self.reach.refused(),
        }
        dialled
    }

    /// A request over HTTP/1.1 was answered.
    pub fn answered_http1(&self) {
        self.reach.answered_http1();
    }

    /// A request over HTTP/1.1 found out that there is no connection: the next ones shall not have to.
    pub fn reconnect(self: &Rc<Self>, error: &io::Error) {
        self.counters().connect_failures.add(1);
        if !self.connecting.replace(true) {
            tracing::warn!(backend = %self.address, %error, "backend is down");
            tokio::task::spawn_local(self.clone().connect(Protocol::Http1, 1));
        }
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

    /// The table was replaced: streams that wait for a connection see whether they still wait for the right one.
    pub fn table_changed(&self) {
        self.wake_waiting();
    }

    /// Looks after idle and silent connections, and says whether the backend can be reached; `now` in milliseconds.
    pub fn tick(&self, now: u64) {
        let limits = &*self.limits;
        self.connections
            .borrow_mut()
            .retain(|upstream| upstream.tick(now, limits));
        self.http1.expire(now, limits.upstream_idle_timeout_ms);
        self.counters().reach.set(self.reach_now());
    }

    /// A connection says more than an attempt, and without one an attempt that worked says nothing of now.
    fn reach_now(&self) -> Reach {
        if !self.connections.borrow().is_empty() || self.http1.has_open() {
            return Reach::Up;
        }
        match self.reach.summary() {
            Reach::Down => Reach::Down,
            Reach::Up | Reach::Unknown => Reach::Unknown,
        }
    }

    /// Connects until it works or the pool is retired; `failures` attempts in a row failed before.
    async fn connect(self: Rc<Self>, protocol: Protocol, mut failures: u32) {
        loop {
            if failures > 0 {
                tokio::time::sleep(self.limits.backoff(failures)).await;
            }
            match self.attempt(protocol).await {
                Ok(()) => break,
                Err(error) if failures == 0 => {
                    let protocol = protocol.name();
                    tracing::warn!(backend = %self.address, protocol, %error, "backend is down");
                }
                Err(_) => {}
            }
            self.counters().connect_failures.add(1);
            self.wake_waiting();
            if self.retired.get() {
                return;
            }
            failures += 1;
        }
        if failures > 0 {
            let protocol = protocol.name();
            tracing::info!(backend = %self.address, protocol, "backend is up");
        }
        self.connecting.set(false);
        self.wake_waiting();
    }

    /// Makes a connection and keeps it.
    async fn attempt(self: &Rc<Self>, protocol: Protocol) -> io::Result<()> {
        let deadline = Instant::now() + self.limits.connect_timeout();
        match protocol {
            Protocol::Http1 => {
                let sender = http1::connect(self).await?;
                self.reach.may_be_http2();
                http1::keep_when_ready(self.clone(), sender);
            }
            Protocol::Http2 => {
                let socket = self.dial().await?;
                let made = timeout_at(deadline, connection::establish(self, socket)).await;
                let made = made.unwrap_or_else(|_| {
                    Err(io::Error::new(io::ErrorKind::TimedOut, "no SETTINGS came"))
                });
                let upstream = made.inspect_err(|_| self.reach.not_http2())?;
                self.reach.answered_http2();
                if self.retired.get() {
                    // Nobody would ever close it: those who wait go elsewhere.
                    upstream.close_when_idle();
                } else {
                    self.connections.borrow_mut().push(upstream);
                }
            }
        }
        Ok(())
    }

    fn wake_waiting(&self) {
        for waker in self.waiting.take() {
            waker.wake();
        }
    }
}

fn prepared(socket: TcpStream) -> io::Result<TcpStream> {
    socket.set_nodelay(true)?;
    let options = socket2::SockRef::from(&socket);
    options.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    options.set_tcp_keepalive(&keepalive())?;
    Ok(socket)
}
