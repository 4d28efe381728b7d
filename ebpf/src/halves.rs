//! Both halves of a new flow, from the taking of their slots until they are entered.
//!
//! 1. [`Halves::take`] takes two slots, before a line of the index is asked for.
//! 2. [`Halves::write`] writes them, while the lines are on their way: nobody finds them yet.
//! 3. [`crate::open`] enters them, or [`Halves::discard`] gives the slots back.

use evenkeel_ebpf::abi::{Flow, NextHop, Reply, state};
use evenkeel_ebpf::packet::Packet;

use crate::clock;
use crate::flow_table::{Flows, NO_SLOT, Replies, Table as _, fill_slot, room_at_hand};
use crate::maps::Draft;
use crate::observe;

/// Their slots; [`NO_SLOT`] where there is none. 8 bytes.
#[repr(C)]
pub struct Halves {
    pub flow: u32,
    pub reply: u32,
}

impl Halves {
    pub const NONE: Self = Self {
        flow: NO_SLOT,
        reply: NO_SLOT,
    };

    /// Takes two slots, where they are at hand: else it takes longer, or another flow's.
    #[inline(always)]
    pub fn take() -> Self {
        Self {
            flow: room_at_hand::<Flows>(),
            reply: room_at_hand::<Replies>(),
        }
    }

    /// What is here, which is here no more.
    #[inline(always)]
    pub fn ours(&mut self) -> Self {
        let Self { flow, reply } = *self;
        *self = Self::NONE;
        Self { flow, reply }
    }

    /// Writes what `packet` opens.
    #[inline(always)]
    pub fn write(&self, packet: &Packet, draft: &Draft) {
        fill_slot::<Replies>(self.reply, draft.claim.key(), || reply(packet, draft));
        fill_slot::<Flows>(self.flow, &packet.tuple, || flow(packet, draft));
    }

    /// Whether there are two.
    #[inline(always)]
    pub const fn are_there(&self) -> bool {
        self.flow != NO_SLOT && self.reply != NO_SLOT
    }

    /// Gives their slots back.
    #[inline(always)]
    pub fn discard(self) {
        if self.flow != NO_SLOT {
            Flows::release(self.flow);
        }
        if self.reply != NO_SLOT {
            Replies::release(self.reply);
        }
    }
}

/// The flow that the packet opens.
#[inline(always)]
pub fn flow(packet: &Packet, draft: &Draft) -> Flow {
    let Draft {
        service, to, now, ..
    } = draft;
    Flow {
        backend: to.backend,
        // At most 65,536 services: the index fits.
        service: *service as u16,
        nat_port: to.nat_port,
        nat_source: to.nat_source,
        state: initial(packet),
        flags: to.flags,
        created: clock::created(*now),
        last_seen: *now,
        http2: observe::counter(packet),
        ..Flow::default()
    }
}

/// The state of a flow, or of its reply half, that `packet` opens.
#[inline(always)]
const fn initial(packet: &Packet) -> u8 {
    state::NEW | if packet.opens() { state::SYN } else { 0 }
}

/// The reply half of the flow that the packet opens.
#[inline(always)]
pub fn reply(packet: &Packet, draft: &Draft) -> Reply {
    let Draft {
        service, to, now, ..
    } = draft;
    Reply {
        client: packet.tuple.source,
        client_port: packet.tuple.source_port,
        state: initial(packet),
        reserved: 0,
        backend: to.backend,
        service: *service,
        nat_source: to.nat_source,
        reserved_half: 0,
        last_seen: *now,
        packets: 0,
        bytes: 0,
        next_hop: NextHop::default(),
        reserved_end: 0,
    }
}
