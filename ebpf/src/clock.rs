//! Time, as coarse as the kernel's tick: nothing here needs better, and the fine clock costs three times as much.

use aya_ebpf::helpers::generated::bpf_ktime_get_coarse_ns;

/// ns of CLOCK_MONOTONIC, advancing with the timer tick (Linux 5.11).
#[inline(always)]
pub fn now() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// The tick of 2^30 ns (1.07 s) that `now` is in: how often next hops are looked up.
#[inline(always)]
pub const fn tick(now: u64) -> u32 {
    (now >> 30) as u32
}

/// How long a half of a flow must have been silent for its next packet to look the other half up: 2^34 ns, 17 s.
const LONG: u64 = 1 << 34;

/// Whether a half that was last seen at `last_seen` was silent for long.
#[inline(always)]
pub const fn was_silent(now: u64, last_seen: u64) -> bool {
    now.wrapping_sub(last_seen) > LONG
}
