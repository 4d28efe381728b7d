//! Moving flows off their backends: their clients are reset, and come again in the mode that the service has by now.
//!
//! A flow is marked, and what its client sends next (an acknowledgement of what the backend sends will do) goes to this
//! host's stack, which answers with a reset, and that closes both halves. What the backend sends after that still reaches
//! the client, whose own reset goes back to it. A backend that sends nothing more is not told: its NAT port is free after
//! `port_hold` all the same.

use std::net::SocketAddr;

use evenkeel_ebpf::abi::{Flow, PROTOCOL_TCP, flag, state};
use evenkeel_ebpf::table::Entry;

use super::Datapath;
use super::address::key_of;

/// How far [`Flow::flags`] is from the low end of the word with the state, in bits: it is the byte after it.
const FLAGS_SHIFT: u32 = Flow::STATE_SHIFT + 8;
const MOVED: u64 = (flag::MOVED as u64) << FLAGS_SHIFT;

impl Datapath {
    /// Marks the flows of a service that are on backends; returns how many.
    pub fn move_flows(&self, service: SocketAddr) -> u64 {
        let key = key_of(service, PROTOCOL_TCP);
        let Some(index) = self.indexes.services.index(&key) else {
            return 0;
        };
        self.maps.flows.mark_where(MOVED, |held| {
            let flow = held.slot().value;
            let elsewhere = flow.flags & (flag::LOCAL | flag::MOVED) != 0;
            u32::from(flow.service) == index && !elsewhere && held.state() & state::CLOSED == 0
        })
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
