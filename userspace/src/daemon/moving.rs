//! Flows that exist, from backends to the proxy: `mode SERVICE l7 --move-existing`.
//!
//! They may stay until the deadline; then what is left is reset. Another mode before that, also one that a reload brings,
//! calls it off, and so does the end of the daemon: then the flows live out where they are.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::desired::ServiceView;
use super::plane::PlaneError;
use super::state::{ChangeError, State};
use crate::api::types::ModeRequest;
use crate::config::Mode;

/// How long flows may stay, unless a request says otherwise.
const MOVE_TIME: Duration = Duration::from_secs(30);
/// The longest that a request may say.
const MOST_MOVE_TIME: Duration = Duration::from_secs(3600);

/// When the flows of a service are to be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Move {
    /// The service's address: another one of its name is another service.
    address: SocketAddr,
    /// When.
    until: Instant,
}

impl State {
    /// Moves the flows of `service` after `deadline`; says so.
    pub(super) fn move_after(
        &mut self,
        deadline: Duration,
        service: &ServiceView,
        now: Instant,
    ) -> String {
        let ServiceView { name, address, .. } = service;
        if deadline.is_zero() {
            return match self.move_flows(name, *address) {
                1 => "1 flow is reset, for its client to come again".to_owned(),
                moved => format!("{moved} flows are reset, for their clients to come again"),
            };
        }
        let until = now + deadline;
        let address = *address;
        self.moving.insert(name.clone(), Move { address, until });
        format!(
            "flows that are left in {} are reset, for their clients to come again",
            humantime::format_duration(deadline)
        )
    }

    /// Moves the flows of services that were given until now. What cannot be moved yet is tried again.
    pub(super) fn move_due(&mut self, now: Instant) -> Result<(), PlaneError> {
        let due: Vec<String> = self
            .moving
            .iter()
            .filter(|(_, due)| due.until <= now)
            .map(|(name, _)| name.clone())
            .collect();
        let mut failed = Vec::new();
        for name in due {
            let Some(service) = self.services.iter().find(|service| service.name == name) else {
                self.moving.remove(&name);
                continue;
            };
            let address = service.address;
            // Nobody would reset what does not reach this host's stack.
            if let Err(why) = self.reaches_proxy(service) {
                failed.push(why);
                continue;
            }
            self.moving.remove(&name);
            self.move_flows(&name, address);
        }
        if failed.is_empty() {
            Ok(())
        } else {
            Err(PlaneError(failed.join("; ")))
        }
    }

    /// How long it is until the flows of a service are moved, if they are to be.
    pub(super) fn moves_in(&self, name: &str, now: Instant) -> Option<Duration> {
        let due = self.moving.get(name)?;
        Some(due.until.saturating_duration_since(now))
    }

    /// Calls off the moves of services that are not what they were, or not at `l7` any more.
    pub(super) fn forget_moves(&mut self) {
        let services = &self.services;
        self.moving.retain(|name, due| {
            let stays = services.iter().any(|service| {
                service.name == *name && service.address == due.address && service.mode == Mode::L7
            });
            if !stays {
                tracing::info!(service = name, "its flows are not moved");
            }
            stays
        });
    }

    fn move_flows(&mut self, name: &str, address: SocketAddr) -> u64 {
        let flows = self.plane.move_flows(address);
        tracing::info!(service = name, flows, "flows on backends are reset");
        flows
    }
}

/// How long flows that are to be moved may stay.
pub(super) fn deadline(request: &ModeRequest) -> Result<Duration, ChangeError> {
    let ModeRequest {
        mode,
        move_existing,
        deadline_ms,
    } = *request;
    if move_existing && mode == Mode::Auto {
        let why = "mode auto moves no flows: allowed with --move-existing are l4 and l7";
        return Err(ChangeError::Wrong(why.to_owned()));
    }
    match deadline_ms {
        None => Ok(MOVE_TIME),
        Some(_) if mode != Mode::L7 || !move_existing => Err(ChangeError::Wrong(
            "a deadline is for mode l7 with --move-existing, and for nothing else".to_owned(),
        )),
        Some(found) if u128::from(found) > MOST_MOVE_TIME.as_millis() => Err(ChangeError::Wrong(
            format!("found a deadline of {found} ms; allowed: up to an hour"),
        )),
        Some(found) => Ok(Duration::from_millis(found)),
    }
}
