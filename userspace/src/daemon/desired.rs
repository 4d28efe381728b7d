//! What should be: the configuration plus what the CLI changed. Pure.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use serde::{Deserialize, Serialize};

use crate::balance::Policy;
use crate::config::{Config, Forwarding, HashChoice, Mode, Service};

/// One service as it should be balanced now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceView {
    /// Name.
    pub name: String,
    /// Virtual address.
    pub address: SocketAddr,
    /// Mode asked for.
    pub configured_mode: Mode,
    /// Mode in force for new flows; never `auto`.
    pub mode: Mode,
    /// Policy for streams.
    pub policy: Policy,
    /// Forwarding for flows.
    pub forwarding: Forwarding,
    /// What decides the backend of a new flow.
    pub hash: HashChoice,
    /// Backends.
    pub backends: Vec<BackendView>,
}

/// One backend as it should be used now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendView {
    /// Address.
    pub address: SocketAddr,
    /// Weight while it does not drain.
    pub weight: u32,
    /// Whether it takes nothing new.
    pub draining: bool,
    /// Whether it fails its checks, and others do not.
    pub down: bool,
}

impl ServiceView {
    /// Whether every backend that would get something is down.
    pub(super) fn is_all_down(&self, is_down: impl Fn(SocketAddr) -> bool) -> bool {
        let mut wanted = self.backends.iter().filter(|backend| backend.is_wanted());
        let any = wanted.clone().next().is_some();
        any && wanted.all(|backend| is_down(backend.address))
    }

    /// Marks the backends that are down. Where all are, none is marked: checks that fail everywhere may be what is wrong, and
    /// must not end a service.
    pub(super) fn mark_down(&mut self, is_down: impl Fn(SocketAddr) -> bool) {
        let all = self.is_all_down(&is_down);
        for backend in &mut self.backends {
            backend.down = !all && is_down(backend.address);
        }
    }
}

impl BackendView {
    /// Its share of what is new.
    #[must_use]
    pub const fn effective_weight(&self) -> u32 {
        if self.draining || self.down {
            0
        } else {
            self.weight
        }
    }

    /// Whether its owner wants it to get anything new.
    const fn is_wanted(&self) -> bool {
        !self.draining && self.weight > 0
    }
}

/// What the CLI changed, by service name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Overrides {
    #[serde(default)]
    pub(super) services: BTreeMap<String, ServiceOverride>,
}

/// What the CLI changed of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServiceOverride {
    /// `evenkeel mode`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) mode: Option<Mode>,
    /// What `auto` decided last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) decided: Option<Mode>,
    /// `evenkeel backends`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) backends: BTreeMap<SocketAddr, BackendOverride>,
}

/// What the CLI changed of one backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BackendOverride {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) weight: Option<u32>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) draining: bool,
    /// It is not in the file.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) added: bool,
    /// It is in the file, or was added, and shall not be used.
    #[serde(default, skip_serializing_if = "is_false")]
    pub(super) removed: bool,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde calls it with a reference"
)]
fn is_false(value: &bool) -> bool {
    !*value
}

/// Backends that are removed but still have flows or streams, and until when they are waited for: by service name and
/// address.
pub(super) type Leaving = BTreeMap<(String, SocketAddr), Instant>;

/// The services as they should be.
pub(super) fn desired(
    config: &Config,
    overrides: &Overrides,
    leaving: &Leaving,
) -> Vec<ServiceView> {
    let nothing = ServiceOverride::default();
    config
        .services
        .iter()
        .map(|service| {
            let changed = overrides.services.get(&service.name).unwrap_or(&nothing);
            view(service, changed, leaving)
        })
        .collect()
}

fn view(service: &Service, changed: &ServiceOverride, leaving: &Leaving) -> ServiceView {
    let nothing = BackendOverride::default();
    let from_file = service.backends.iter().map(|backend| {
        let changed = changed.backends.get(&backend.address).unwrap_or(&nothing);
        (backend.address, backend.weight, changed)
    });
    let in_file = |address: &SocketAddr| service.backends.iter().any(|b| b.address == *address);
    let added = changed
        .backends
        .iter()
        .filter(|(address, changed)| changed.added && !in_file(address))
        .map(|(address, changed)| (*address, 1, changed));
    let backends = from_file
        .chain(added)
        .filter_map(|(address, weight, changed)| {
            let leaves = leaving.contains_key(&(service.name.clone(), address));
            (leaves || !changed.removed).then(|| BackendView {
                address,
                weight: changed.weight.unwrap_or(weight),
                draining: changed.draining || changed.removed,
                down: false,
            })
        })
        .collect();
    ServiceView {
        name: service.name.clone(),
        address: service.address,
        configured_mode: changed.configured_mode(service),
        mode: changed.mode_in_force(service),
        policy: service.policy,
        forwarding: service.forwarding,
        hash: service.hash,
        backends,
    }
}

impl ServiceOverride {
    /// The mode asked for.
    fn configured_mode(&self, service: &Service) -> Mode {
        self.mode.unwrap_or(service.mode)
    }

    /// The mode of new flows; never `auto`.
    fn mode_in_force(&self, service: &Service) -> Mode {
        match self.configured_mode(service) {
            Mode::Auto => self.decided.unwrap_or(Mode::L4),
            fixed => fixed,
        }
    }
}

impl Overrides {
    pub(super) fn service(&mut self, name: &str) -> &mut ServiceOverride {
        self.services.entry(name.to_owned()).or_default()
    }

    pub(super) fn backend(&mut self, name: &str, address: SocketAddr) -> &mut BackendOverride {
        self.service(name).backends.entry(address).or_default()
    }

    /// What remains of the overrides when the file changes from `old` to `new`: whatever the author of the new file
    /// changed himself wins over what the CLI changed before, and what is gone needs no override.
    pub(super) fn carried_over(&self, old: &Config, new: &Config) -> Self {
        let mut kept = Self::default();
        for service in &new.services {
            let before = old.services.iter().find(|s| s.name == service.name);
            let mut changed = self
                .services
                .get(&service.name)
                .cloned()
                .unwrap_or_default();
            if let Some(before) = before
                && before.mode != service.mode
            {
                // `auto` begins with what is in force, as when the CLI chooses it.
                let in_force = changed.mode_in_force(before);
                changed.decided = (service.mode == Mode::Auto).then_some(in_force);
                changed.mode = None;
            }
            changed
                .backends
                .retain(|address, changed| keep_backend(before, service, *address, changed));
            if changed != ServiceOverride::default() {
                kept.services.insert(service.name.clone(), changed);
            }
        }
        kept
    }
}

fn keep_backend(
    before: Option<&Service>,
    after: &Service,
    address: SocketAddr,
    changed: &mut BackendOverride,
) -> bool {
    let find = |service: &Service| {
        service
            .backends
            .iter()
            .find(|b| b.address == address)
            .copied()
    };
    let (old, new) = (before.and_then(find), find(after));
    match (old, new) {
        // The author took it out, or never had it.
        (_, None) => changed.added && !changed.removed,
        // The author put it in.
        (None, Some(_)) => false,
        (Some(old), Some(new)) => {
            if old.weight != new.weight {
                changed.weight = None;
            }
            *changed != BackendOverride::default()
        }
    }
}

#[cfg(test)]
mod tests;
