//! The state, and how it becomes what is desired. The changes that can be asked for are in [`super::changes`].
//!
//! A change is: edit a copy of the overrides, derive what is desired, install that in the proxy and the data path,
//! and only then keep and store the copy. A change that fails is undone and leaves everything as it was.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use thiserror::Error;

use super::desired::{Leaving, Overrides, ServiceView, desired};
use super::moving::Move;
use super::plane::{Plane, PlaneError, Streams};
use super::store::Store;
use super::tick::Periodic;
use crate::config::Config;
use crate::health::Checks;

/// Why a change was not made. Nothing has changed.
#[derive(Debug, Error)]
pub enum ChangeError {
    /// No such service or backend.
    #[error("{what} {name:?} is unknown")]
    Unknown {
        /// `service`, or `backend of service ...`.
        what: String,
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The request cannot mean anything.
    #[error("{0}")]
    Wrong(String),
    /// The request makes sense, but not now.
    #[error("{0}")]
    NotNow(String),
    /// The data path refused.
    #[error("the data path refused: {0}")]
    Plane(#[from] PlaneError),
}

/// The daemon's state.
pub struct State {
    pub(super) config: Config,
    pub(super) services: Vec<ServiceView>,
    pub(super) plane: Box<dyn Plane>,
    pub(super) streams: Box<dyn Streams>,
    pub(super) started: Instant,
    pub(super) adopted: bool,
    pub(super) leaving: Leaving,
    /// Services whose flows are to be moved from backends to the proxy, by name.
    pub(super) moving: BTreeMap<String, Move>,
    pub(super) periodic: Periodic,
    /// What checks know of backends.
    pub(super) checks: Checks,
    /// Which version of that is in force.
    pub(super) checks_followed: u64,
    /// Whether there may be other backends to check by now.
    pub(super) checks_stale: bool,
    /// By subject, so that one that heals disappears.
    pub(super) warnings: BTreeMap<&'static str, String>,
    pub(super) overrides: Overrides,
    store: Store,
}

impl State {
    /// Installs what `config` and the stored overrides say.
    ///
    /// # Errors
    /// The data path refused; the daemon should not start.
    pub fn start(
        config: Config,
        plane: Box<dyn Plane>,
        streams: Box<dyn Streams>,
        adopted: bool,
        now: Instant,
    ) -> Result<Self, PlaneError> {
        let store = Store::new(&config.daemon.state_dir);
        let (overrides, unreadable) = store.load();
        // Overrides of services that the file no longer has are dropped, as in a reload.
        let overrides = overrides.carried_over(&config, &config);
        let mut state = Self {
            services: Vec::new(),
            plane,
            streams,
            started: now,
            adopted,
            leaving: Leaving::new(),
            moving: BTreeMap::new(),
            periodic: Periodic::new(now),
            // Only for when checks begin, which daemons that start together should not agree on.
            checks: Checks::new(std::process::id().into()),
            checks_followed: 0,
            checks_stale: true,
            warnings: BTreeMap::new(),
            overrides,
            store,
            config,
        };
        if let Some(why) = unreadable {
            tracing::warn!("{why}");
            state.warnings.insert("state", why);
        }
        state.look_ahead();
        match state.refresh() {
            Ok(()) => Ok(state),
            Err(error) => {
                // A start that fails leaves the host as it was; what an earlier run left carries on.
                if !adopted && let Err(again) = state.plane.detach() {
                    tracing::error!(%again, "the data path cannot be taken off");
                }
                Err(error)
            }
        }
    }

    /// What a reload or a change will need, tried now: the start could read the file with privileges that have been given up
    /// since, and nobody would know before it matters.
    fn look_ahead(&mut self) {
        let Config { file, daemon, .. } = &self.config;
        let user = rustix::process::geteuid().as_raw();
        let reading = std::fs::File::open(file).err().map(|error| {
            format!("{file} cannot be read any more ({error}), so a reload will fail: let user {user} read it")
        });
        let directory = daemon.state_dir.display();
        let writing = self.store.probe().err().map(|error| {
            format!("{directory} cannot be written to ({error}), so a restart will forget changes: let user {user} write there")
        });
        for (subject, why) in [("file", reading), ("state", writing)] {
            if let Some(why) = why {
                tracing::warn!("{why}");
                self.warnings.insert(subject, why);
            }
        }
    }

    /// Why a part of the daemon does not work as configured.
    pub fn warnings(&self) -> impl Iterator<Item = &str> {
        self.warnings.values().map(String::as_str)
    }

    /// Ends: the proxy gets `grace`, the data path goes unless it is to be kept.
    ///
    /// # Errors
    /// The kernel refused to let the data path go.
    pub fn stop(self, keep_datapath: bool, grace: Duration) -> Result<(), PlaneError> {
        self.streams.shutdown(grace);
        if keep_datapath {
            return Ok(());
        }
        self.plane.detach()
    }

    /// A service by name or address.
    pub(super) fn service(&self, wanted: &str) -> Result<&ServiceView, ChangeError> {
        self.services
            .iter()
            .find(|service| service.name == wanted || service.address.to_string() == wanted)
            .ok_or_else(|| ChangeError::Unknown {
                what: "service".to_owned(),
                name: wanted.to_owned(),
                known: self.services.iter().map(|s| s.name.clone()).collect(),
            })
    }

    /// Name and backend address, of a service by name or address.
    pub(super) fn backend(
        &self,
        service: &str,
        wanted: &str,
    ) -> Result<(String, SocketAddr), ChangeError> {
        let service = self.service(service)?;
        let found = service
            .backends
            .iter()
            .find(|b| b.address.to_string() == wanted);
        match found {
            Some(backend) => Ok((service.name.clone(), backend.address)),
            None => Err(ChangeError::Unknown {
                what: format!("backend of service {}", service.name),
                name: wanted.to_owned(),
                known: service
                    .backends
                    .iter()
                    .map(|b| b.address.to_string())
                    .collect(),
            }),
        }
    }

    pub(super) fn in_file(&self, service: &str, address: SocketAddr) -> bool {
        let mut services = self.config.services.iter().filter(|s| s.name == service);
        services.any(|s| s.backends.iter().any(|b| b.address == address))
    }

    /// Makes an edited copy of the overrides what is in force, or leaves everything as it was.
    pub(super) fn change(&mut self, edit: impl FnOnce(&mut Overrides)) -> Result<(), ChangeError> {
        let mut overrides = self.overrides.clone();
        edit(&mut overrides);
        let wanted = self.wanted(&self.config, &overrides);
        self.install(wanted)?;
        self.overrides = overrides;
        self.save();
        Ok(())
    }

    /// Derives what is desired again and installs it.
    pub(super) fn refresh(&mut self) -> Result<(), PlaneError> {
        let wanted = self.wanted(&self.config, &self.overrides);
        self.install(wanted)
    }

    /// What is desired by `config` and `overrides`, and by what checks know.
    pub(super) fn wanted(&self, config: &Config, overrides: &Overrides) -> Vec<ServiceView> {
        let mut services = desired(config, overrides, &self.leaving);
        for service in &mut services {
            let name = service.name.clone();
            service.mark_down(|address| self.checks.is_down(&name, address));
        }
        services
    }

    /// Forgets an override of a backend that is neither in the file nor in use.
    pub(super) fn forget(&mut self, name: &str, address: SocketAddr) {
        if !self.in_file(name, address) {
            self.overrides.service(name).backends.remove(&address);
            self.save();
        }
    }

    /// Installs `wanted`. The proxy learns first what is new and last what is gone: whenever the kernel hands it a
    /// connection, it knows the service.
    pub(super) fn install(&mut self, wanted: Vec<ServiceView>) -> Result<(), PlaneError> {
        let mut both = wanted.clone();
        let gone = |old: &&ServiceView| !wanted.iter().any(|new| new.address == old.address);
        both.extend(self.services.iter().filter(gone).cloned());
        self.streams.update(&both);
        if let Err(error) = self.plane.apply(&wanted) {
            self.streams.update(&self.services);
            // The data path promises to change nothing when it fails; said again, in case it did.
            if !self.services.is_empty()
                && let Err(again) = self.plane.apply(&self.services)
            {
                tracing::error!(%again, "the data path may differ from the configuration");
            }
            return Err(error);
        }
        if both.len() > wanted.len() {
            self.streams.update(&wanted);
        }
        self.services = wanted;
        self.checks_stale = true;
        Ok(())
    }

    /// Stores the overrides; where that fails the change is in force all the same, and `status` says so.
    pub(super) fn save(&mut self) {
        match self.store.save(&self.overrides) {
            Ok(()) => {
                self.warnings.remove("state");
            }
            Err(error) => {
                let directory = self.config.daemon.state_dir.display();
                let why = format!(
                    "changes cannot be stored in {directory} ({error}): a restart forgets them"
                );
                tracing::warn!("{why}");
                self.warnings.insert("state", why);
            }
        }
    }
}
