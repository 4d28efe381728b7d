//! One shared HTTP/2 connection to a backend.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Ping, PingPong, SendStream};
use http::Request;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::Pool;
use crate::l7::io::Io;
use crate::l7::limits::Limits;

/// One connection to a backend.
pub struct Upstream {
    sender: RefCell<SendRequest<Bytes>>,
    /// Streams that the backend and we allow; 0 until its SETTINGS came.
    most: Cell<usize>,
    streams: Cell<usize>,
    usable: Cell<bool>,
    wish: Cell<Wish>,
    /// Milliseconds of the last tick with a stream; 0 when there was one since.
    busy_at: Cell<u64>,
    /// Milliseconds of the PING that is unanswered.
    ping_at: Cell<Option<u64>>,
    /// Milliseconds of the last PING.
    pinged_at: Cell<u64>,
    waker: RefCell<Option<Waker>>,
}

/// What the connection's task shall do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Nothing,
    Ping,
    CloseWhenIdle,
    Close,
}

/// A stream of the connection; dropping it gives its place back.
pub struct Ticket(Rc<Upstream>);

/// Speaks HTTP/2 on a new connection, and waits for the backend's SETTINGS.
pub(super) async fn establish(pool: &Rc<Pool>, socket: TcpStream) -> io::Result<Rc<Upstream>> {
    let limits = &*pool.limits;
    let io = Io::new(socket, Bytes::new(), 0, None);
    let (sender, mut connection) = limits
        .client_builder()
        .handshake::<_, Bytes>(io.clone())
        .await
        .map_err(io::Error::other)?;
    let pings = connection.ping_pong();
    let upstream = Rc::new(Upstream {
        sender: RefCell::new(sender),
        most: Cell::new(0),
        streams: Cell::new(0),
        usable: Cell::new(true),
        wish: Cell::new(Wish::Nothing),
        busy_at: Cell::new(0),
        ping_at: Cell::new(None),
        pinged_at: Cell::new(0),
        waker: RefCell::default(),
    });
    let (settings_came, settings) = oneshot::channel();
    let task = Task {
        upstream: upstream.clone(),
        connection,
        io,
        pings,
        settings_came: Some(settings_came),
        most: limits.upstream_streams as usize,
    };
    tokio::task::spawn_local(task.run(pool.clone()));
    settings
        .await
        .map_err(|_| io::Error::new(io::ErrorKind::ConnectionAborted, "closed before SETTINGS"))?;
    Ok(upstream)
}

// === impl Upstream ===

impl Upstream {
    /// True while one more stream may be opened.
    pub fn has_room(&self) -> bool {
        self.usable.get() && self.streams.get() < self.most.get()
    }

    /// Opens a stream. An error means that nothing was sent and that the connection takes no more streams.
    pub fn open(
        self: &Rc<Self>,
        request: Request<()>,
        end_of_stream: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>, Ticket), h2::Error> {
        let mut sender = self.sender.borrow_mut();
        // `h2` refuses another stream while an earlier one of the same handle waits to be written. Our own count is the
        // gate, so the handle is replaced by one that does not remember.
        if self.streams.get() + 2 >= self.most.get() {
            *sender = sender.clone();
        }
        match sender.send_request(request, end_of_stream) {
            Ok((response, send)) => {
                self.streams.set(self.streams.get() + 1);
                self.busy_at.set(0);
                Ok((response, send, Ticket(self.clone())))
            }
            Err(error) => {
                self.usable.set(false);
                self.close_when_idle();
                Err(error)
            }
        }
    }

    /// Takes no more streams, and closes after the last.
    pub fn close_when_idle(&self) {
        self.usable.set(false);
        self.wish(Wish::CloseWhenIdle);
    }

    /// Asks for what is due; false when the connection is to be forgotten.
    pub(super) fn tick(&self, now: u64, limits: &Limits) -> bool {
        if self.streams.get() == 0 {
            if self.busy_at.get() == 0 {
                self.busy_at.set(now);
            }
            if now.saturating_sub(self.busy_at.get()) >= limits.upstream_idle_timeout_ms {
                self.close_when_idle();
                return false;
            }
            return self.usable.get();
        }
        self.busy_at.set(now);
        match self.ping_at.get() {
            Some(at) if now.saturating_sub(at) >= limits.keepalive_timeout_ms => {
                self.usable.set(false);
                self.wish(Wish::Close);
            }
            Some(_) => {}
            None if self.pinged_at.get() == 0 => self.pinged_at.set(now),
            None if now.saturating_sub(self.pinged_at.get()) >= limits.keepalive_interval_ms => {
                self.pinged_at.set(now);
                self.ping_at.set(Some(now));
                self.wish(Wish::Ping);
            }
            None => {}
        }
        self.usable.get()
    }

    fn wish(&self, wish: Wish) {
        self.wish.set(wish);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

// === impl Ticket ===

impl Drop for Ticket {
    fn drop(&mut self) {
        let left = self.0.streams.get() - 1;
        self.0.streams.set(left);
        if left == 0 && self.0.wish.get() == Wish::CloseWhenIdle {
            self.0.wish(Wish::CloseWhenIdle);
        }
    }
}

/// Drives the connection.
struct Task {
    upstream: Rc<Upstream>,
    connection: h2::client::Connection<Io, Bytes>,
    io: Io,
    pings: Option<PingPong>,
    settings_came: Option<oneshot::Sender<()>>,
    most: usize,
}

// === impl Task ===

impl Task {
    async fn run(mut self, pool: Rc<Pool>) {
        pool.counters().upstream_opened.add(1);
        pool.counters().upstream_active.add(1);
        poll_fn(|cx| self.poll(cx)).await;
        self.upstream.usable.set(false);
        pool.remove(&self.upstream);
        pool.counters().upstream_active.sub(1);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.io.begin();
        self.remember(cx.waker());
        // Nobody waits for the SETTINGS any more: the attempt timed out.
        if let Some(settings_came) = &mut self.settings_came
            && settings_came.poll_closed(cx).is_ready()
        {
            return Poll::Ready(());
        }
        match self.upstream.wish.get() {
            Wish::Close => return Poll::Ready(()),
            Wish::CloseWhenIdle if self.upstream.streams.get() == 0 => return self.close(cx),
            Wish::Ping => {
                self.upstream.wish.set(Wish::Nothing);
                if let Some(pings) = &mut self.pings {
                    // Refused only while another is under way, which `ping_at` excludes.
                    let _ = pings.send_ping(Ping::opaque());
                }
            }
            Wish::CloseWhenIdle | Wish::Nothing => {}
        }
        let ended = Pin::new(&mut self.connection).poll(cx).is_ready();
        self.note_settings();
        if self.upstream.ping_at.get().is_some()
            && let Some(pings) = &mut self.pings
            && pings.poll_pong(cx).is_ready()
        {
            self.upstream.ping_at.set(None);
        }
        match self.io.flush(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(()),
            _ if ended => Poll::Ready(()),
            _ => Poll::Pending,
        }
    }

    /// The last bytes, such as the acknowledgement of SETTINGS, before the socket closes.
    fn close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.io.flush(cx).map(|_| ())
    }

    fn remember(&self, waker: &Waker) {
        let mut kept = self.upstream.waker.borrow_mut();
        if !kept.as_ref().is_some_and(|kept| kept.will_wake(waker)) {
            *kept = Some(waker.clone());
        }
    }

    fn note_settings(&mut self) {
        let allowed = self.upstream.sender.borrow().current_max_send_streams();
        self.upstream.most.set(allowed.min(self.most));
        if allowed > 0
            && let Some(settings_came) = self.settings_came.take()
        {
            // An error means that the attempt timed out just now; then the pool never sees this connection.
            if settings_came.send(()).is_err() {
                self.upstream.close_when_idle();
            }
        }
    }
}
