//! The least that a table of flows costs: a baseline of `cargo xtask bench datapath`, never attached.
//!
//! A packet of a flow that is there: one look-up, and a write to what was found. Any other: one new entry. Nothing is
//! chosen, claimed, counted or rewritten, and there is no other half; what a balancer on the same map does comes on top.

use evenkeel_ebpf::abi::{Flow, state};
use evenkeel_ebpf::packet::Packet;
use evenkeel_ebpf::select;
use evenkeel_ebpf::table::Place;

use crate::flow_table::{Flows, Found, find_or_free, insert_at, value};
use crate::maps::SETTINGS;

/// Looks `packet`'s flow up, or records it.
#[inline(always)]
pub fn floor(packet: &Packet) {
    let Some(settings) = SETTINGS.get(0) else {
        return;
    };
    let key = &packet.tuple;
    let hash = select::hash(key, settings.seed);
    let place = Place::of(hash, settings.flow_buckets);
    match find_or_free::<Flows>(key, &place) {
        Some(Found::Entry(index)) => {
            if let Some(flow) = value::<Flows>(index) {
                // SAFETY: a live map value; nobody else uses the map of a benchmark.
                unsafe { (*flow).packets += 1 };
            }
        }
        Some(Found::Free(way)) => {
            let flow = Flow {
                state: state::NEW,
                ..Flow::default()
            };
            // An entry that is refused costs no less.
            let _ = insert_at::<Flows>(key, hash, &place, way, &flow);
        }
        None => {}
    }
}
