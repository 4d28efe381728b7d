//! The least that a table of flows costs: a baseline of `cargo xtask bench datapath`, never attached.
//!
//! A packet of a flow that is there: one look-up, and a write to what was found. Any other: one new entry. Nothing is
//! chosen, claimed, counted or rewritten, and there is no other half; what a balancer on the same map does comes on top.

use evenkeel_ebpf::abi::state;
use evenkeel_ebpf::packet::Packet;
use evenkeel_ebpf::select;

use crate::flow_table::{Flows, find_hashed, insert};
use crate::maps::{DRAFT, SETTINGS};

/// Looks `packet`'s flow up, or records it.
#[inline(always)]
pub fn floor(packet: &Packet) {
    let Some(settings) = SETTINGS.get(0) else {
        return;
    };
    let key = &packet.tuple;
    let hash = select::hash(key, settings.seed);
    if let Some(flow) = find_hashed::<Flows>(key, hash, settings) {
        // SAFETY: a live map value; nobody else uses the map of a benchmark.
        unsafe { (*flow).packets += 1 };
    } else if let Some(draft) = DRAFT.get_ptr_mut(0) {
        // SAFETY: this processor's only value; its state only has to be that of an entry.
        let flow = unsafe {
            (*draft).flow.state = state::NEW;
            &(*draft).flow
        };
        // An entry that is refused costs no less.
        let _ = insert::<Flows>(key, hash, flow);
    }
}
