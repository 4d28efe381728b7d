//! Time, as coarse as the kernel's tick: nothing here needs better, and the fine clock costs three times as much.

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;

/// ns of CLOCK_MONOTONIC, advancing with the timer tick (Linux 5.11).
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// The tick of 2^30 ns (1.07 s) that `now` is in: how often neighbours and the other half of a flow are looked up.
#[inline(always)]
pub const fn tick(now: u64) -> u32 {
    (now >> 30) as u32
}
