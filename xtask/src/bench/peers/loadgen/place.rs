//! Client and server each on a CPU of its own.
//!
//! Left to the scheduler, two programs that wait for each other are at times put on one CPU and at times on two: with one
//! connection and one stream that alone was 42,000 requests a second or 11,000, for either client.

use anyhow::Result;
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// Who runs somewhere.
#[derive(Clone, Copy)]
pub(super) enum Side {
    Server,
    Client,
}

/// Does `work` so that the programs it starts stay on the CPU of that side; anywhere where there is only one.
pub(super) fn on<T>(side: Side, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let this = Pid::from_raw(0);
    let all = sched_getaffinity(this)?;
    let mut own = (0..CpuSet::count()).filter(|cpu| all.is_set(*cpu).unwrap_or(false));
    let (Some(first), Some(second)) = (own.next(), own.next()) else {
        return work();
    };
    let mut one = CpuSet::new();
    one.set(match side {
        Side::Server => first,
        Side::Client => second,
    })?;
    // Inherited by what this thread starts (sched_setaffinity(2)).
    sched_setaffinity(this, &one)?;
    let done = work();
    sched_setaffinity(this, &all)?;
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_are_apart_and_nobody_stays_where_work_was_done() -> Result<()> {
        let here = || Ok(sched_getaffinity(Pid::from_raw(0))?);
        let before = here()?;
        let cpus = |set: &CpuSet| {
            let is_set = |cpu: &usize| set.is_set(*cpu).unwrap_or(false);
            (0..CpuSet::count()).filter(is_set).collect::<Vec<_>>()
        };
        let (server, client) = (on(Side::Server, here)?, on(Side::Client, here)?);
        if cpus(&before).len() > 1 {
            assert_eq!((cpus(&server).len(), cpus(&client).len()), (1, 1));
            assert_ne!(cpus(&server), cpus(&client));
        }
        assert_eq!(here()?, before);
        Ok(())
    }
}
