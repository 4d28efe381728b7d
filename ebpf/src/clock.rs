//! Time, as coarse as the kernel's tick: nothing here needs better.
//!
//! The kernel's own coarse clock is a call that takes as long as a flow is looked up (28 of the 160 ns of a request, where
//! this was measured). The number of ticks since boot is one load from memory; it advances with CLOCK_MONOTONIC, by
//! exactly one for each `tick_ns` (`tick_do_update_jiffies64`, kernel/time/tick-sched.c). What is added to make one of the
//! other is found by [`calibrate`], at load and then about every second: on a host that loses ticks the two would part.

use aya_ebpf::helpers::generated::{bpf_jiffies64, bpf_ktime_get_coarse_ns};
use evenkeel_ebpf::abi::CREATED_SHIFT;

use crate::maps::SETTINGS;

/// ns of CLOCK_MONOTONIC, advancing with the timer tick.
#[inline(always)]
pub fn now() -> u64 {
    match SETTINGS.get(0) {
        Some(settings) if settings.tick_ns != 0 => {
            ticks(settings.tick_ns).wrapping_add(settings.clock_offset)
        }
        _ => coarse(),
    }
}

/// Finds out what [`now`] adds to the ticks.
#[inline(always)]
pub fn calibrate() {
    if let Some(settings) = SETTINGS.get_ptr_mut(0) {
        // SAFETY: a live map value; a packet meanwhile sees the old offset or the new one, a word either way.
        unsafe {
            let offset = coarse().wrapping_sub(ticks((*settings).tick_ns));
            (&raw mut (*settings).clock_offset).write_volatile(offset);
        }
    }
}

/// The ticks since boot, as ns (Linux 5.6).
#[inline(always)]
fn ticks(tick_ns: u32) -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_jiffies64() }.wrapping_mul(tick_ns.into())
}

/// The same clock, from the kernel (Linux 5.11).
#[inline(always)]
fn coarse() -> u64 {
    // SAFETY: a helper without arguments.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// The tick of 2^30 ns (1.07 s) that `now` is in: how often next hops are looked up.
#[inline(always)]
pub const fn tick(now: u64) -> u32 {
    (now >> 30) as u32
}

/// `now` as `Flow::created` has it.
#[inline(always)]
pub const fn created(now: u64) -> u32 {
    (now >> CREATED_SHIFT) as u32
}

/// How long a half of a flow must have been silent for its next packet to look the other half up: 2^34 ns, 17 s.
const LONG: u64 = 1 << 34;

/// Whether a half that was last seen at `last_seen` was silent for long.
#[inline(always)]
pub const fn was_silent(now: u64, last_seen: u64) -> bool {
    now.wrapping_sub(last_seen) > LONG
}
