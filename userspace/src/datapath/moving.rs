//! Moving flows off their backends: their clients are reset, and come again in the mode that the service has by now.
//!
//! A flow is marked, and what its client sends next goes to this host's stack, which answers with a reset. The reply half
//! is closed: it still translates what the backend has on its way, and is freed after `port_hold`; then the stack resets
//! the backend, too, as for any connection to one of its addresses that it does not know.

use std::net::SocketAddr;

use evenkeel_ebpf::abi::{Flow, PROTOCOL_TCP, Reply, flag, state};
use evenkeel_ebpf::table::Entry;

use super::Datapath;
use super::address::key_of;

/// How far [`Flow::flags`] is from the low end of the word with the state, in bits: it is the byte after it.
const FLAGS_SHIFT: u32 = Flow::STATE_SHIFT + 8;
const MOVED: u64 = (flag::MOVED as u64) << FLAGS_SHIFT;
const ENDED: u64 = ((state::RESET | state::CLOSED) as u64) << Reply::STATE_SHIFT;

impl Datapath {
    /// Marks the flows of a service that are on backends; returns how many.
    pub fn move_flows(&mut self, service: SocketAddr) -> u64 {
        let key = key_of(service, PROTOCOL_TCP);
        let Some(index) = self.indexes.services.index(&key) else {
            return 0;
        };
        let open = |bits: u8| bits & state::CLOSED == 0;
        let moved = self.maps.flows.mark_where(MOVED, |held| {
            let flow = held.slot().value;
            let elsewhere = flow.flags & (flag::LOCAL | flag::MOVED) != 0;
            u32::from(flow.service) == index && !elsewhere && open(held.state())
        });
        self.maps.replies.mark_where(ENDED, |held| {
            held.slot().value.service == index && open(held.state())
        });
        // What is closed is to be freed, though no counter of closed flows says so.
        self.sweep_again = true;
        moved
    }
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::{Entry, FLAGS_SHIFT, Flow};

    #[test]
    fn the_flags_of_a_flow_are_where_they_are_marked() {
        let at = Flow::STATE_WORD + FLAGS_SHIFT as usize / 8;
        assert_eq!(offset_of!(Flow, flags), at);
    }
}
