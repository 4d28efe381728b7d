//! The daemon: owns the state; everything changes through one place, in order.
//!
//! ```text
//! control socket --> control --> handle --> [one thread: State] --> Plane  (the data path)
//! SIGHUP, SIGTERM ----------------^  ^                         \--> Streams (the proxy)
//! checks of backends ----------------'
//! ```
//!
//! [`State`] is plain code on one thread: whatever changes or reads it is a closure sent there by a [`Handle`], so two
//! changes never overlap and none is seen half done. What is desired is the configuration plus *overrides* (what the
//! CLI changed), a pure function ([`desired`]); overrides are stored and survive a restart.

mod changes;
mod checks;
mod control;
mod desired;
mod handle;
mod kernel;
mod moving;
mod plane;
mod proxy;
mod report;
mod run;
mod state;
mod store;
mod tick;

pub use control::Routes;
pub use desired::{BackendView, ServiceView};
pub use handle::{Gone, Handle};
pub use kernel::preflight;
pub use plane::{FlowView, Plane, PlaneError, Snapshot, Streams, Verdict};
pub use run::{Options, run};
pub use state::{ChangeError, State};
