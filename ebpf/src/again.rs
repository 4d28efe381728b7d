//! A SYN on a flow that is not over. Mostly it is the same SYN once more, and the decision holds; but the client may have
//! begun anew from the same port, after it crashed, or gave up on a backend that is no more.
//!
//! | the flow | the SYN | what it is |
//! | --- | --- | --- |
//! | moved, or half closed | any | a new connection: the flow is over, and another is recorded |
//! | established | after a silence | the same; who is in a connection sends no SYN, and one forged or late does not come after one |
//! | not established | after a silence, and the tables have another backend by now | the same: the old one does not answer |
//! | not established | with another sequence number, before any payload | the client tries again: the stream counter begins anew |
//! | any other | | the same SYN, or one that the backend refuses (RFC 5961 section 4) |

use evenkeel_ebpf::abi::{flag, http2_phase, state};
use evenkeel_ebpf::packet::Packet;

use crate::clock;
use crate::flow_table::{Flows, value};
use crate::life;
use crate::maps::Draft;
use crate::observe;
use crate::pair;

/// Whether the flow in a slot is closed.
#[inline(always)]
pub fn is_over(slot: u32) -> bool {
    // SAFETY: a live map value.
    value::<Flows>(slot).is_some_and(|flow| unsafe { (*flow).state } & state::CLOSED != 0)
}

/// Whether a SYN on the flow in a slot says that the flow is over. `chosen`: a backend was chosen for it.
#[inline(always)]
pub fn begins_anew(draft: &Draft, slot: u32, chosen: bool) -> bool {
    let Some(flow) = value::<Flows>(slot) else {
        return false;
    };
    // SAFETY: a live map value, of which other processors may change the state, counters and times meanwhile.
    let flow = unsafe { &*flow };
    let ending =
        flow.flags & flag::MOVED != 0 || flow.state & (state::CLIENT_FIN | state::BACKEND_FIN) != 0;
    let elsewhere = chosen && draft.to.backend != flow.backend;
    ending
        || clock::was_silent(draft.now, flow.last_seen)
            && (flow.state & state::ESTABLISHED != 0 || elsewhere)
}

/// Whether the SYN `packet` is another than the one that the flow in a slot began with, and nothing came after that.
#[inline(always)]
pub fn is_renumbered(packet: &Packet, slot: u32) -> bool {
    let Some(flow) = value::<Flows>(slot) else {
        return false;
    };
    // SAFETY: a live map value.
    let flow = unsafe { &*flow };
    flow.state & state::ESTABLISHED == 0
        && flow.http2.phase == http2_phase::UNKNOWN
        && flow.http2.next != packet.sequence.wrapping_add(1)
}

/// Closes both halves of the flow in a slot, which is that of `packet`. A function of its own for its stack.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ek_end(packet: *const Packet, slot: u32) -> u32 {
    let Some(flow) = value::<Flows>(slot) else {
        return 0;
    };
    // SAFETY: null or a whole packet; the verifier checks no less.
    let Some(packet) = (unsafe { packet.as_ref() }) else {
        return 0;
    };
    // SAFETY: a live map value; its state is only changed atomically.
    unsafe {
        life::advance(flow, state::CLOSED);
        if (*flow).flags & flag::LOCAL == 0 {
            pair::end_reply(&packet.tuple, &*flow, state::CLOSED);
        }
    }
    1
}

/// Has the stream counter of the flow in a slot begin with `packet`; returns the slot. A function of its own for its stack.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ek_renumber(packet: *const Packet, slot: u32) -> u32 {
    // SAFETY: null or a whole packet; the verifier checks no less.
    if let (Some(flow), Some(packet)) = (value::<Flows>(slot), unsafe { packet.as_ref() }) {
        // SAFETY: a live map value. Two SYNs at once leave one of their numbers, as the backend takes one of them.
        unsafe { (*flow).http2 = observe::counter(packet) };
    }
    slot
}
