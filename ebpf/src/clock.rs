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

/// The turn of 2^34 ns (17 s) that `now` is in: how often each half of a flow looks the other one up. With a million
/// entries, 60,000 new flows a second could push a half out in between if it were silent, which one direction of a TCP
/// connection hardly is; more often, and the second cold lookup is what a packet of one of a million flows costs most.
#[inline(always)]
pub const fn turn(now: u64) -> u32 {
    (now >> 34) as u32
}
