//! [`Streams`] by the real proxy.

use std::net::SocketAddr;
use std::time::Duration;

use super::desired::ServiceView;
use super::plane::Streams;
use crate::l7::{BackendSpec, Proxy, ProxyStats, ServiceSpec};

impl Streams for Proxy {
    fn update(&mut self, services: &[ServiceView]) {
        // Of every mode: what reaches the proxy was handed over while the service was in `l7`, perhaps with the handshake
        // still under way when the mode changed. The kernel decides, the proxy serves.
        let specs = services.iter().map(|service| ServiceSpec {
            address: service.address,
            name: service.name.clone(),
            policy: service.policy,
            backends: service
                .backends
                .iter()
                .map(|backend| BackendSpec {
                    address: backend.address,
                    weight: backend.weight,
                    // What is down is to get nothing new, either.
                    draining: backend.draining || backend.down,
                })
                .collect(),
            // The kernel also hands over what a removed service's flows still send.
            any_address: false,
        });
        Self::update(self, specs.collect());
    }

    fn figures(&self) -> ProxyStats {
        self.stats()
    }

    fn drain(&mut self, service: SocketAddr) {
        Self::drain(self, service);
    }

    fn shutdown(self: Box<Self>, grace: Duration) {
        Self::shutdown(*self, grace);
    }
}
