//! Whether backends can be reached: active checks.
//!
//! A check is a TCP connection, made and given up: it tells a process that is gone, a host that is gone, a port that nobody
//! listens on. It does not tell a process that hangs, whose kernel goes on accepting for it.
//!
//! | part | what it does |
//! | --- | --- |
//! | `tracker` | what a row of results makes of a backend; pure |
//! | `checks` | which backends are due, and what is known of each; pure, told the time |
//! | `probe` | one check |
//!
//! What follows from it is the daemon's matter.

mod checks;
mod probe;
mod tracker;

use std::time::Duration;

pub use checks::{Change, Checks, Due, Key, Known};
pub use probe::{Unreachable, probe};
pub use tracker::{Health, Tracker};

/// How the backends of a service are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// From the beginning of one check of a backend to that of the next.
    pub interval: Duration,
    /// A check that takes longer has failed; at most `interval`.
    pub timeout: Duration,
    /// So many checks in a row must fail before a backend is down.
    pub fall: u32,
    /// So many in a row must succeed before it is up again.
    pub rise: u32,
}

impl Default for Settings {
    /// A backend that vanishes is down after 8 s at most: three checks begin within 6.6, and the last one takes one.
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            fall: 3,
            rise: 2,
        }
    }
}
