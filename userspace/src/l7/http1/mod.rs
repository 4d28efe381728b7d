//! HTTP/1.1, passed through so that switching a mixed service to `l7` breaks nobody.
//!
//! Each request is balanced on its own, over kept connections to the backends, HTTP/1.1 on both sides. hyper does the
//! framing: keep-alive, pipelining, chunked content and trailers, `Expect: 100-continue`. Here are the choice of a backend,
//! the hop-by-hop headers ([`headers`]) and the tunnel after an Upgrade ([`tunnel`]), for WebSocket and others.
//!
//! A request is sent again only when hyper hands it back unsent: a kept connection that the backend had closed meanwhile.

mod activity;
mod body;
mod forward;
mod headers;
mod idle;
mod rewound;
mod tunnel;

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use self::activity::{Activity, Look};
pub use self::idle::{Idle, connect, keep_when_ready};
use self::rewound::{Meter, Rewound};
use super::registry::{Open, Registered};
use super::worker::{View, Worker};

/// Smallest buffer that hyper takes.
const LEAST_BUFFER: usize = 8_192;

/// A client's connection, and the tunnel that it may become.
pub struct Client {
    worker: Rc<Worker>,
    local: SocketAddr,
    registered: Registered,
    activity: Rc<Activity>,
}

// === impl Client ===

impl Client {
    /// The service as of now.
    fn view(&self) -> Option<Rc<View>> {
        self.worker.view(self.local)
    }

    /// Looks at the request if it is time to; false when the connection is to end.
    fn look(&self) -> bool {
        let handle = &self.registered.handle;
        let look = handle.look_is_due().then(|| self.activity.look());
        if let Some(Look::Again(at)) = look {
            handle.look_at(at);
        }
        look != Some(Look::Ends)
    }

    /// A request, and the tunnel that it may become.
    fn opened(&self) -> Open {
        self.registered.handle.opened()
    }

    /// Resolves when the worker closes the connection.
    async fn told_to_close(&self) {
        poll_fn(|cx| {
            self.registered.handle.remember(cx.waker());
            match self.registered.handle.close.get() {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        })
        .await;
    }
}

/// Serves an HTTP/1.1 connection to its end; `first` was read from it already.
pub async fn serve(
    worker: Rc<Worker>,
    view: Rc<View>,
    local: SocketAddr,
    socket: TcpStream,
    first: Bytes,
    registered: Registered,
) {
    let limits = worker.limits.clone();
    let client = Rc::new(Client {
        activity: Rc::new(Activity::new(worker.clone())),
        worker,
        local,
        registered,
    });
    let serving = client.clone();
    let service = service_fn(move |request| {
        let client = serving.clone();
        async move { Ok::<_, Infallible>(forward::forward(client, request).await) }
    });
    let outflow = client.registered.handle.outflow.clone();
    let meter = Meter {
        counters: view.service.counters.clone(),
        worker: client.worker.id,
    };
    let socket = Rewound::new(first, socket, outflow, meter);
    let mut connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(Duration::from_millis(limits.http1_idle_timeout_ms))
        .max_buf_size(LEAST_BUFFER.max(limits.max_header_list as usize))
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    let mut leaving = false;
    poll_fn(|cx| {
        let handle = &client.registered.handle;
        handle.remember(cx.waker());
        if handle.close.get() || !client.look() {
            return Poll::Ready(());
        }
        if handle.drain.get() && !std::mem::replace(&mut leaving, true) {
            Pin::new(&mut connection).graceful_shutdown();
        }
        // An error is the client's: broken off, too slow, or not HTTP; hyper has answered what can be answered.
        Pin::new(&mut connection).poll(cx).map(|_| ())
    })
    .await;
}
