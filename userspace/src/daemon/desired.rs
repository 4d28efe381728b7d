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

    /// Whether [`ServiceView::mark_down`] would change anything.
    pub(super) fn differs(&self, is_down: impl Fn(SocketAddr) -> bool) -> bool {
        let all = self.is_all_down(&is_down);
        let mut backends = self.backends.iter();
        backends.any(|backend| backend.down != (!all && is_down(backend.address)))
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
mod tests {
    use super::{BackendOverride, BackendView, Leaving, Overrides, desired};
    use crate::config::{Config, Mode};

    fn config(services: &str) -> Config {
        let text = format!("[[interface]]\nname = \"lo\"\n{services}");
        Config::parse(&text, "test.toml").expect("a right configuration")
    }

    fn one(mode: &str, weights: &[u32]) -> Config {
        let mut text =
            format!("[[service]]\nname = \"a\"\naddress = \"10.0.0.1:80\"\nmode = \"{mode}\"\n");
        for (n, weight) in weights.iter().enumerate() {
            text +=
                &format!("[[service.backend]]\naddress = \"10.0.1.{n}:80\"\nweight = {weight}\n");
        }
        config(&text)
    }

    #[test]
    fn the_command_line_wins_over_the_file() {
        let config = one("l4", &[1, 1, 1]);
        let mut overrides = Overrides::default();
        overrides.service("a").mode = Some(Mode::L7);
        overrides
            .backend("a", config.services[0].backends[0].address)
            .weight = Some(7);
        overrides
            .backend("a", config.services[0].backends[1].address)
            .draining = true;
        overrides
            .backend("a", config.services[0].backends[2].address)
            .removed = true;
        let added = "10.0.9.9:80".parse().expect("an address");
        *overrides.backend("a", added) = BackendOverride {
            added: true,
            ..Default::default()
        };
        let view = &desired(&config, &overrides, &Leaving::new())[0];
        assert_eq!((view.mode, view.configured_mode), (Mode::L7, Mode::L7));
        let weights: Vec<_> = view
            .backends
            .iter()
            .map(|b| (b.weight, b.effective_weight()))
            .collect();
        assert_eq!(weights, [(7, 7), (1, 0), (1, 1)]);
        assert_eq!(view.backends[2].address, added);
    }

    #[test]
    fn a_removed_backend_drains_while_it_leaves() {
        let config = one("l4", &[1, 1]);
        let address = config.services[0].backends[0].address;
        let mut overrides = Overrides::default();
        overrides.backend("a", address).removed = true;
        let leaving = Leaving::from([(("a".to_owned(), address), std::time::Instant::now())]);
        assert!(desired(&config, &overrides, &leaving)[0].backends[0].draining);
        assert_eq!(
            desired(&config, &overrides, &Leaving::new())[0]
                .backends
                .len(),
            1
        );
    }

    #[test]
    fn a_backend_that_is_down_gets_nothing_unless_all_are() {
        let config = one("l4", &[1, 2, 0]);
        let mut view = desired(&config, &Overrides::default(), &Leaving::new()).remove(0);
        let addresses: Vec<_> = view.backends.iter().map(|b| b.address).collect();
        let mut weights = |down: &[usize]| {
            let is_down = |address| down.iter().any(|index| addresses[*index] == address);
            view.mark_down(is_down);
            assert!(!view.differs(is_down));
            let weights = view.backends.iter().map(BackendView::effective_weight);
            weights.collect::<Vec<_>>()
        };
        assert_eq!(weights(&[0]), [0, 2, 0]);
        assert_eq!(weights(&[1, 2]), [1, 0, 0]);
        // The third gets nothing anyway: it does not count as one that is up.
        assert_eq!(weights(&[0, 1]), [1, 2, 0]);
        assert_eq!(weights(&[]), [1, 2, 0]);
    }

    #[test]
    fn auto_is_l4_until_decided() {
        let config = one("auto", &[1]);
        let mut overrides = Overrides::default();
        assert_eq!(
            desired(&config, &overrides, &Leaving::new())[0].mode,
            Mode::L4
        );
        overrides.service("a").decided = Some(Mode::L7);
        assert_eq!(
            desired(&config, &overrides, &Leaving::new())[0].mode,
            Mode::L7
        );
    }

    #[test]
    fn a_file_that_changes_to_auto_begins_with_what_is_in_force() {
        let auto = one("auto", &[1]);
        let in_force = |config: &Config, overrides: &Overrides| {
            desired(config, overrides, &Leaving::new())[0].mode
        };
        for mode in ["l4", "l7"] {
            let old = one(mode, &[1]);
            let nothing = Overrides::default();
            let kept = nothing.carried_over(&old, &auto);
            assert_eq!(in_force(&auto, &kept), in_force(&old, &nothing));
            let back = kept.carried_over(&auto, &old);
            assert_eq!(back, nothing, "and a fixed mode needs nothing decided");
        }
    }

    #[test]
    fn what_the_author_of_a_new_file_changed_wins_and_the_rest_stays() {
        let (old, new) = (one("l4", &[1, 1]), one("auto", &[1, 5]));
        let mut overrides = Overrides::default();
        overrides.service("a").mode = Some(Mode::L7);
        for backend in &old.services[0].backends {
            overrides.backend("a", backend.address).weight = Some(9);
        }
        let kept = overrides.carried_over(&old, &new);
        let view = &desired(&new, &kept, &Leaving::new())[0];
        assert_eq!(view.configured_mode, Mode::Auto);
        assert_eq!(
            view.backends.iter().map(|b| b.weight).collect::<Vec<_>>(),
            [9, 5]
        );
        assert_eq!(overrides.carried_over(&old, &old), overrides);
        let gone = config(
            "[[service]]\nname=\"b\"\naddress=\"10.0.0.1:80\"\nbackend=[{address=\"10.1.0.1:1\"}]",
        );
        assert_eq!(overrides.carried_over(&old, &gone), Overrides::default());
    }
}
