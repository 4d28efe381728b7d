//! Forgetting flows that nobody will end: userspace finds them, and closes them here, so that they are counted by a
//! processor like any other flow that closes. It runs this on a list ([`Expired`]) as if it were a packet.

use aya_ebpf::programs::XdpContext;
use evenkeel_ebpf::abi::{EXPIRED_AT_ONCE, Event, Expired, Flow, state};
use evenkeel_ebpf::packet::ETHERNET_LENGTH;
use evenkeel_ebpf::table::is_used;

use crate::count;
use crate::flow_table::{Flows, value};
use crate::life;

/// Closes every flow of the list that is as it was found.
#[inline(always)]
pub fn expire(list: &XdpContext) {
    let mut at = list.data() + ETHERNET_LENGTH as usize;
    for _ in 0..EXPIRED_AT_ONCE {
        if at + size_of::<Expired>() > list.data_end() {
            return;
        }
        // SAFETY: an entry lies before the packet's end, as just compared; BPF loads need no alignment there.
        let Expired {
            slot, last_seen, ..
        } = unsafe { (at as *const Expired).read_unaligned() };
        if let Some(flow) = value::<Flows>(slot) {
            // SAFETY: a live map value.
            unsafe { expire_one(flow, last_seen) };
        }
        at += size_of::<Expired>();
    }
}

/// Closes and counts one, if it is not closed and no packet came since `last_seen`.
///
/// # Safety
/// `flow` must be a live map value.
#[inline(always)]
unsafe fn expire_one(flow: *mut Flow, last_seen: u64) {
    // SAFETY: as the caller promises.
    unsafe {
        let bits = (*flow).state;
        if is_used(bits) && bits & state::CLOSED == 0 && (*flow).last_seen == last_seen {
            life::advance(flow, state::CLOSED);
            count::event(Event::FlowExpired);
        }
    }
}
