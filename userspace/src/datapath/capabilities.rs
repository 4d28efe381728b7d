//! What a process must be allowed to do, and giving up the rest.

use std::io;

use caps::{CapSet, Capability, CapsHashSet};

use super::DatapathError;

/// What the running data path needs: maps and programs, and attaching, routes and neighbours. `CAP_PERFMON` is only
/// for the verifier to accept pointer arithmetic when a program is loaded, `CAP_SYS_ADMIN` only to mount a bpffs
/// and before Linux 5.8.
const KEPT: [Capability; 2] = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN];

/// Whether this thread may load and attach.
#[must_use]
pub fn sufficient() -> bool {
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    has(Capability::CAP_NET_ADMIN)
        && (has(Capability::CAP_SYS_ADMIN)
            || (has(Capability::CAP_BPF) && has(Capability::CAP_PERFMON)))
}

/// Keeps `CAP_BPF` and `CAP_NET_ADMIN` and gives up every other capability, for this thread and those it starts
/// from now on: call it before the worker threads exist. Later calls of this module need no more, except to attach
/// XDP to a first interface (which loads a program) after it.
pub fn drop_after_load() -> Result<(), DatapathError> {
    let failed = |error: caps::errors::CapsError| DatapathError::System {
        action: "giving up capabilities",
        source: io::Error::other(error.to_string()),
    };
    let held = caps::read(None, CapSet::Permitted).map_err(failed)?;
    let kept: CapsHashSet = KEPT
        .into_iter()
        .filter(|capability| held.contains(capability))
        .collect();
    // The bounding set first, while CAP_SETPCAP is still there: nothing executed later can get them back.
    if held.contains(&Capability::CAP_SETPCAP) {
        for capability in caps::runtime::thread_all_supported() {
            if !kept.contains(&capability) {
                caps::drop(None, CapSet::Bounding, capability).map_err(failed)?;
            }
        }
    }
    for set in [CapSet::Ambient, CapSet::Inheritable] {
        caps::clear(None, set).map_err(failed)?;
    }
    caps::set(None, CapSet::Effective, &kept).map_err(failed)?;
    caps::set(None, CapSet::Permitted, &kept).map_err(failed)
}
