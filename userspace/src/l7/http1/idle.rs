//! HTTP/1.1 connections to a backend that wait for their next request.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use hyper::client::conn::http1::SendRequest;

use super::body::Upload;
use crate::l7::upstream::Pool;

/// Connections kept at most.
const KEPT: usize = 256;

/// The idle connections of one worker to one backend.
#[derive(Default)]
pub struct Idle {
    kept: RefCell<Vec<(u64, SendRequest<Upload>)>>,
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

    fn put(&self, sender: SendRequest<Upload>) {
        let mut kept = self.kept.borrow_mut();
        if kept.len() < KEPT {
            kept.push((self.now.get(), sender));
        }
    }
}

/// Keeps a connection as soon as its response has been read, if it can take another request.
pub(super) fn keep_when_ready(pool: Rc<Pool>, mut sender: SendRequest<Upload>) {
    tokio::task::spawn_local(async move {
        if sender.ready().await.is_ok() && !pool.is_retired() {
            pool.http1.put(sender);
        }
    });
}
