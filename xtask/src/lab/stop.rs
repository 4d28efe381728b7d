//! Ends every process of a lab: those started for it, and whoever else is in its namespaces.
//!
//! Neither of the two lists holds everyone. Starting `nsenter` does not wait until it has called setns(2): a lab that
//! goes right after it started a program would find its namespaces empty, and the program would enter one of them
//! later, through the file that it had opened by then. And what a program starts in turn, only the namespace tells.
//!
//! An empty namespace is no proof of an end either: an exiting process gives up its namespaces some way before its
//! parent can learn of the end (`exit_task_namespaces` and `exit_notify` in the kernel's `do_exit`), and of several
//! threads the first may have gone long before the last. A pidfd is readable once the last one has ended and the
//! process can be waited for (pidfd_open(2)), and no other process ever takes its place as one with the same id would.

use std::{
    fs,
    os::fd::OwnedFd,
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io,
    process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal},
};

use super::cleanup::say;

/// How long processes of a lab have to end by themselves.
const GRACE: Duration = Duration::from_secs(2);
/// How often to look who is left.
const GLANCE: Duration = Duration::from_millis(10);

/// A process that ran when it was found.
#[derive(Debug)]
pub(super) struct Running {
    pid: Pid,
    handle: OwnedFd,
}

impl Running {
    /// Process `pid`, which must not have been waited for yet; ended or not.
    pub(super) fn new(pid: Pid) -> io::Result<Self> {
        let handle = pidfd_open(pid, PidfdFlags::empty())?;
        Ok(Self { pid, handle })
    }

    /// Whether its parent can wait for it now, or has.
    pub(super) fn has_ended(&self) -> bool {
        let mut ends = [PollFd::new(&self.handle, PollFlags::IN)];
        poll(&mut ends, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    fn signal(&self, signal: Signal) {
        // It may end at any time; then there is nobody to tell.
        let _ = pidfd_send_signal(&self.handle, signal);
    }
}

/// SIGTERM to all of `started` and to whoever is in `namespaces` (by inode), SIGKILL to those that stay; returns once
/// all of them have ended, or says who did not.
pub(super) fn stop(started: Vec<Running>, namespaces: &[u64]) {
    let begun = Instant::now();
    let mut left = started;
    loop {
        left.retain(|process| !process.has_ended());
        let others: Vec<Pid> = inhabitants(namespaces)
            .filter(|pid| left.iter().all(|process| process.pid != *pid))
            .collect();
        left.extend(others.into_iter().filter_map(|pid| {
            let process = Running::new(pid).ok()?;
            // Unless it ended in between and another one, of somebody else, has its id.
            lives_in(pid, namespaces).then_some(process)
        }));
        if left.is_empty() {
            return;
        }
        if begun.elapsed() > 2 * GRACE {
            let left: Vec<_> = left.iter().map(|process| process.pid).collect();
            say(format!("these processes of a lab do not end: {left:?}"));
            return;
        }
        let signal = if begun.elapsed() > GRACE {
            Signal::KILL
        } else {
            Signal::TERM
        };
        for process in &left {
            process.signal(signal);
        }
        thread::sleep(GLANCE);
    }
}

/// Whoever is in one of `namespaces`.
fn inhabitants(namespaces: &[u64]) -> impl Iterator<Item = Pid> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .filter(|pid| lives_in(*pid, namespaces))
}

fn lives_in(pid: Pid, namespaces: &[u64]) -> bool {
    let inode = || {
        let link = fs::read_link(format!("/proc/{}/ns/net", pid.as_raw_nonzero())).ok()?;
        let inode = link.to_str()?.strip_prefix("net:[")?.strip_suffix(']')?;
        inode.parse().ok()
    };
    inode().is_some_and(|inode| namespaces.contains(&inode))
}
