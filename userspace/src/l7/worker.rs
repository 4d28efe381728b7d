//! One worker: a thread with its own runtime, listeners, downstream connections and upstream pools.
//!
//! A connection and all its streams stay on the worker that accepted it, so nothing here is locked. Workers share only the
//! [`Table`] of services, which is looked at again when its generation changes, and the streams in flight.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::detect::Protocol;
use super::limits::Limits;
use super::registry::{Connections, Handle, Registered};
use super::stats::{InFlight, ServiceCounters};
use super::table::{Service, Table};
use super::upstream::Pool;
use super::{detect, listener};
use crate::balance::Candidate;

/// How often idle timeouts and keepalives are looked at; they need no better precision, and no timer each.
pub const TICK_MS: u64 = 250;

/// What all workers share.
pub struct Shared {
    /// The limits.
    pub limits: Limits,
    table: Mutex<Arc<Table>>,
    generation: AtomicU64,
    /// Downstream connections now, over all workers.
    pub connections: AtomicU64,
    /// Downstream connections refused because there were too many.
    pub refused: AtomicU64,
}

/// What the proxy asks of a worker.
pub enum Command {
    /// Two-phase GOAWAY on the downstream connections of a service, or of all.
    Drain(Option<SocketAddr>),
    /// Drain everything, and end when it is done or after the grace.
    Shutdown(Duration),
}

/// One worker.
pub struct Worker {
    /// Its position, by which it finds its counters.
    pub id: usize,
    /// The limits.
    pub limits: Rc<Limits>,
    /// What all workers share.
    pub shared: Arc<Shared>,
    views: RefCell<Views>,
    pools: RefCell<HashMap<(SocketAddr, SocketAddr), Rc<Pool>>>,
    /// Its downstream connections.
    pub connections: Rc<Connections>,
    candidates: RefCell<Vec<Candidate>>,
    random: Cell<u64>,
    started: Instant,
    now: Cell<u64>,
}

#[derive(Default)]
struct Views {
    generation: u64,
    table: Arc<Table>,
    by_address: HashMap<SocketAddr, Rc<View>>,
}

/// A service as one worker uses it: with its pools, in the order of the service's backends.
pub struct View {
    /// The service.
    pub service: Arc<Service>,
    /// A pool for each backend.
    pub pools: Vec<Rc<Pool>>,
    generation: u64,
    worker: usize,
}

// === impl Shared ===

impl Shared {
    /// No services yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            table: Mutex::default(),
            generation: AtomicU64::new(1),
            connections: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// The services now.
    pub fn table(&self) -> Arc<Table> {
        self.table
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Replaces the services, as a function of those before.
    pub fn replace(&self, next: impl FnOnce(&Table) -> Table) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        *table = Arc::new(next(&table));
        self.generation.fetch_add(1, Release);
    }
}

// === impl Worker ===

impl Worker {
    fn new(id: usize, shared: Arc<Shared>) -> Self {
        Self {
            id,
            limits: Rc::new(shared.limits.clone()),
            shared,
            views: RefCell::default(),
            pools: RefCell::default(),
            connections: Rc::default(),
            candidates: RefCell::default(),
            random: Cell::new(seed(id)),
            started: Instant::now(),
            now: Cell::new(1),
        }
    }

    /// The service at an address, as of now.
    pub fn view(self: &Rc<Self>, local: SocketAddr) -> Option<Rc<View>> {
        self.refresh();
        let mut views = self.views.borrow_mut();
        if let Some(view) = views.by_address.get(&local) {
            return Some(view.clone());
        }
        let service = views.table.find(local)?.clone();
        let view = Rc::new(View {
            pools: self.pools_of(&service),
            service,
            generation: views.generation,
            worker: self.id,
        });
        views.by_address.insert(local, view.clone());
        Some(view)
    }

    /// True while no newer table has come than the one that the view was made from.
    pub fn is_current(&self, view: &View) -> bool {
        view.generation == self.shared.generation.load(Relaxed)
    }

    /// Milliseconds of the last tick, never 0: time enough for timeouts, and no call of the system's clock.
    pub fn now(&self) -> u64 {
        self.now.get()
    }

    /// Chooses a backend that is not among those `tried`, and counts a stream in flight to it.
    pub fn choose(
        &self,
        view: &View,
        protocol: Protocol,
        tried: &[usize],
    ) -> Option<(usize, InFlight)> {
        let service = &*view.service;
        let mut candidates = self.candidates.borrow_mut();
        candidates.clear();
        candidates.extend(
            service
                .spec
                .backends
                .iter()
                .enumerate()
                .map(|(position, spec)| {
                    let out = spec.draining
                        || tried.contains(&position)
                        || view.pools[position].is_down(protocol);
                    Candidate {
                        weight: if out { 0 } else { spec.weight },
                        in_flight: service.loads[position].in_flight(),
                    }
                }),
        );
        let position = service
            .balancer
            .pick(&candidates, &mut || self.next_random())?;
        Some((position, InFlight::new(service.loads.get(position)?)))
    }

    /// Books a new downstream connection.
    pub fn register(self: &Rc<Self>, local: SocketAddr, view: &Rc<View>) -> Registered {
        Registered::new(self, local, view, self.now.get())
    }

    /// Forgets what a newer table no longer has.
    fn refresh(&self) {
        let generation = self.shared.generation.load(Acquire);
        let mut views = self.views.borrow_mut();
        if views.generation == generation {
            return;
        }
        *views = Views {
            generation,
            table: self.shared.table(),
            by_address: HashMap::new(),
        };
        let table = views.table.clone();
        self.pools.borrow_mut().retain(|(service, backend), pool| {
            // By the load, too: a backend that went and came back between two looks has a new one, and would count in vain.
            let kept = table.services.iter().any(|s| {
                let mut backends = s.spec.backends.iter().zip(&s.loads);
                s.spec.address == *service
                    && backends.any(|(spec, load)| {
                        spec.address == *backend && Arc::ptr_eq(load, &pool.load)
                    })
            });
            if !kept {
                pool.retire();
            }
            pool.table_changed();
            kept
        });
    }

    fn pools_of(&self, service: &Service) -> Vec<Rc<Pool>> {
        let mut pools = self.pools.borrow_mut();
        service
            .spec
            .backends
            .iter()
            .zip(&service.loads)
            .map(|(backend, load)| {
                pools
                    .entry((service.spec.address, backend.address))
                    .or_insert_with(|| {
                        Pool::new(backend.address, load.clone(), self.id, self.limits.clone())
                    })
                    .clone()
            })
            .collect()
    }

    /// xorshift64*: the choice of a backend needs no better.
    fn next_random(&self) -> u64 {
        let mut state = self.random.get();
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        self.random.set(state);
        state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn tick(&self) {
        let elapsed = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        // Never 0, which stands for "not yet".
        self.now.set(elapsed.saturating_add(1));
        self.refresh();
        self.connections
            .each(|handle| handle.tick(self.now.get(), &self.limits));
        for pool in self.pools.borrow().values() {
            pool.tick(self.now.get());
        }
    }

    fn drain(&self, service: Option<SocketAddr>) {
        let table = self.shared.table();
        let address = |local| table.find(local).map(|service| service.spec.address);
        self.connections.each(|handle| {
            if service.is_none() || handle.local.get().and_then(address) == service {
                handle.ask_to_drain();
            }
        });
    }
}

fn seed(id: usize) -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(id) | 1
}

// === impl View ===

impl View {
    /// The worker's counters for the service.
    pub fn counters(&self) -> &ServiceCounters {
        &self.service.counters[self.worker]
    }

    /// The position of a backend by its pool, if the service has it.
    pub fn position_of(&self, pool: &Rc<Pool>) -> Option<usize> {
        self.pools.iter().position(|other| Rc::ptr_eq(other, pool))
    }

    /// True where a backend gets new streams, as far as the table says.
    pub fn takes_streams(&self, position: usize) -> bool {
        let backend = &self.service.spec.backends[position];
        !backend.draining && backend.weight > 0
    }
}

/// Runs a worker on this thread until it is told to shut down.
pub fn run(
    id: usize,
    shared: Arc<Shared>,
    listeners: Vec<std::net::TcpListener>,
    commands: mpsc::UnboundedReceiver<Command>,
) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?;
    runtime.block_on(serve(id, shared, listeners, commands))
}

async fn serve(
    id: usize,
    shared: Arc<Shared>,
    listeners: Vec<std::net::TcpListener>,
    mut commands: mpsc::UnboundedReceiver<Command>,
) -> std::io::Result<()> {
    let worker = Rc::new(Worker::new(id, shared));
    let mut accepting = Vec::new();
    for socket in listeners {
        let socket = TcpListener::from_std(socket)?;
        accepting.push(tokio::task::spawn_local(accept(worker.clone(), socket)));
    }
    let mut ticks = tokio::time::interval(Duration::from_millis(TICK_MS));
    loop {
        tokio::select! {
            _ = ticks.tick() => worker.tick(),
            command = commands.recv() => match command {
                Some(Command::Drain(service)) => worker.drain(service),
                Some(Command::Shutdown(grace)) => {
                    accepting.iter().for_each(tokio::task::JoinHandle::abort);
                    finish(&worker, grace).await;
                    return Ok(());
                }
                None => return Ok(()),
            },
        }
    }
}

/// Drains all connections, and waits for them until the grace is over. Those that have said nothing yet have nothing to lose.
async fn finish(worker: &Worker, grace: Duration) {
    worker.drain(None);
    let idle = async {
        while !worker.connections.are_silent() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(grace, idle).await.is_err() {
        worker.connections.each(Handle::close_now);
        tokio::task::yield_now().await;
    }
}

async fn accept(worker: Rc<Worker>, socket: TcpListener) {
    loop {
        match socket.accept().await {
            Ok((connection, _)) => {
                let open = worker.shared.connections.fetch_add(1, Relaxed);
                if open >= worker.limits.max_connections as u64 {
                    worker.shared.connections.fetch_sub(1, Relaxed);
                    worker.shared.refused.fetch_add(1, Relaxed);
                    listener::reset(connection);
                    continue;
                }
                // Without a service there is nobody to answer for it.
                let served = connection
                    .local_addr()
                    .ok()
                    .and_then(|local| Some((local, worker.view(local)?)));
                let Some((local, view)) = served else {
                    worker.shared.connections.fetch_sub(1, Relaxed);
                    listener::reset(connection);
                    continue;
                };
                let registered = worker.register(local, &view);
                let serving = detect::serve(worker.clone(), connection, local, registered, view);
                tokio::task::spawn_local(serving);
            }
            // Out of descriptors, or the peer left the queue: the listener itself is well. Without the pause the first
            // would be a busy loop.
            Err(error) => {
                tracing::warn!(%error, "accept");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests;
