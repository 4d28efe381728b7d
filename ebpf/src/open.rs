//! A packet without a flow, or a SYN: choose where it goes, and record the decision, both halves of it.
//!
//! 1. The service says how. Nothing there: not ours.
//! 2. `l7`: the flow is recorded as local. `l4`: hash (as the service says, of what) -> Maglev slot -> backend.
//! 3. The reply half first, because it is the claim of the NAT port; then the flow.
//! 4. Another processor may have been faster with the same flow: then its decision holds.
//!
//! A SYN is nearly always of no flow, so it comes here before its flow is looked for: what takes longest of all that is done
//! for it is the memory of two lines of the index, of the flow and of the reply, and both can be on their way at once.
//!
//! A packet that is no SYN takes the same way (another balancer's flow after a change of routes, or an entry that
//! was lost): the hash sends it to the backend it had, as long as the table is the same.

use evenkeel_ebpf::abi::{
    Event, Flow, NO_BACKEND, NextHop, Reply, Service, Settings, Tuple, flag, mode, state,
};
use evenkeel_ebpf::packet::{Packet, tcp};
use evenkeel_ebpf::select::{self, slot};
use evenkeel_ebpf::table::{Place, WAYS};

use crate::clock;
use crate::count;
use crate::flow_table::{Flows, Found, Inserted, find_or_free, insert_at, renew, touch, value};
use crate::maps::{BACKENDS, DRAFT, Draft, MAGLEV, SETTINGS};
use crate::nat::{claim_first, ek_claim};
use crate::observe;
use crate::service::service;

/// What came of it.
pub enum Opened {
    /// The flow, recorded by us or by another processor.
    Flow(*mut Flow),
    /// The destination is no service.
    NoService,
    /// Not to be decided by this hook.
    Leave,
    /// Nothing can be done with the packet; the reason is counted.
    Refused,
}

/// What [`ek_record`] returns: the slot of a flow, or one of these.
const NO_SERVICE: u64 = 1 << 32;
const LEAVE: u64 = 2 << 32;
const REFUSED: u64 = 3 << 32;
/// The first port was taken: [`ek_claim`] must find another.
const TAKEN: u64 = 4 << 32;

/// What [`ek_choose`] returns: one of these, or [`WRONG`] and the event that says what is.
const NONE: u32 = 0;
const LOCAL: u32 = 1;
const BACKEND: u32 = 2;
/// What [`ek_record`] is told instead once [`ek_claim`] has claimed for it.
const CLAIMED: u32 = 3;
const WRONG: u32 = 1 << 16;

/// Finds out where `packet` goes that has no flow, or is a SYN, and records it. Its tuple has this `hash`. `last`: no hook
/// comes after this one.
///
/// In two functions that take and return numbers, and share `DRAFT`: so the verifier looks at each of them once, and at
/// what comes after them once, not for each of their ends; and their stacks do not add up.
#[inline(always)]
pub fn open(packet: &Packet, hash: u64, last: bool, now: u64) -> Opened {
    let Some(draft) = DRAFT.get_ptr_mut(0) else {
        return Opened::Refused;
    };
    // SAFETY: this processor's only value, and nothing else of ours runs on it meanwhile.
    unsafe {
        (*draft).packet = *packet;
        (*draft).destination = packet.destination();
        (*draft).hash = hash;
        (*draft).now = now;
    }
    let chosen = ek_choose();
    let mut opened = ek_record(chosen, last.into());
    if opened == TAKEN {
        if ek_claim() == 0 {
            count::event(Event::DropNatPortsExhausted);
            return Opened::Refused;
        }
        opened = ek_record(CLAIMED, last.into());
    }
    match opened & !0xffff_ffff {
        0 => value::<Flows>(opened as u32).map_or(Opened::Refused, Opened::Flow),
        NO_SERVICE => Opened::NoService,
        LEAVE => Opened::Leave,
        _ => Opened::Refused,
    }
}

/// Chooses for the packet in `DRAFT`, as its service says.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ek_choose() -> u32 {
    let (Some(settings), Some(draft)) = (SETTINGS.get(0), DRAFT.get_ptr_mut(0)) else {
        return WRONG | Event::DropFlowTable as u32;
    };
    // SAFETY: this processor's only value, and nothing else of ours runs on it meanwhile.
    let draft = unsafe { &mut *draft };
    draft.place = Place::of(draft.hash, settings.flow_buckets);
    touch::<Flows>(&draft.place);
    let Some(service) = service(&draft.destination) else {
        return NONE;
    };
    draft.service = *service;
    if service.mode == mode::L7 {
        return LOCAL;
    }
    match choose(draft, settings) {
        Ok(()) => BACKEND,
        Err(event) => WRONG | event as u32,
    }
}

/// Records the flow of the packet in `DRAFT`, unless there is one by now. `chosen`: as [`ek_choose`] said.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ek_record(chosen: u32, last: u32) -> u64 {
    let (Some(settings), Some(draft)) = (SETTINGS.get(0), DRAFT.get_ptr_mut(0)) else {
        return REFUSED;
    };
    // SAFETY: this processor's only value, and nothing else of ours runs on it meanwhile.
    match record(unsafe { &mut *draft }, settings, chosen, last != 0) {
        Recorded::Flow(slot) => slot.into(),
        Recorded::NoService => NO_SERVICE,
        Recorded::Leave => LEAVE,
        Recorded::Taken => TAKEN,
        Recorded::Refused(reason) => {
            count::number(reason);
            REFUSED
        }
    }
}

/// What came of [`record`].
enum Recorded {
    Flow(u32),
    NoService,
    Leave,
    Taken,
    /// The number of an event.
    Refused(u32),
}

/// See [`ek_record`].
#[inline(always)]
fn record(draft: &mut Draft, settings: &Settings, chosen: u32, last: bool) -> Recorded {
    let packet = &draft.packet;
    let found = match find_or_free::<Flows>(&packet.tuple, &draft.place) {
        Some(Found::Entry(slot)) if !is_closed(slot) => return Recorded::Flow(slot),
        Some(found) => found,
        None => return Recorded::Refused(Event::DropFlowTable as u32),
    };
    if chosen == NONE {
        return Recorded::NoService;
    }
    let stray = !packet.opens() && packet.flags & tcp::RST != 0;
    if chosen == LOCAL && (stray || !last) {
        return Recorded::Leave;
    }
    if stray {
        return Recorded::Refused(Event::DropNoFlow as u32);
    }
    if chosen & WRONG != 0 {
        return Recorded::Refused(chosen & !WRONG);
    }
    // In the draft: on the stack both halves would take a third of what all functions have together.
    match chosen {
        LOCAL => draft.to = Destination::proxy(packet),
        CLAIMED => draft.to.nat_port = draft.claim.port(),
        _ => {
            draft.reply = reply(packet, draft);
            if !claim_first(&draft.claim, &draft.reply, settings) {
                return Recorded::Taken;
            }
            draft.to.nat_port = draft.claim.port();
        }
    }
    draft.flow = flow(draft);
    let flow = &draft.flow;
    let way = match found {
        Found::Entry(slot) => {
            if value::<Flows>(slot).is_some_and(|closed| renew::<Flows>(closed, flow)) {
                count::event(Event::FlowReused);
                opened(flow);
                return Recorded::Flow(slot);
            }
            WAYS as u64
        }
        Found::Free(way) => way,
    };
    match insert_at::<Flows>(&packet.tuple, draft.hash, &draft.place, way, flow) {
        Inserted::New(slot) => {
            opened(flow);
            Recorded::Flow(slot)
        }
        Inserted::Present(slot) => Recorded::Flow(slot),
        Inserted::Refused => Recorded::Refused(Event::DropFlowTable as u32),
    }
}

/// Whether the flow in a slot is over.
#[inline(always)]
fn is_closed(slot: u32) -> bool {
    // SAFETY: a live map value.
    value::<Flows>(slot).is_some_and(|flow| unsafe { (*flow).state } & state::CLOSED != 0)
}

/// Where a new flow goes. 12 bytes.
#[repr(C)]
pub struct Destination {
    backend: u32,
    nat_source: u16,
    nat_port: u16,
    flags: u8,
    reserved: [u8; 3],
}

impl Destination {
    /// To the local proxy.
    #[inline(always)]
    const fn proxy(packet: &Packet) -> Self {
        Self {
            backend: 0,
            nat_source: 0,
            nat_port: packet.tuple.source_port,
            flags: flag::LOCAL,
            reserved: [0; 3],
        }
    }
}

/// The flow that the packet opens.
#[inline(always)]
fn flow(draft: &Draft) -> Flow {
    let Draft {
        packet,
        service,
        to,
        now,
        ..
    } = draft;
    Flow {
        backend: to.backend,
        // At most 65,536 services: the index fits.
        service: service.index as u16,
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

/// Chooses a backend, and says what is to be claimed for it.
#[inline(always)]
fn choose(draft: &mut Draft, settings: &Settings) -> Result<(), Event> {
    let Draft {
        packet,
        hash,
        service,
        claim,
        to,
        ..
    } = draft;
    let slot = slot(select::choice(&packet.tuple, settings.seed, service.hash));
    let table = MAGLEV
        .get_value(service.index, &0)
        .ok_or(Event::DropNoBackend)?;
    let index = *table.slots.get(slot as usize).ok_or(Event::DropNoBackend)?;
    if index == NO_BACKEND {
        return Err(Event::DropNoBackend);
    }
    let backend = BACKENDS.get(index.into()).ok_or(Event::DropNoBackend)?;
    let key = Tuple {
        source: backend.address,
        destination: packet.tuple.source,
        source_port: backend.port,
        destination_port: packet.tuple.source_port,
        protocol: packet.tuple.protocol,
        reserved: [0; 3],
    };
    if !claim.begin(key, backend, settings, *hash) {
        return Err(Event::DropNatPortsExhausted);
    }
    *to = Destination {
        backend: index.into(),
        nat_source: claim.source(),
        nat_port: 0,
        flags: 0,
        reserved: [0; 3],
    };
    Ok(())
}

/// The reply half of the flow that `packet` opens.
#[inline(always)]
fn reply(packet: &Packet, draft: &Draft) -> Reply {
    Reply {
        client: packet.tuple.source,
        client_port: packet.tuple.source_port,
        state: initial(packet),
        reserved: 0,
        backend: draft.to.backend,
        service: draft.service.index,
        nat_source: draft.to.nat_source,
        reserved_half: 0,
        last_seen: draft.now,
        packets: 0,
        bytes: 0,
        next_hop: NextHop::default(),
        reserved_end: 0,
    }
}

/// Counts a new flow.
#[inline(always)]
fn opened(flow: &Flow) {
    let local = flow.flags & flag::LOCAL != 0;
    let adopted = u64::from(flow.state & state::SYN == 0);
    count::service(flow.service.into(), |c| {
        c.flows_opened += 1;
        c.flows_adopted += adopted;
        c.flows_local += u64::from(local);
    });
    if !local {
        count::backend(flow.backend, |c| {
            c.flows_opened += 1;
            c.flows_adopted += adopted;
        });
    }
}
