//! One HTTP/2 connection of a client, with all its streams, as one task.
//!
//! Each turn polls the streams that were woken, then the connection, until neither has more to do; then what was written
//! goes to the socket in one piece.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::Request;
use tokio::net::TcpStream;

use super::detect::PREFACE;
use super::exchange::Exchange;
use super::guard::Guard;
use super::io::Io;
use super::registry::Registered;
use super::streams::Streams;
use super::worker::{TICK_MS, View, Worker};

/// Turns of one poll; then other connections get their chance.
const TURNS: usize = 16;

/// How long, and for how many reads, a client that was told to calm down may take to hear it.
const LAST_WORDS: Duration = Duration::from_secs(1);
const LAST_READS: u32 = 256;

/// How long a client may be silent, and take altogether, while it still reads what was sent before a graceful end; nginx has
/// the same `lingering_timeout` and `lingering_time`.
const SILENCE: Duration = Duration::from_secs(5);
const LINGER: Duration = Duration::from_secs(30);

/// What the streams of a connection share.
pub struct Client {
    /// The worker.
    pub worker: Rc<Worker>,
    /// The client's socket.
    pub io: Io,
    local: SocketAddr,
    registered: Registered,
}

struct Downstream {
    client: Rc<Client>,
    connection: h2::server::Connection<Io, Bytes>,
    streams: Streams<Exchange>,
    view: Rc<View>,
    leaving: Leaving,
    counted: (u64, u64),
}

/// How the connection ends, from our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaving {
    Not,
    Gracefully,
    Abruptly,
}

/// Serves an HTTP/2 connection to its end.
pub async fn serve(
    worker: Rc<Worker>,
    view: Rc<View>,
    local: SocketAddr,
    socket: TcpStream,
    first: Bytes,
    registered: Registered,
) {
    let guard = Guard::new(&worker.limits, Instant::now());
    let io = Io::new(socket, first, PREFACE.len(), Some(guard));
    // The preface is there already, and SETTINGS only go to the buffer: this waits for nothing.
    let Ok(connection) = worker
        .limits
        .server_builder()
        .handshake::<_, Bytes>(io.clone())
        .await
    else {
        return;
    };
    let mut downstream = Downstream {
        client: Rc::new(Client {
            worker,
            io,
            local,
            registered,
        }),
        connection,
        streams: Streams::new(),
        view,
        leaving: Leaving::Not,
        counted: (0, 0),
    };
    downstream.end_idle();
    poll_fn(|cx| downstream.poll(cx)).await;
    downstream.count_bytes();
    let (client, leaving) = (downstream.client.clone(), downstream.leaving);
    drop(downstream);
    linger(&client, leaving).await;
}

/// Waits until the client has closed, too: a socket that is closed while the client still sends, be it a late WINDOW_UPDATE,
/// answers with RST, which throws away what the client has yet to receive.
async fn linger(client: &Client, leaving: Leaving) {
    let (within, silence, reads) = match leaving {
        Leaving::Abruptly => (LAST_WORDS, LAST_WORDS, LAST_READS),
        Leaving::Gracefully | Leaving::Not => (LINGER, SILENCE, u32::MAX),
    };
    let handle = &client.registered.handle;
    let discarded = tokio::time::timeout(within, client.io.discard(reads, silence));
    let mut discarded = pin!(discarded);
    poll_fn(|cx| {
        handle.remember(cx.waker());
        if handle.close.get() {
            return Poll::Ready(());
        }
        discarded.as_mut().poll(cx).map(|_| ())
    })
    .await;
}

// === impl Client ===

impl Client {
    /// The service as of now.
    pub fn view(&self) -> Option<Rc<View>> {
        self.worker.view(self.local)
    }
}

// === impl Downstream ===

impl Downstream {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let client = self.client.clone();
        let handle = &client.registered.handle;
        if handle.close.get() {
            return Poll::Ready(());
        }
        handle.remember(cx.waker());
        client.io.begin();
        self.streams.enter();
        if handle.drain.get() && self.leaving == Leaving::Not {
            self.leaving = Leaving::Gracefully;
            self.connection.graceful_shutdown();
        }
        if handle.look_is_due() {
            self.end_idle();
        }
        let ended = self.turns(cx);
        let flushed = client.io.flush(cx);
        let sent = self.count_bytes();
        handle.outflow.wrote(sent > 0, flushed.is_pending());
        match flushed {
            Poll::Ready(Err(_)) => Poll::Ready(()),
            _ if ended => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }

    /// Polls streams and connection until both wait; true when the connection has ended.
    fn turns(&mut self, cx: &mut Context<'_>) -> bool {
        for _ in 0..TURNS {
            self.streams.poll_ready();
            loop {
                match self.connection.poll_accept(cx) {
                    Poll::Ready(Some(Ok((request, respond)))) => self.open(request, respond),
                    Poll::Ready(Some(Err(error))) => {
                        self.note(&error);
                        return true;
                    }
                    Poll::Ready(None) => return true,
                    Poll::Pending => break,
                }
            }
            if self.client.io.flooded() && self.leaving != Leaving::Abruptly {
                self.leaving = Leaving::Abruptly;
                self.view.counters().floods.add(1);
                self.connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
                continue;
            }
            if self.streams.leave(cx.waker()) {
                return false;
            }
        }
        cx.waker().wake_by_ref();
        false
    }

    /// Ends the streams in which nothing moved for too long, and says when to look again: when the first of the others may
    /// have to end. One that is opened meanwhile has until later.
    fn end_idle(&mut self) {
        let worker = &self.client.worker;
        let (now, timeout) = (worker.now(), worker.limits.stream_idle_timeout_ms);
        if timeout == 0 {
            return;
        }
        // What moved did so up to a tick after the one that it is noted with: never too early.
        let timeout = timeout + TICK_MS;
        let mut next = now + timeout;
        self.streams.wake_those(|exchange| {
            let due = exchange.moved_at() + timeout;
            if now >= due {
                exchange.end_as_idle();
                return true;
            }
            next = next.min(due);
            false
        });
        self.client.registered.handle.look_at(next);
    }

    /// `h2` ended the connection: it has its own limits for floods, and told the client.
    fn note(&mut self, error: &h2::Error) {
        if error.is_library() && self.leaving != Leaving::Abruptly {
            self.leaving = Leaving::Abruptly;
            if error.reason() == Some(Reason::ENHANCE_YOUR_CALM) {
                self.view.counters().floods.add(1);
            }
        }
    }

    fn open(&mut self, request: Request<RecvStream>, respond: SendResponse<Bytes>) {
        if !self.client.worker.is_current(&self.view) {
            match self.client.view() {
                Some(view) => self.view = view,
                None => return super::exchange::refuse(respond, &request),
            }
        }
        self.streams.push(Exchange::new(
            self.client.clone(),
            self.client.registered.handle.opened(),
            self.view.clone(),
            request,
            respond,
        ));
    }

    /// Returns how many bytes left since the last call.
    fn count_bytes(&mut self) -> u64 {
        let (received, sent) = self.client.io.totals();
        let counters = self.view.counters();
        counters.received_bytes.add(received - self.counted.0);
        let sent_now = sent - self.counted.1;
        counters.sent_bytes.add(sent_now);
        self.counted = (received, sent);
        sent_now
    }
}
