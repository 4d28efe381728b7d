//! The changes that can be asked for. Each is made whole, or refused with everything as it was.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use super::desired::{BackendOverride, ServiceView};
use super::moving;
use super::state::{ChangeError, State};
use crate::api::types::{BackendPatch, BackendRequest, ModeRequest};
use crate::config::{self, Config, MAX_WEIGHT, Mode};

/// How long a removed backend may keep its flows before it is taken out of the tables all the same. Flows that are
/// left then still reach it: a slot is not reused while a flow refers to it.
const LEAVE_TIME: Duration = Duration::from_secs(60);

impl State {
    /// Sets the mode of a service.
    ///
    /// # Errors
    /// The service is unknown, the request contradicts itself, or the data path refused.
    pub fn set_mode(
        &mut self,
        service: &str,
        request: ModeRequest,
        now: Instant,
    ) -> Result<String, ChangeError> {
        let ModeRequest {
            mode,
            move_existing,
            ..
        } = request;
        let deadline = moving::deadline(&request)?;
        let before = self.service(service)?.clone();
        if mode == Mode::Auto && !self.config.flows.count_streams {
            return Err(ChangeError::NotNow(format!(
                "{}: found `flows.count_streams = false`, and mode auto decides by the streams that are counted; allowed: l4, l7",
                self.config.file
            )));
        }
        if mode == Mode::L7
            && let Err(why) = self.reaches_proxy(&before)
        {
            return Err(ChangeError::NotNow(why));
        }
        self.change(|overrides| {
            let changed = overrides.service(&before.name);
            changed.mode = Some(mode);
            if mode != Mode::Auto {
                changed.decided = None;
            } else {
                // `auto` begins with what is in force, so that choosing it moves nothing by itself.
                changed.decided = Some(before.mode);
            }
        })?;
        // Whatever was asked for before, this is what is wanted now.
        self.moving.remove(&before.name);
        let rest = match (move_existing, mode) {
            (true, Mode::L4) => {
                self.streams.drain(before.address);
                "connections of the proxy are asked to come again".to_owned()
            }
            (true, _) => self.move_after(deadline, &before, now),
            (false, _) if before.mode == mode => "nothing moves".to_owned(),
            (false, _) => "flows that exist stay where they are".to_owned(),
        };
        tracing::info!(service = before.name, from = %before.configured_mode, to = %mode, "mode");
        Ok(format!("service {} is in mode {mode}; {rest}", before.name))
    }

    /// Whether connections of a service would reach the proxy; `Err` says why not, and what to do.
    pub(super) fn reaches_proxy(&self, service: &ServiceView) -> Result<(), String> {
        let ServiceView { name, address, .. } = service;
        let address = address.ip();
        if self.plane.is_local(address) {
            return Ok(());
        }
        Err(format!(
            "{address} is no address of this host, so connections to service {name} cannot reach the proxy: run `ip address add {address}/32 dev lo`"
        ))
    }

    /// Adds a backend, or takes one back that was removed.
    ///
    /// # Errors
    /// The service is unknown, the address is wrong or taken, or the data path refused.
    pub fn add_backend(
        &mut self,
        service: &str,
        request: &BackendRequest,
    ) -> Result<String, ChangeError> {
        let BackendRequest { address, weight } = request;
        let service = self.service(service)?.clone();
        let weight = weight.map(checked_weight).transpose()?;
        let address = parse_address(address)?;
        if self.services.iter().any(|s| s.address == address) {
            let why = format!("{address} is the address of a service: it would balance to itself");
            return Err(ChangeError::Wrong(why));
        }
        let key = (service.name.clone(), address);
        let present = service.backends.iter().any(|b| b.address == address);
        if present && !self.leaving.contains_key(&key) {
            let why = format!("{address} is a backend of service {} already", service.name);
            return Err(ChangeError::NotNow(why));
        }
        let waited = self.leaving.remove(&key);
        let in_file = self.in_file(&service.name, address);
        let changed = self.change(|overrides| {
            *overrides.backend(&service.name, address) = BackendOverride {
                weight,
                added: !in_file,
                ..BackendOverride::default()
            };
        });
        if let (Err(_), Some(until)) = (&changed, waited) {
            self.leaving.insert(key, until);
        }
        changed?;
        tracing::info!(service = service.name, backend = %address, "backend added");
        Ok(format!("service {} has backend {address}", service.name))
    }

    /// Changes weight or draining of a backend.
    ///
    /// # Errors
    /// Service or backend are unknown, the weight is out of range, or the data path refused.
    pub fn patch_backend(
        &mut self,
        service: &str,
        backend: &str,
        patch: BackendPatch,
    ) -> Result<String, ChangeError> {
        let (name, address) = self.backend(service, backend)?;
        let BackendPatch { weight, draining } = patch;
        let weight = weight.map(checked_weight).transpose()?;
        if self.leaving.contains_key(&(name.clone(), address)) {
            let why = format!("{address} is being removed from service {name}: add it again first");
            return Err(ChangeError::NotNow(why));
        }
        self.change(|overrides| {
            let changed = overrides.backend(&name, address);
            changed.weight = weight.or(changed.weight);
            changed.draining = draining.unwrap_or(changed.draining);
        })?;
        let mut parts = Vec::new();
        if let Some(weight) = weight {
            parts.push(format!("has weight {weight}"));
        }
        match draining {
            Some(true) => {
                parts.push("drains: it keeps what it has and takes nothing new".to_owned());
            }
            Some(false) => parts.push("is active".to_owned()),
            None => {}
        }
        if parts.is_empty() {
            parts.push("is as it was".to_owned());
        }
        let done = format!(
            "backend {address} of service {name} {}",
            parts.join(" and ")
        );
        tracing::info!("{done}");
        Ok(done)
    }

    /// Removes a backend: it drains, and leaves the tables once nothing is open on it (or at once).
    ///
    /// # Errors
    /// Service or backend are unknown, it is the last one, or the data path refused.
    pub fn remove_backend(
        &mut self,
        service: &str,
        backend: &str,
        at_once: bool,
        now: Instant,
    ) -> Result<String, ChangeError> {
        let (name, address) = self.backend(service, backend)?;
        let key = (name.clone(), address);
        let staying = self.service(&name)?.backends.iter().filter(|other| {
            other.address != address && !self.leaving.contains_key(&(name.clone(), other.address))
        });
        if staying.count() == 0 {
            let why = format!("{address} is the last backend of service {name}: drain it instead");
            return Err(ChangeError::NotNow(why));
        }
        let waited = self.leaving.remove(&key);
        if !at_once {
            self.leaving.insert(key.clone(), now + LEAVE_TIME);
        }
        let changed = self.change(|overrides| overrides.backend(&name, address).removed = true);
        if let Err(error) = changed {
            self.leaving.remove(&key);
            self.leaving.extend(waited.map(|until| (key, until)));
            return Err(error);
        }
        tracing::info!(service = name, backend = %address, at_once, "backend removed");
        if at_once {
            self.forget(&name, address);
        }
        Ok(if at_once {
            format!("backend {address} of service {name} is removed")
        } else {
            format!("backend {address} of service {name} drains and is then removed")
        })
    }

    /// Takes the configuration file in again.
    ///
    /// # Errors
    /// The file has a mistake, changes what only a restart can change, or the data path refused.
    pub fn reload(&mut self) -> Result<String, ChangeError> {
        let wrong = |errors: config::ConfigErrors| ChangeError::Wrong(errors.to_string());
        let new = Config::load(Path::new(&self.config.file)).map_err(wrong)?;
        config::host::check(&new).map_err(wrong)?;
        let fixed = needs_restart(&self.config, &new);
        if !fixed.is_empty() {
            return Err(ChangeError::NotNow(format!(
                "{}: {} changed, which takes effect by a restart only; nothing was changed",
                new.file,
                fixed.join(", ")
            )));
        }
        let overrides = self.overrides.carried_over(&self.config, &new);
        let leaving = self.leaving.clone();
        self.leaving.retain(|(name, address), _| {
            let mut services = new.services.iter().filter(|service| service.name == *name);
            let listed = services.any(|s| s.backends.iter().any(|b| b.address == *address));
            listed
                || overrides
                    .services
                    .get(name)
                    .is_some_and(|s| s.backends.contains_key(address))
        });
        if let Err(error) = self.install(self.wanted(&new, &overrides)) {
            self.leaving = leaving;
            return Err(error.into());
        }
        let services = new.services.len();
        self.config = new;
        self.overrides = overrides;
        self.forget_moves();
        self.warnings.remove("file");
        self.save();
        tracing::info!(services, "configuration taken in again");
        Ok(format!(
            "{} is in force: {services} services",
            self.config.file
        ))
    }
}

fn parse_address(text: &str) -> Result<SocketAddr, ChangeError> {
    config::backend_address(text).map_err(|why| {
        let separator = if why.is_empty() { "" } else { ", " };
        ChangeError::Wrong(format!(
            "found {text:?}{separator}{why}; allowed: an IPv4 address and port, such as \"10.0.1.1:50051\""
        ))
    })
}

fn checked_weight(weight: u32) -> Result<u32, ChangeError> {
    if weight <= MAX_WEIGHT {
        Ok(weight)
    } else {
        Err(ChangeError::Wrong(format!(
            "found weight {weight}; allowed: 0 to {MAX_WEIGHT}"
        )))
    }
}

/// The tables of the file that differ and are read at the start only.
fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    let tables = [
        ("[daemon]", old.daemon != new.daemon),
        ("[[interface]]", old.interfaces != new.interfaces),
        ("[flows]", old.flows != new.flows),
        ("[nat]", old.nat != new.nat),
        ("[limits]", old.limits != new.limits),
        ("[l7]", old.l7 != new.l7),
    ];
    let changed = tables.into_iter().filter(|(_, changed)| *changed);
    changed.map(|(table, _)| table).collect()
}
