//! The services as the workers see them: immutable tables, replaced whole.
//!
//! What outlives a replacement is handed on by address: a backend's load and counters, a service's counters, and the turn
//! of its balancer where the policy stays. So a reload neither forgets streams in flight nor starts the turns again.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::stats::{BackendStats, Load, ServiceCounters, ServiceStats};
use crate::balance::{Balancer, Policy};

/// A service to serve.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSpec {
    /// The address its clients connect to.
    pub address: SocketAddr,
    /// Its name in reports.
    pub name: String,
    /// How its streams are balanced.
    pub policy: Policy,
    /// Its backends.
    pub backends: Vec<BackendSpec>,
    /// It is also the service of connections to addresses that no service has: a plain listener, perhaps on `0.0.0.0`.
    /// Never true where a data path steers connections here, which would hand a removed service's clients to another's
    /// backends.
    pub any_address: bool,
}

/// A backend of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendSpec {
    /// Where it serves.
    pub address: SocketAddr,
    /// Its share of new streams; 0 for none.
    pub weight: u32,
    /// True when it shall get no new streams.
    pub draining: bool,
}

/// All services.
#[derive(Default)]
pub struct Table {
    /// In the order in which they were given.
    pub services: Vec<Arc<Service>>,
    by_address: HashMap<SocketAddr, usize>,
    /// The service of all other addresses.
    otherwise: Option<usize>,
}

/// A service as the workers see it.
pub struct Service {
    /// As it was given.
    pub spec: ServiceSpec,
    /// Chooses backends, for all workers together.
    pub balancer: Arc<dyn Balancer>,
    /// Load and counters by backend, in the order of the specification.
    pub loads: Vec<Arc<Load>>,
    /// Its counters, by worker.
    pub counters: Arc<[ServiceCounters]>,
}

// === impl Table ===

impl Table {
    /// The table that replaces this one.
    #[must_use]
    pub fn replaced_by(&self, specs: Vec<ServiceSpec>, workers: usize) -> Self {
        let services: Vec<Arc<Service>> = specs
            .into_iter()
            .map(|spec| Arc::new(Service::new(spec, self, workers)))
            .collect();
        let by_address = services
            .iter()
            .enumerate()
            .map(|(position, service)| (service.spec.address, position))
            .collect();
        let otherwise = services.iter().position(|service| service.spec.any_address);
        Self {
            services,
            by_address,
            otherwise,
        }
    }

    /// The service of a connection by its local address, which stays the service's address when the data path steers the
    /// connection to us.
    #[must_use]
    pub fn find(&self, local: SocketAddr) -> Option<&Arc<Service>> {
        let position = self.by_address.get(&local).or(self.otherwise.as_ref())?;
        self.services.get(*position)
    }
}

// === impl Service ===

impl Service {
    fn new(spec: ServiceSpec, before: &Table, workers: usize) -> Self {
        let before = before
            .by_address
            .get(&spec.address)
            .and_then(|position| before.services.get(*position));
        let loads = spec
            .backends
            .iter()
            .map(|backend| {
                before
                    .and_then(|before| before.load_of(backend.address))
                    .unwrap_or_else(|| Arc::new(Load::new(workers)))
            })
            .collect();
        let balancer = match before {
            Some(before) if before.spec.policy == spec.policy => before.balancer.clone(),
            _ => spec.policy.balancer().into(),
        };
        let counters = match before {
            Some(before) => before.counters.clone(),
            None => (0..workers).map(|_| ServiceCounters::default()).collect(),
        };
        Self {
            spec,
            balancer,
            loads,
            counters,
        }
    }

    fn load_of(&self, address: SocketAddr) -> Option<Arc<Load>> {
        let position = self
            .spec
            .backends
            .iter()
            .position(|b| b.address == address)?;
        self.loads.get(position).cloned()
    }

    /// The figures of this service, summed over the workers.
    #[must_use]
    pub fn stats(&self) -> ServiceStats {
        let sum = |counter: fn(&ServiceCounters) -> &super::stats::Counter| {
            self.counters.iter().map(|c| counter(c).get()).sum()
        };
        ServiceStats {
            name: self.spec.name.clone(),
            address: self.spec.address,
            connections_opened: sum(|c| &c.connections_opened),
            connections_active: sum(|c| &c.connections_active),
            http1_connections: sum(|c| &c.http1_connections),
            no_backend: sum(|c| &c.no_backend),
            streams_placed_again: sum(|c| &c.placed_again),
            floods: sum(|c| &c.floods),
            stalled: sum(|c| &c.stalled),
            received_bytes: sum(|c| &c.received_bytes),
            sent_bytes: sum(|c| &c.sent_bytes),
            backends: self
                .spec
                .backends
                .iter()
                .zip(&self.loads)
                .map(|(spec, load)| backend_stats(spec, load))
                .collect(),
        }
    }
}

fn backend_stats(spec: &BackendSpec, load: &Load) -> BackendStats {
    BackendStats {
        address: spec.address,
        weight: spec.weight,
        draining: spec.draining,
        down: load.is_down(),
        streams_opened: load.sum(|c| &c.opened),
        streams_active: load.in_flight(),
        streams_ok: load.sum(|c| &c.ok),
        streams_failed: load.sum(|c| &c.failed),
        streams_reset: load.sum(|c| &c.reset_by_client) + load.sum(|c| &c.reset_by_backend),
        streams_timed_out: load.sum(|c| &c.timed_out),
        streams_retried: load.sum(|c| &c.retried),
        connect_failures: load.sum(|c| &c.connect_failures),
        upstream_full: load.sum(|c| &c.upstream_full),
        http1_not_kept: load.sum(|c| &c.http1_not_kept),
        upstream_opened: load.sum(|c| &c.upstream_opened),
        upstream_active: load.sum(|c| &c.upstream_active),
        request_bytes: load.sum(|c| &c.request_bytes),
        response_bytes: load.sum(|c| &c.response_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::l7::stats::InFlight;

    fn service(port: u16, backends: &[u16]) -> ServiceSpec {
        ServiceSpec {
            address: SocketAddr::from(([10, 0, 0, 10], port)),
            name: format!("service-{port}"),
            policy: Policy::RoundRobin,
            backends: backends
                .iter()
                .map(|port| BackendSpec {
                    address: SocketAddr::from(([10, 0, 1, 1], *port)),
                    weight: 1,
                    draining: false,
                })
                .collect(),
            any_address: false,
        }
    }

    #[test]
    fn a_reload_keeps_load_and_counters() {
        let first = Table::default().replaced_by(vec![service(1, &[1, 2])], 1);
        let handle = InFlight::new(&first.services[0].loads[1]);
        first.services[0].counters[0].connections_opened.add(3);
        let second = first.replaced_by(vec![service(2, &[2]), service(1, &[2, 3])], 1);
        let stats = second.services[1].stats();
        assert_eq!(stats.connections_opened, 3);
        assert_eq!(
            stats.backends[0].streams_active, 1,
            "the backend that stayed"
        );
        assert_eq!(
            stats.backends[1].streams_active, 0,
            "the backend that is new"
        );
        assert_eq!(
            second.services[0].stats().backends[0].streams_active,
            0,
            "the same address in another service is another load"
        );
        drop(handle);
        assert_eq!(second.services[1].stats().backends[0].streams_active, 0);
    }

    #[test]
    fn clients_of_a_removed_service_are_not_those_of_the_one_that_is_left() {
        let first = SocketAddr::from(([10, 0, 0, 10], 1));
        let two = Table::default().replaced_by(vec![service(1, &[1]), service(2, &[1])], 1);
        assert!(two.find(first).is_some());
        let one = two.replaced_by(vec![service(2, &[1])], 1);
        assert!(one.find(first).is_none());
    }

    #[test]
    fn a_plain_listener_serves_every_address() {
        let plain = ServiceSpec {
            any_address: true,
            ..service(2, &[1])
        };
        let table = Table::default().replaced_by(vec![service(1, &[1]), plain], 1);
        for (port, name) in [(1, "service-1"), (2, "service-2"), (9, "service-2")] {
            let found = table.find(SocketAddr::from(([10, 0, 0, 10], port)));
            assert_eq!(found.map(|service| service.spec.name.as_str()), Some(name));
        }
    }
}
