//! Forgetting flows that nobody will end: their client or backend is gone without a word, or there never was one (a flood of
//! SYNs). Each holds a NAT port, of which a backend has some 22,500, and the index of its backend.
//!
//! | flow | forgotten after a silence of |
//! | --- | --- |
//! | established, on a backend that there is | `flows.idle_timeout` |
//! | never established, half closed, or on a removed backend | `flows.transitory_timeout` |
//!
//! Both are RFC 5382's (REQ-5). The halves of a flow keep each other young to within some 17 s (`ebpf/src/pair.rs`), so each
//! is judged by itself. A flow is closed by the program `ek_expire`, which counts it, and then removed like any other that
//! is closed.

use std::collections::HashSet;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use aya::Ebpf;
use aya::programs::Xdp;
use evenkeel_ebpf::abi::{EXPIRED_AT_ONCE, flag, state};

use super::flows::now;
use super::load::loaded;
use super::{Datapath, DatapathError, Options, syscall};

/// How often the table is looked through. It takes some 15 ms where there are a million flows.
const EVERY: Duration = Duration::from_secs(10);
/// `ETH_HLEN`: what comes before the list.
const HEADER: usize = 14;
const PROGRAM: &str = "ek_expire";

/// Loads the program, unless it is.
pub(super) fn load(ebpf: &mut Ebpf) -> Result<&mut Xdp, DatapathError> {
    loaded(ebpf, PROGRAM)
}

/// What is silent since before these times is forgotten.
#[derive(Clone, Debug)]
pub(super) struct Silence {
    idle: u64,
    transitory: u64,
    /// Backends that are no more.
    retired: HashSet<u32>,
}

impl Silence {
    /// At time `now`, ns of CLOCK_MONOTONIC.
    fn new(options: &Options, now: u64, retired: HashSet<u32>) -> Self {
        let before = |timeout: Duration| {
            now.saturating_sub(u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX))
        };
        Self {
            // One that is longer for what is over than for what is not would make no sense.
            transitory: before(options.transitory_timeout.min(options.idle_timeout)),
            idle: before(options.idle_timeout),
            retired,
        }
    }

    /// Whether a half with this state and last packet may be one to forget; what its backend is need not be known.
    pub(super) fn is_long(&self, bits: u8, last_seen: u64) -> bool {
        bits & state::CLOSED == 0 && last_seen <= self.transitory
    }

    /// Whether a half for which [`Self::is_long`] is true is forgotten. `backend`: none if it is the local proxy's.
    pub(super) fn ends(&self, bits: u8, last_seen: u64, backend: Option<u32>) -> bool {
        const FINS: u8 = state::CLIENT_FIN | state::BACKEND_FIN;
        last_seen <= self.idle
            || bits & state::ESTABLISHED == 0
            || bits & FINS != 0
            || backend.is_some_and(|backend| self.retired.contains(&backend))
    }
}

impl Datapath {
    /// Whether it is time to look for flows to forget.
    pub(super) fn expiry_is_due(&self) -> bool {
        Instant::now() >= self.next_expiry
    }

    /// What is to be forgotten by now.
    pub(super) fn silence(&self) -> Silence {
        let backends = self.indexes.backends.occupied();
        let retired = backends.filter(|(.., live)| !live);
        let retired = retired.map(|(index, ..)| index).collect();
        Silence::new(&self.options, now(), retired)
    }

    /// Closes the flows that were silent for too long; returns how many were found.
    pub(super) fn expire(&mut self, silence: &Silence) -> Result<u64, DatapathError> {
        self.next_expiry = Instant::now() + EVERY;
        let found = self.maps.flows.slots_where(|held| {
            let (bits, last_seen) = (held.state(), held.last_seen());
            silence.is_long(bits, last_seen) && {
                let flow = held.slot().value;
                let backend = (flow.flags & flag::LOCAL == 0).then_some(flow.backend);
                silence.ends(bits, last_seen, backend)
            }
        });
        if found.is_empty() {
            return Ok(0);
        }
        let refused = |source| DatapathError::Bpf {
            call: "BPF_PROG_TEST_RUN",
            object: PROGRAM.to_owned(),
            source,
        };
        let fd = load(&mut self.ebpf)?
            .fd()
            .map_err(|error| refused(std::io::Error::other(error)))?;
        for some in found.chunks(EXPIRED_AT_ONCE as usize) {
            syscall::test_run(fd.as_fd(), &list(some)).map_err(refused)?;
        }
        Ok(found.len() as u64)
    }
}

/// The list that the program takes: see `abi::Expired`.
fn list(flows: &[(u32, u64)]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    for (slot, last_seen) in flows {
        bytes.extend(u64::from(*slot).to_le_bytes());
        bytes.extend(last_seen.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const NOW: u64 = 1_000_000 * SECOND;
    const ESTABLISHED: u8 = state::USED | state::SYN | state::ESTABLISHED;

    /// Whether a flow with this state on backend 1, silent for so many seconds, is forgotten; backend 7 is retired.
    fn forgotten(bits: u8, seconds: u64, backend: Option<u32>) -> bool {
        let silence = Silence::new(&Options::default(), NOW, HashSet::from([7]));
        let last_seen = NOW - seconds * SECOND;
        silence.is_long(bits, last_seen) && silence.ends(bits, last_seen, backend)
    }

    #[test]
    fn an_established_flow_is_forgotten_after_the_idle_timeout() {
        assert!(!forgotten(ESTABLISHED, 124 * 60 - 1, Some(1)));
        assert!(forgotten(ESTABLISHED, 124 * 60, Some(1)));
        assert!(!forgotten(ESTABLISHED, 124 * 60 - 1, None), "the proxy's");
    }

    #[test]
    fn one_that_is_not_whole_is_forgotten_after_the_transitory_timeout() {
        for (bits, what) in [
            (state::USED | state::SYN, "opening"),
            (state::USED, "adopted, and nobody answered"),
            (ESTABLISHED | state::CLIENT_FIN, "half closed by the client"),
            (
                ESTABLISHED | state::BACKEND_FIN,
                "half closed by the backend",
            ),
        ] {
            assert!(!forgotten(bits, 239, Some(1)), "{what}");
            assert!(forgotten(bits, 240, Some(1)), "{what}");
        }
    }

    #[test]
    fn one_on_a_removed_backend_is_forgotten_after_the_transitory_timeout() {
        assert!(!forgotten(ESTABLISHED, 239, Some(7)));
        assert!(forgotten(ESTABLISHED, 240, Some(7)));
    }

    #[test]
    fn a_closed_one_is_left_to_the_sweep() {
        assert!(!forgotten(ESTABLISHED | state::CLOSED, 1_000_000, Some(1)));
    }
}
