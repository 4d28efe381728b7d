//! The data path's clock: how long a tick is, and when it was the first one's turn.

use std::os::fd::AsFd as _;

use aya::Ebpf;
use aya::programs::Xdp;
use rustix::time::{ClockId, clock_getres};

use super::load::loaded;
use super::{DatapathError, syscall};

/// Tick lengths that a kernel can have, ns: 24 to 1,200 Hz (kernel/Kconfig.hz and its like of every architecture).
const TICKS: std::ops::RangeInclusive<i64> = 800_000..=42_000_000;
/// `ETH_HLEN`: the least that a program is run on.
const FRAME: [u8; 14] = [0; 14];

/// ns of a tick: the resolution of the coarse clocks is one. 0, so that the data path does without, if it is none that a
/// kernel can have.
pub(super) fn tick_ns() -> u32 {
    let resolution = clock_getres(ClockId::MonotonicCoarse);
    if resolution.tv_sec == 0 && TICKS.contains(&resolution.tv_nsec) {
        u32::try_from(resolution.tv_nsec).unwrap_or(0)
    } else {
        0
    }
}

/// Lets the data path compare its ticks with CLOCK_MONOTONIC; after the settings are written.
pub(super) fn calibrate(ebpf: &mut Ebpf) -> Result<(), DatapathError> {
    const NAME: &str = "ek_clock";
    let program: &mut Xdp = loaded(ebpf, NAME)?;
    let refused = |source| DatapathError::Bpf {
        call: "BPF_PROG_TEST_RUN",
        object: NAME.to_owned(),
        source,
    };
    let fd = program
        .fd()
        .map_err(|error| refused(std::io::Error::other(error)))?;
    syscall::test_run(fd.as_fd(), &FRAME)
        .map(drop)
        .map_err(refused)
}
