//! The least that a table of flows costs: a baseline of `cargo xtask bench datapath`, never attached.
//!
//! A packet of a flow that is there: one look-up, and a write to what was found. Any other: one new entry. Nothing is
//! chosen, claimed, counted or rewritten, and there is no other half; what a balancer on the same map does comes on top.

use aya_ebpf::bindings::BPF_NOEXIST;
use evenkeel_ebpf::packet::Packet;

use crate::maps::{DRAFT, FLOWS};

/// Looks `packet`'s flow up, or records it.
#[inline(always)]
pub fn floor(packet: &Packet) {
    if let Some(flow) = FLOWS.get_ptr_mut(&packet.tuple) {
        // SAFETY: a live map value; nobody else uses the map of a benchmark.
        unsafe { (*flow).packets += 1 };
    } else if let Some(draft) = DRAFT.get_ptr_mut(0) {
        // SAFETY: this processor's only value; whatever is in it will do.
        let flow = unsafe { &(*draft).flow };
        // An entry that is refused costs no less.
        let _ = FLOWS.insert(&packet.tuple, flow, BPF_NOEXIST.into());
    }
}
