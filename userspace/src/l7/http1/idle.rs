//! HTTP/1.1 connections to a backend, kept while they wait for their next request.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;

use super::body::Upload;
use crate::l7::upstream::Pool;

/// The idle connections of one worker to one backend.
#[derive(Default)]
pub struct Idle {
    kept: RefCell<Vec<(u64, SendRequest<Upload>)>>,
    /// Connections open, waiting or in use.
    open: Cell<usize>,
    /// Milliseconds of the worker's last tick.
    now: Cell<u64>,
}

// === impl Idle ===

impl Idle {
    /// The connection used last, which is the likeliest to be still open.
    pub(super) fn take(&self) -> Option<SendRequest<Upload>> {
        let mut kept = self.kept.borrow_mut();
        std::iter::from_fn(|| kept.pop())
            .map(|(_, sender)| sender)
            .find(SendRequest::is_ready)
    }

    /// True while there is a connection, waiting or in use.
    pub fn has_open(&self) -> bool {
        self.open.get() > 0
    }

    /// Closes those that were idle for so long.
    pub fn expire(&self, now: u64, after: u64) {
        self.now.set(now);
        self.kept
            .borrow_mut()
            .retain(|(since, sender)| now.saturating_sub(*since) < after && !sender.is_closed());
    }

    /// Closes all.
    pub fn clear(&self) {
        self.kept.borrow_mut().clear();
    }

    /// True while there is one that can take a request.
    pub fn has_any(&self) -> bool {
        let kept = self.kept.borrow();
        kept.iter().any(|(_, sender)| sender.is_ready())
    }

    /// Keeps a connection; false, and it is closed, if there are `most`.
    fn put(&self, sender: SendRequest<Upload>, most: usize) -> bool {
        let mut kept = self.kept.borrow_mut();
        let room = kept.len() < most;
        if room {
            kept.push((self.now.get(), sender));
        }
        room
    }
}

/// A new connection to a backend.
pub async fn connect(pool: &Rc<Pool>) -> io::Result<SendRequest<Upload>> {
    let socket = pool.dial().await?;
    let (sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_buf_size(super::LEAST_BUFFER.max(pool.limits.max_header_list as usize))
        .handshake(TokioIo::new(socket))
        .await
        .map_err(io::Error::other)?;
    let pool = pool.clone();
    tokio::task::spawn_local(async move {
        let open = &pool.http1.open;
        open.set(open.get() + 1);
        // Its errors are those of the requests on it.
        let _ = connection.with_upgrades().await;
        open.set(open.get() - 1);
    });
    Ok(sender)
}

/// Keeps a connection as soon as it can take another request: a new one at once, a used one when its response has been read.
pub fn keep_when_ready(pool: Rc<Pool>, mut sender: SendRequest<Upload>) {
    tokio::task::spawn_local(async move {
        if sender.ready().await.is_ok()
            && !pool.is_retired()
            && !pool.http1.put(sender, pool.limits.http1_idle_connections)
        {
            pool.counters().http1_not_kept.add(1);
        }
    });
}
