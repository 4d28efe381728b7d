//! The demo backend: HTTP/2 (prior knowledge) and HTTP/1.1 on one port, every answer names the backend.
//!
//! | request | answer |
//! | --- | --- |
//! | gRPC `/evenkeel.Echo/Unary` | the message, then `grpc-status: 0` |
//! | gRPC `/evenkeel.Echo/Stream` | headers at once, every message as it arrives, then `grpc-status: 0` |
//! | any other gRPC method | trailers only, `grpc-status: 12` (unimplemented) |
//! | `/evenkeel/bytes/N` | N bytes, at most [`content::MOST_BYTES`] |
//! | `/evenkeel/stats` | the counts; over HTTP/1.1 the request itself is not counted |
//! | anything else | a small JSON body: which backend answered and which client address it saw |
//!
//! A request with the header `evenkeel-response-size: N` gets N bytes instead (as a unary gRPC call: a message of N, at
//! most 16 MiB). Every request but `/evenkeel/stats` waits for [`Options::delay`] and for one of
//! [`Options::capacity`] workers; one that would have to wait behind [`Options::queue`] others is turned away with
//! status 503, or `grpc-status: 14` (unavailable).
//!
//! An answer that took time says so ([`TOOK_HEADER`]), counted from when its request had arrived on this host: a backend
//! that is woken late had the request meanwhile. The delay begins then, too (that of a message of a gRPC stream when it is
//! handled); the time that a worker takes begins with the worker. Over HTTP/2 that
//! arrival is the one of what was read last when the request was accepted, because `h2` reads all that there is before it
//! says what came; of requests that came close together the earlier ones seem to have taken a little less.
//!
//! Counts are exact: a stream counts once its request headers were accepted, a connection once it carried an HTTP/2
//! preface or a counted HTTP/1.1 request, so that neither port probes nor readers of the counts disturb them.
//! Shutdown is graceful: the listener closes, HTTP/2 connections get a GOAWAY, HTTP/1.1 connections a
//! `connection: close`, and whatever is in flight may finish within [`Options::grace`].

pub mod content;
mod http1;
mod http2;
mod rewind;
mod workers;

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use serde::Serialize;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::arrival::{Clock, Latest, Stamped, Stamps};
use super::distribution::ServiceTime;
use super::timer::{Timer, spin};
use super::warm::Warmth;
use super::{RESPONSE_SIZE_HEADER, TOOK_HEADER};
use workers::Workers;

/// What distinguishes one echo backend from another.
#[derive(Debug, Clone)]
pub struct Options {
    /// Sent in the `evenkeel-backend` header of every response.
    pub name: HeaderValue,
    /// Waited before every answer (for a gRPC stream: before every message).
    pub delay: Duration,
    /// Requests worked on at once; further ones wait in line. `None`: all of them.
    pub capacity: Option<usize>,
    /// How long a request is worked on.
    pub service_time: ServiceTime,
    /// Requests that may wait in line.
    pub queue: usize,
    /// Never sleep, so that no wakeup is in the delays.
    pub spin: bool,
    /// Where random service times come from.
    pub seed: u64,
    /// `SETTINGS_MAX_CONCURRENT_STREAMS` of every connection.
    pub max_streams: u32,
    /// How long requests in flight may take to finish after a shutdown was asked for.
    pub grace: Duration,
}

impl Options {
    /// Those of a backend that answers at once.
    #[must_use]
    pub fn named(name: HeaderValue) -> Self {
        Self {
            name,
            delay: Duration::ZERO,
            capacity: None,
            service_time: ServiceTime::Fixed(Duration::ZERO),
            queue: 1 << 16,
            spin: false,
            seed: 0,
            max_streams: 4096,
            grace: Duration::from_secs(5),
        }
    }
}

/// The counts of one backend, as printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stats {
    /// Name of the backend.
    pub name: String,
    /// HTTP/2 streams accepted.
    pub streams: u64,
    /// Streams accepted and HTTP/1.1 requests together.
    pub requests: u64,
    /// Connections that carried an HTTP/2 preface or at least one counted HTTP/1.1 request.
    pub connections: u64,
    /// HTTP/2 streams that ended before their answer did: reset by the client or lost with its connection.
    pub broken: u64,
    /// Requests turned away because too many waited.
    pub turned_away: u64,
    /// Requests in line at most.
    pub longest_queue: u64,
}

/// What every connection task shares.
struct Backend {
    options: Options,
    /// That of the delays.
    timer: Timer,
    /// That of the workers.
    service_timer: Timer,
    workers: Workers,
    streams: Cell<u64>,
    http1_requests: Cell<u64>,
    connections: Cell<u64>,
    broken: Cell<u64>,
}

/// Serves `listener` until `stop` resolves, then drains and returns the final counts.
///
/// Must run inside a [`tokio::task::LocalSet`]: the tasks share their counts without atomics.
pub async fn serve(
    listener: TcpListener,
    options: Options,
    stop: impl Future<Output = ()>,
) -> io::Result<Stats> {
    let grace = options.grace;
    let backend = Rc::new(Backend::new(
        options,
        Timer::punctual(Warmth::new())?,
        Timer::new()?,
    ));
    let spinning = backend.options.spin;
    let timers = [&backend.timer, &backend.service_timer];
    let stamps = Stamps::new(backend.clock());
    let (stopping, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    tokio::pin!(stop);
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, client)) => {
                    let stream = Stamped::new(stream, &stamps);
                    let connection = serve_connection(stream, client, Rc::clone(&backend), stopped.clone());
                    connections.spawn_local(connection);
                }
                Err(error) => back_off(&error).await,
            },
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            () = spin(&timers), if spinning => {}
            () = &mut stop => break,
        }
    }
    drop(listener);
    // Nobody listens any more when every connection is already gone; there is nothing to tell then.
    let _ = stopping.send(true);
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(grace, drained).await.is_err() {
        tracing::warn!(
            ?grace,
            "connections were still open at the end of the grace period"
        );
    }
    Ok(backend.stats())
}

/// Answers what comes on a connection at once, and counts it nowhere; within a [`tokio::task::LocalSet`].
pub(super) fn answer_quietly(stream: TcpStream) -> io::Result<impl Future<Output = ()>> {
    let client = stream.peer_addr()?;
    let options = Options::named(HeaderValue::from_static("itself"));
    let backend = Rc::new(Backend::new(options, Timer::new()?, Timer::new()?));
    let stream = Stamped::new(stream, &Stamps::new(Clock::Kernel));
    let (stopping, stopped) = watch::channel(false);
    Ok(async move {
        serve_connection(stream, client, backend, stopped).await;
        drop(stopping);
    })
}

/// `accept` fails for reasons that pass (out of descriptors, peer gone): say so and go on, without spinning.
async fn back_off(error: &io::Error) {
    tracing::warn!(%error, "accept failed");
    tokio::time::sleep(Duration::from_millis(10)).await;
}

async fn serve_connection(
    stream: Stamped,
    client: SocketAddr,
    backend: Rc<Backend>,
    stop: watch::Receiver<bool>,
) {
    if let Err(error) = stream.set_nodelay() {
        tracing::debug!(%client, %error, "connection lost at once");
        return;
    }
    let latest = stream.latest();
    let served = async {
        let Some((stream, protocol)) = rewind::detect(stream).await? else {
            return Ok(());
        };
        match protocol {
            rewind::Protocol::Http2 => http2::serve(stream, client, backend, latest, stop)
                .await
                .map_err(io::Error::other),
            rewind::Protocol::Http1 => http1::serve(stream, client, backend, latest, stop)
                .await
                .map_err(io::Error::other),
        }
    };
    if let Err(error) = served.await {
        tracing::debug!(%client, %error, "connection ended");
    }
}

impl Backend {
    fn new(options: Options, timer: Timer, service_timer: Timer) -> Self {
        let zero = || Cell::new(0);
        Self {
            workers: Workers::new(&options, service_timer.clone()),
            timer,
            service_timer,
            options,
            streams: zero(),
            http1_requests: zero(),
            connections: zero(),
            broken: zero(),
        }
    }

    fn stats(&self) -> Stats {
        Stats {
            name: String::from_utf8_lossy(self.options.name.as_bytes()).into_owned(),
            streams: self.streams.get(),
            requests: self.streams.get() + self.http1_requests.get(),
            connections: self.connections.get(),
            broken: self.broken.get(),
            turned_away: self.workers.turned_away.get(),
            longest_queue: self.workers.longest_queue.get(),
        }
    }

    /// Takes the time that a request takes that arrived then; false when it is turned away.
    async fn work(&self, arrived: Option<Instant>) -> bool {
        if !self.options.delay.is_zero() {
            let arrived = arrived.unwrap_or_else(Instant::now);
            self.timer.until(arrived + self.options.delay).await;
        }
        self.workers.work().await
    }

    /// Whose clock says when requests arrived: the kernel's where requests are told how long they took.
    fn clock(&self) -> Clock {
        if self.works() {
            Clock::Kernel
        } else {
            Clock::Process
        }
    }

    /// When the request that was read last arrived, where it takes time.
    fn arrival(&self, latest: &Latest) -> Option<Instant> {
        self.works().then(|| latest.get().at)
    }

    /// Whether [`Backend::work`] takes any time.
    fn works(&self) -> bool {
        !self.options.delay.is_zero() || self.workers.take_time()
    }
}

/// The answer's length that the request asked for, at most `most`.
fn wanted_size(headers: &HeaderMap, most: u64) -> Option<u64> {
    let wanted = headers.get(RESPONSE_SIZE_HEADER)?.to_str().ok()?;
    Some(wanted.parse::<u64>().ok()?.min(most))
}

/// Says how long a request that `began` then has taken.
fn say_time(headers: &mut HeaderMap, began: Option<Instant>) {
    if let Some(began) = began {
        let nanos = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
        headers.insert(TOOK_HEADER, nanos.into());
    }
}

fn add_one(counter: &Cell<u64>) {
    counter.set(counter.get() + 1);
}
