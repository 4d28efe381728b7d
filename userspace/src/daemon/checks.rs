//! Checks of backends, and what follows from them.
//!
//! [`run`] asks the state which checks are due, makes them, and tells it what came of them. A backend that is down gets
//! nothing new; what it has stays. Results are put into force by the next tick, all at once: tables are built anew, and where a
//! rack is gone its backends go down together.

use std::time::{Duration, Instant};

use super::handle::{Gone, Handle};
use super::plane::PlaneError;
use super::state::State;
use crate::health::{Due, Health, Unreachable, probe};

/// How often the state is asked, at least: services may have come.
const LOOK: Duration = Duration::from_secs(1);
/// And at most.
const PAUSE: Duration = Duration::from_millis(10);

/// Checks backends until the state is gone.
pub(super) async fn run(handle: Handle) {
    loop {
        let Ok((due, pause)) = handle.call(|state| state.checks_due(Instant::now())).await else {
            return;
        };
        for due in due {
            tokio::spawn(check(handle.clone(), due));
        }
        tokio::time::sleep(pause).await;
    }
}

async fn check(handle: Handle, due: Due) -> Result<(), Gone> {
    let result = probe(due.key.1, due.timeout).await;
    handle
        .call(move |state| state.checked(&due, result, Instant::now()))
        .await
}

impl State {
    /// The checks that are to be made now, and how long to wait before asking again. [`State::checked`] must be told of each.
    pub fn checks_due(&mut self, now: Instant) -> (Vec<Due>, Duration) {
        if std::mem::take(&mut self.checks_stale) {
            self.set_checks(now);
        }
        let at_once = usize::try_from(self.config.limits.checks).unwrap_or(usize::MAX);
        let due = self.checks.due(now, at_once);
        let next = self.checks.next();
        let left = next.map(|next| next.saturating_duration_since(now));
        (due, left.unwrap_or(LOOK).clamp(PAUSE, LOOK))
    }

    /// Has the backends checked that there are now.
    fn set_checks(&mut self, now: Instant) {
        let Self {
            checks,
            services,
            config,
            ..
        } = self;
        let wanted = services.iter().flat_map(|service| {
            let mut named = config.services.iter().filter(|s| s.name == service.name);
            let settings = named.next().and_then(|service| service.health);
            let backends = settings.map(|settings| {
                let backends = service.backends.iter();
                backends.map(move |backend| ((service.name.clone(), backend.address), settings))
            });
            backends.into_iter().flatten()
        });
        checks.set(wanted, now);
    }

    /// Takes in what came of a check.
    pub fn checked(&mut self, check: &Due, result: Result<(), Unreachable>, now: Instant) {
        let why = result.as_ref().err().map(ToString::to_string);
        let Some(change) = self.checks.done(check, result, now) else {
            return;
        };
        let (service, backend) = &check.key;
        match (change.to, why) {
            (Health::Down, Some(why)) => {
                tracing::warn!(service, %backend, why, "backend is down");
            }
            _ if change.from == Health::Down => tracing::info!(service, %backend, "backend is up"),
            _ => {}
        }
    }

    /// Puts into force what checks found out.
    pub(super) fn follow_checks(&mut self) -> Result<(), PlaneError> {
        if self.is_behind_checks() {
            let version = self.checks.version();
            self.refresh()?;
            self.checks_followed = version;
        }
        Ok(())
    }

    /// Whether checks know what may not be in force yet.
    pub(super) const fn is_behind_checks(&self) -> bool {
        self.checks_followed != self.checks.version()
    }

    /// The services whose backends are all down, so that all are used.
    pub(super) fn none_is_up(&self) -> Result<(), PlaneError> {
        if !self.checks.any_is_down() {
            return Ok(());
        }
        let all_down = self.services.iter().filter(|service| {
            let is_down = |address| self.checks.is_down(&service.name, address);
            service.is_all_down(is_down)
        });
        let names: Vec<&str> = all_down.map(|service| service.name.as_str()).collect();
        if names.is_empty() {
            return Ok(());
        }
        Err(PlaneError(format!("{}; so all are used", names.join(", "))))
    }
}
