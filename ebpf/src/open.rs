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

use crate::clock;
use crate::count;
use crate::flow_table::{Flows, Inserted, find_hashed, insert, renew};
use crate::maps::{BACKENDS, DRAFT, Draft, MAGLEV, SERVICES};
use crate::nat::ek_claim;
use crate::observe;

/// What came of it.
pub enum Opened {
    /// The flow, recorded by us or by another processor.
    Flow(*mut Flow),
    /// The destination is no service.
    NoService,
    /// Not to be decided by this hook.
    Leave,
    /// Nothing can be done with the packet.
    Refused(Event),
}

/// Finds out where `packet` goes that has no flow, or is a SYN, and records it. Its tuple has this `hash`. `last`: no hook
/// comes after this one.
#[inline(always)]
pub fn open(packet: &Packet, settings: &Settings, hash: u64, last: bool, now: u64) -> Opened {
    // SAFETY: the value is copied before anything else happens to the map.
    let service = unsafe { SERVICES.get(packet.destination()) }.copied();
    let Some(draft) = DRAFT.get_ptr_mut(0) else {
        return Opened::Refused(Event::DropFlowTable);
    };
    // SAFETY: this processor's only value, and nothing else of ours runs on it meanwhile.
    let draft = unsafe { &mut *draft };
    let l4 = service.is_some_and(|service| service.mode != mode::L7);
    let mut wrong = None;
    if let Some(service) = &service
        && l4
    {
        wrong = choose(packet, service, draft, settings, hash, now).err();
    }
    let closed = match known(packet, settings, hash) {
        Known::Open(flow) => return Opened::Flow(flow),
        Known::Closed(flow) => Some(flow),
        Known::No => None,
    };
    let Some(service) = service else {
        return Opened::NoService;
    };
    let stray = !packet.opens() && packet.flags & tcp::RST != 0;
    if !l4 && (stray || !last) {
        return Opened::Leave;
    }
    if stray {
        return Opened::Refused(Event::DropNoFlow);
    }
    if let Some(event) = wrong {
        return Opened::Refused(event);
    }
    draft.flow = local(packet, &service, now);
    if l4 {
        draft.flow.flags = 0;
        draft.flow.backend = draft.reply.backend;
        draft.flow.nat_source = draft.reply.nat_source;
        if ek_claim() == 0 {
            return Opened::Refused(Event::DropNatPortsExhausted);
        }
        draft.flow.nat_port = draft.claim.port();
    }
    record(packet, hash, closed, &draft.flow)
}

/// The flow of the local proxy that `packet` would open.
#[inline(always)]
fn local(packet: &Packet, service: &Service, now: u64) -> Flow {
    Flow {
        // At most 65,536 services: the index fits.
        service: service.index as u16,
        nat_port: packet.tuple.source_port,
        state: initial(packet),
        flags: flag::LOCAL,
        created: clock::created(now),
        last_seen: now,
        http2: observe::counter(packet),
        ..Flow::default()
    }
}

/// The state of a flow, or of its reply half, that `packet` opens.
#[inline(always)]
const fn initial(packet: &Packet) -> u8 {
    state::NEW | if packet.opens() { state::SYN } else { 0 }
}

/// What there is of a SYN's flow. (The flow of anything else was looked for before.)
enum Known {
    /// One that is in use: its decision holds.
    Open(*mut Flow),
    /// One that is over: this SYN is the next connection from the same port.
    Closed(*mut Flow),
    /// None.
    No,
}

#[inline(always)]
fn known(packet: &Packet, settings: &Settings, hash: u64) -> Known {
    if !packet.opens() {
        return Known::No;
    }
    match find_hashed::<Flows>(&packet.tuple, hash, settings) {
        // SAFETY: a live map value.
        Some(flow) if unsafe { (*flow).state } & state::CLOSED != 0 => Known::Closed(flow),
        Some(flow) => Known::Open(flow),
        None => Known::No,
    }
}

/// Chooses a backend, fills the reply half of `draft`, and says what is to be claimed for it.
#[inline(always)]
fn choose(
    packet: &Packet,
    service: &Service,
    draft: &mut Draft,
    settings: &Settings,
    hash: u64,
    now: u64,
) -> Result<(), Event> {
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
    if !draft.claim.begin(key, backend, settings, hash) {
        return Err(Event::DropNatPortsExhausted);
    }
    draft.reply = Reply {
        client: packet.tuple.source,
        client_port: packet.tuple.source_port,
        state: initial(packet),
        reserved: 0,
        backend: index.into(),
        service: service.index,
        nat_source: draft.claim.source(),
        reserved_half: 0,
        last_seen: now,
        packets: 0,
        bytes: 0,
        next_hop: NextHop::default(),
        reserved_end: 0,
    };
    Ok(())
}

/// Puts `flow` into the table, in place of the closed one that is there, if any.
#[inline(always)]
fn record(packet: &Packet, hash: u64, closed: Option<*mut Flow>, flow: &Flow) -> Opened {
    if let Some(closed) = closed
        && renew::<Flows>(closed, flow)
    {
        count::event(Event::FlowReused);
        opened(flow);
        return Opened::Flow(closed);
    }
    match insert::<Flows>(&packet.tuple, hash, flow) {
        Inserted::New(present) => {
            opened(flow);
            Opened::Flow(present)
        }
        Inserted::Present(present) => Opened::Flow(present),
        Inserted::Refused => Opened::Refused(Event::DropFlowTable),
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
