//! The L7 path as its owner sees it: start, update, look, drain, stop.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::limits::Limits;
use super::listener;
use super::stats::ProxyStats;
use super::table::ServiceSpec;
use super::worker::{self, Command, Shared};

/// Why the L7 path did not start.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// A worker cannot be started.
    #[error("cannot start an L7 worker: {0}")]
    Worker(io::Error),
}

/// The running L7 path.
///
/// Dropping it ends the workers at once; [`Proxy::shutdown`] lets streams finish.
pub struct Proxy {
    shared: Arc<Shared>,
    /// For those who steer connections here: one listening socket of each address.
    listeners: Vec<TcpListener>,
    workers: Vec<(UnboundedSender<Command>, JoinHandle<()>)>,
}

// === impl Proxy ===

impl Proxy {
    /// Starts the workers. Each listens on every address of `bind`: addresses of this host to serve directly, or a loopback
    /// address to which an `sk_lookup` program hands connections.
    ///
    /// # Errors
    ///
    /// When an address cannot be bound or a thread not be started.
    pub fn start(limits: Limits, bind: &[SocketAddr]) -> Result<Self, ProxyError> {
        let count = limits.worker_count();
        let mut kept = Vec::new();
        let mut by_worker: Vec<Vec<TcpListener>> = (0..count).map(|_| Vec::new()).collect();
        for &address in bind {
            let failed = |source| ProxyError::Listen { address, source };
            let group = listener::bind(address, count).map_err(failed)?;
            if let Some(first) = group.first() {
                kept.push(first.try_clone().map_err(failed)?);
            }
            for (listeners, listener) in by_worker.iter_mut().zip(group) {
                listeners.push(listener);
            }
        }
        let shared = Arc::new(Shared::new(limits));
        let mut workers = Vec::new();
        for (id, listeners) in by_worker.into_iter().enumerate() {
            let (sender, commands) = unbounded_channel();
            let shared = shared.clone();
            let thread = std::thread::Builder::new()
                .name(format!("l7-{id}"))
                .spawn(move || {
                    if let Err(error) = worker::run(id, shared, listeners, commands) {
                        tracing::error!(worker = id, %error, "L7 worker ended");
                    }
                })
                .map_err(ProxyError::Worker)?;
            workers.push((sender, thread));
        }
        Ok(Self {
            shared,
            listeners: kept,
            workers,
        })
    }

    /// A listening socket for each address given to [`Proxy::start`]; they stand for all sockets of their SO_REUSEPORT
    /// group.
    #[must_use]
    pub fn listener_fds(&self) -> Vec<BorrowedFd<'_>> {
        self.listeners.iter().map(AsFd::as_fd).collect()
    }

    /// The addresses listened on, with the ports that the system chose.
    #[must_use]
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.listeners
            .iter()
            .filter_map(|listener| listener.local_addr().ok())
            .collect()
    }

    /// Replaces the services. New streams follow the new table, also those of old connections; streams under way stay.
    pub fn update(&self, services: Vec<ServiceSpec>) {
        let workers = self.workers.len();
        self.shared
            .replace(|table| table.replaced_by(services, workers));
    }

    /// All figures.
    #[must_use]
    pub fn stats(&self) -> ProxyStats {
        ProxyStats {
            workers: self.workers.len(),
            connections: self.shared.connections.load(Relaxed),
            connections_refused: self.shared.refused.load(Relaxed),
            services: self
                .shared
                .table()
                .services
                .iter()
                .map(|service| service.stats())
                .collect(),
        }
    }

    /// Asks the clients of a service to go: two-phase GOAWAY over HTTP/2, `Connection: close` over HTTP/1.1. Streams under
    /// way, and those that cross the GOAWAY, are served.
    pub fn drain(&self, service: SocketAddr) {
        self.tell(|| Command::Drain(Some(service)));
    }

    /// Accepts no more, drains everything, and ends when that is done or the grace is over.
    pub fn shutdown(mut self, grace: Duration) {
        self.listeners.clear();
        self.tell(|| Command::Shutdown(grace));
        for (_, thread) in self.workers.drain(..) {
            if thread.join().is_err() {
                tracing::error!("an L7 worker panicked");
            }
        }
    }

    fn tell(&self, command: impl Fn() -> Command) {
        for (sender, _) in &self.workers {
            // A worker that has ended has nothing to drain.
            let _ = sender.send(command());
        }
    }
}
