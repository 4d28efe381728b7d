//! Counters: per CPU, so plain additions; userspace sums them.

use evenkeel_ebpf::abi::{Counters, Event};

use crate::frame::Verdict;
use crate::maps::{BACKEND_COUNTS, EVENTS, SERVICE_COUNTS};

/// Counts one occurrence.
#[inline(always)]
pub fn event(event: Event) {
    number(event as u32);
}

/// Counts one occurrence of the event with this number.
#[inline(always)]
pub fn number(event: u32) {
    if let Some(count) = EVENTS.get_ptr_mut(event) {
        // SAFETY: this CPU's slot, and BPF programs of one CPU do not interleave with each other here: all our hooks
        // run with bottom halves off.
        unsafe { *count += 1 };
    }
}

/// Counts a drop by its reason.
#[inline(always)]
pub fn drop(reason: Event) -> Verdict {
    event(reason);
    Verdict::Drop
}

/// Changes the counters of a service.
#[inline(always)]
pub fn service(index: u32, change: impl FnOnce(&mut Counters)) {
    with(SERVICE_COUNTS.get_ptr_mut(index), change);
}

/// Changes the counters of a backend.
#[inline(always)]
pub fn backend(index: u32, change: impl FnOnce(&mut Counters)) {
    with(BACKEND_COUNTS.get_ptr_mut(index), change);
}

#[inline(always)]
fn with(counters: Option<*mut Counters>, change: impl FnOnce(&mut Counters)) {
    if let Some(counters) = counters {
        // SAFETY: as in `event`; the reference ends before the next lookup.
        change(unsafe { &mut *counters });
    }
}
