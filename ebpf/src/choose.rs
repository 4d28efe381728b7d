//! Where a new flow goes, as its service says.
//!
//! 1. The service says how. Nothing there: not ours. `l7`: to the local proxy.
//! 2. `l4`: hash (as the service says, of what) -> Maglev slot -> backend -> what is to be claimed for the reply half.
//!
//! On the way both lines of the index are asked for that [`crate::open`] will need, as early as it is known which they are; and
//! before that two slots are taken. That is an atomic instruction, which would wait for the lines.

use evenkeel_ebpf::abi::{self, Event, NO_BACKEND, Settings, flag, mode};
use evenkeel_ebpf::packet::Packet;
use evenkeel_ebpf::select::{self, slot};
use evenkeel_ebpf::table::Place;

use crate::flow_table::{Flows, touch};
use crate::halves::Halves;
use crate::maps::{BACKENDS, DRAFT, Draft, MAGLEV, SETTINGS};
use crate::service::service;

/// What [`ek_choose`] returns: one of these, or [`WRONG`] and the event that says what is.
pub const NONE: u32 = 0;
pub const LOCAL: u32 = 1;
pub const BACKEND: u32 = 2;
pub const WRONG: u32 = 1 << 16;

/// Where a new flow goes. 12 bytes.
#[repr(C)]
pub struct Destination {
    /// Index of the backend.
    pub backend: u32,
    /// Index of the NAT source.
    pub nat_source: u16,
    /// Source port towards the backend, network byte order.
    pub nat_port: u16,
    /// Bits of [`flag`].
    pub flags: u8,
    /// Zero.
    reserved: [u8; 3],
}

impl Destination {
    /// To the local proxy.
    #[inline(always)]
    pub const fn proxy(packet: &Packet) -> Self {
        Self {
            backend: 0,
            nat_source: 0,
            nat_port: packet.tuple.source_port,
            flags: flag::LOCAL,
            reserved: [0; 3],
        }
    }
}

/// Chooses for `packet`, as its service says; its hash is in `DRAFT`.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ek_choose(packet: *const Packet) -> u32 {
    let (Some(settings), Some(draft)) = (SETTINGS.get(0), DRAFT.get_ptr_mut(0)) else {
        return WRONG | Event::DropFlowTable as u32;
    };
    // SAFETY: null or a whole packet; the verifier checks no less.
    let Some(packet) = (unsafe { packet.as_ref() }) else {
        return NONE;
    };
    // SAFETY: this processor's only value, and nothing else of ours runs on it meanwhile.
    let draft = unsafe { &mut *draft };
    draft.place = Place::of(draft.hash, settings.flow_buckets);
    draft.halves = Halves::NONE;
    let Some(service) = service(&packet.destination()) else {
        return NONE;
    };
    draft.service = service.index;
    if service.mode == mode::L7 {
        return LOCAL;
    }
    draft.halves = Halves::take();
    touch::<Flows>(&draft.place);
    match choose(packet, draft, service.hash, settings) {
        Ok(()) => BACKEND,
        Err(event) => WRONG | event as u32,
    }
}

/// Chooses a backend, by the `kind` of hash that the service has, and says what is to be claimed for it.
#[inline(always)]
fn choose(packet: &Packet, draft: &mut Draft, kind: u8, settings: &Settings) -> Result<(), Event> {
    let Draft {
        hash,
        service,
        claim,
        to,
        ..
    } = draft;
    let choice = if kind == abi::hash::FIVE_TUPLE {
        *hash
    } else {
        select::choice(&packet.tuple, settings.seed, kind)
    };
    let table = MAGLEV.get_value(*service, &0).ok_or(Event::DropNoBackend)?;
    let slot = table.slots.get(slot(choice) as usize);
    let index = *slot.ok_or(Event::DropNoBackend)?;
    if index == NO_BACKEND {
        return Err(Event::DropNoBackend);
    }
    let backend = BACKENDS.get(index.into()).ok_or(Event::DropNoBackend)?;
    if !claim.begin(&packet.tuple, backend, settings, *hash) {
        return Err(Event::DropNatPortsExhausted);
    }
    *to = Destination {
        backend: index.into(),
        nat_source: claim.source(),
        nat_port: claim.port(),
        flags: 0,
        reserved: [0; 3],
    };
    Ok(())
}
