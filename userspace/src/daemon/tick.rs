//! What the daemon does on its own, between requests.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::desired::ServiceView;
use super::plane::{PlaneError, Snapshot};
use super::state::State;
use crate::api::types::Counters;
use crate::config::Mode;
use crate::pinning::auto::{Controller, Interval};
use crate::pinning::skew::{self, Load};

/// How often closed flows are freed and leaving backends looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How often neighbours are kept resolved; the kernel forgets idle ones after 30 s or more.
const WARM_EVERY: Duration = Duration::from_secs(10);

/// When things are due, and what they need to remember.
pub(super) struct Periodic {
    sweep: Instant,
    warm: Instant,
    auto: Instant,
    /// Counters at the last decision on `auto`.
    before: Option<Snapshot>,
    controllers: HashMap<String, Controller>,
}

impl Periodic {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            sweep: now,
            warm: now,
            auto: now,
            before: None,
            controllers: HashMap::new(),
        }
    }
}

impl State {
    /// Does what is due. Called a few times a second; a failure is logged and tried again when next due.
    pub fn tick(&mut self, now: Instant) {
        let followed = self.follow_checks();
        self.note(
            "checks",
            "backends that are down, or up again, cannot be taken out, or in",
            followed,
        );
        if now >= self.periodic.sweep {
            self.periodic.sweep = now + SWEEP_EVERY;
            let swept = self.plane.sweep();
            self.note("sweep", "closed flows cannot be freed", swept);
            let left = self.let_go(now);
            self.note("leaving", "removed backends cannot be taken out", left);
            let moved = self.move_due(now);
            self.note("moving", "flows cannot be moved to the proxy", moved);
            let up = self.none_is_up();
            self.note("health", "all backends of a service fail their checks", up);
        }
        if now >= self.periodic.warm {
            self.periodic.warm = now + WARM_EVERY;
            let tended = self.plane.tend_interfaces();
            self.note("interfaces", "an interface is not attached to", tended);
            let warmed = self.plane.warm();
            self.note("neighbours", "neighbours cannot be resolved ahead", warmed);
            let mut l7 = self
                .services
                .iter()
                .filter(|service| service.mode == Mode::L7);
            let reached = l7.try_for_each(|service| self.reaches_proxy(service));
            self.note(
                "proxy",
                "a service of mode l7 is not served",
                reached.map_err(PlaneError),
            );
            let apart = shared_backend(&self.services).map_or(Ok(()), |why| Err(PlaneError(why)));
            self.note("shared", "figures are incomplete", apart);
        }
        if now >= self.periodic.auto {
            self.periodic.auto = now + self.config.auto.interval;
            let decided = self.decide();
            self.note("auto", "mode auto cannot switch every service", decided);
        }
    }

    /// Keeps `result` as a warning, logged when it first appears, until the same thing works again.
    fn note(&mut self, subject: &'static str, what: &str, result: Result<(), PlaneError>) {
        match result {
            Ok(()) => {
                self.warnings.remove(subject);
            }
            Err(error) => {
                let why = format!("{what}: {error}");
                if self.warnings.insert(subject, why.clone()).is_none() {
                    tracing::warn!("{why}");
                }
            }
        }
    }

    /// Takes leaving backends out of the tables: those with nothing open, and those that were waited for long enough.
    fn let_go(&mut self, now: Instant) -> Result<(), PlaneError> {
        if self.leaving.is_empty() {
            return Ok(());
        }
        let counters = self.plane.counters()?.backends;
        let open = |name: &str, address: SocketAddr| {
            let service = self.services.iter().find(|service| service.name == name);
            let key = service.map(|service| (service.address, address));
            key.and_then(|key| counters.get(&key))
                .map_or(0, Counters::open)
        };
        let gone: Vec<((String, SocketAddr), Instant)> = self
            .leaving
            .iter()
            .filter(|((name, address), until)| now >= **until || open(name, *address) == 0)
            .map(|(key, until)| (key.clone(), *until))
            .collect();
        if gone.is_empty() {
            return Ok(());
        }
        for (key, _) in &gone {
            self.leaving.remove(key);
        }
        if let Err(error) = self.refresh() {
            self.leaving.extend(gone);
            return Err(error);
        }
        for ((name, address), _) in gone {
            tracing::info!(service = name, backend = %address, "removed backend has left");
            self.forget(&name, address);
        }
        Ok(())
    }

    /// Decides for every service of mode `auto`, each on its own.
    fn decide(&mut self) -> Result<(), PlaneError> {
        let auto: Vec<ServiceView> = self
            .services
            .iter()
            .filter(|service| service.configured_mode == Mode::Auto)
            .cloned()
            .collect();
        self.periodic
            .controllers
            .retain(|name, _| auto.iter().any(|service| service.name == *name));
        if auto.is_empty() {
            self.periodic.before = None;
            return Ok(());
        }
        // Refused in the file and from the CLI; left is what the CLI chose before the file changed.
        if !self.config.flows.count_streams {
            let why = "`flows.count_streams` is false, so there is nothing to decide by";
            return Err(PlaneError(why.to_owned()));
        }
        let now = self.plane.counters()?;
        let Some(before) = self.periodic.before.replace(now.clone()) else {
            return Ok(());
        };
        // One that cannot be switched must not keep the others where they are.
        let failed: Vec<String> = auto
            .iter()
            .filter_map(|service| self.decide_for(service, &before, &now).err())
            .map(|error| error.to_string())
            .collect();
        if failed.is_empty() {
            Ok(())
        } else {
            Err(PlaneError(failed.join("; ")))
        }
    }

    fn decide_for(
        &mut self,
        service: &ServiceView,
        before: &Snapshot,
        now: &Snapshot,
    ) -> Result<(), PlaneError> {
        let interval = interval(service, before, now);
        let auto = &self.config.auto;
        let controllers = &mut self.periodic.controllers;
        let controller = controllers.entry(service.name.clone()).or_default();
        let undecided = *controller;
        let Some(reason) = controller.decide(&interval, auto.hot_factor, auto.min_streams) else {
            return Ok(());
        };
        let to = if interval.l7 { Mode::L4 } else { Mode::L7 };
        let switched = self.switch(service, to);
        match &switched {
            Ok(()) => tracing::info!(service = service.name, %to, "auto: {reason}"),
            // What was seen still holds: the next interval that agrees tries again.
            Err(_) => {
                let controllers = &mut self.periodic.controllers;
                controllers.insert(service.name.clone(), undecided);
            }
        }
        switched
    }

    fn switch(&mut self, service: &ServiceView, to: Mode) -> Result<(), PlaneError> {
        if to == Mode::L7 {
            self.reaches_proxy(service).map_err(PlaneError)?;
        }
        self.change(|overrides| overrides.service(&service.name).decided = Some(to))
            .map_err(PlaneError::new)
    }
}

/// A service of mode `l7` that shares a backend with another service. The kernel sees the proxy's connections to that
/// backend, but not for which service they are.
fn shared_backend(services: &[ServiceView]) -> Option<String> {
    let serves = |service: &ServiceView, address| {
        let mut backends = service.backends.iter();
        backends.any(|backend| backend.address == address)
    };
    for service in services.iter().filter(|service| service.mode == Mode::L7) {
        for backend in &service.backends {
            let address = backend.address;
            let mut others = services.iter().filter(|other| other.name != service.name);
            if let Some(other) = others.find(|other| serves(other, address)) {
                return Some(format!(
                    "backend {address} serves {} and {}, and streams that the proxy sends it are counted for one of them only",
                    service.name, other.name
                ));
            }
        }
    }
    None
}

/// What happened to a service between two snapshots.
fn interval(service: &ServiceView, before: &Snapshot, now: &Snapshot) -> Interval {
    let grown = |key: &SocketAddr, field: fn(&Counters) -> u64| {
        let of = |snapshot: &Snapshot| snapshot.services.get(key).map_or(0, field);
        of(now).saturating_sub(of(before))
    };
    let loads: Vec<Load> = service
        .backends
        .iter()
        .map(|backend| {
            let key = (service.address, backend.address);
            let of = |snapshot: &Snapshot| snapshot.backends.get(&key).map_or(0, |c| c.streams);
            Load {
                streams: of(now).saturating_sub(of(before)),
                weight: backend.effective_weight(),
            }
        })
        .collect();
    Interval {
        l7: service.mode == Mode::L7,
        streams: grown(&service.address, |counters| counters.streams),
        flows_opened: grown(&service.address, |counters| counters.flows_opened),
        backends: loads.iter().filter(|load| load.weight > 0).count(),
        hot_factor: skew::hot_factor(&loads),
    }
}
