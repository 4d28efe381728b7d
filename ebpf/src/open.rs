//! A packet without a flow: choose where it goes, and record the decision, both halves of it.
//!
//! 1. The service says how. Nothing there: not ours.
//! 2. `l7`: the flow is recorded as local. `l4`: hash (as the service says, of what) -> Maglev slot -> backend.
//! 3. The reply half first, because it is the claim of the NAT port; then the flow.
//! 4. Another processor may have been faster with the same flow: then its decision holds.
//!
//! A packet that is no SYN takes the same way (another balancer's flow after a change of routes, or an entry that
//! was lost): the hash sends it to the backend it had, as long as the table is the same.

use aya_ebpf::bindings::{BPF_ANY, BPF_NOEXIST};
use evenkeel_ebpf::abi::{
    Event, Flow, NO_BACKEND, NextHop, Reply, Service, Settings, Tuple, flag, mode, state,
};
use evenkeel_ebpf::packet::{Packet, tcp};
use evenkeel_ebpf::select::{self, hash, slot};

use crate::count;
use crate::maps::{BACKENDS, DRAFT, Draft, FLOWS, MAGLEV, SERVICES, SETTINGS};
use crate::nat;
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

/// Records the flow of `packet`. `anew`: over the closed flow that is there. `last`: no hook comes after this one.
#[inline(always)]
pub fn open(packet: &Packet, anew: bool, last: bool, now: u64) -> Opened {
    // SAFETY: the value is copied before anything else happens to the map.
    let Some(&service) = (unsafe { SERVICES.get(packet.destination()) }) else {
        return Opened::NoService;
    };
    let local = service.mode == mode::L7;
    if local && !last {
        return Opened::Leave;
    }
    let syn = packet.opens();
    if !syn && packet.flags & tcp::RST != 0 {
        return if local {
            Opened::Leave
        } else {
            Opened::Refused(Event::DropNoFlow)
        };
    }
    let Some(draft) = DRAFT.get_ptr_mut(0) else {
        return Opened::Refused(Event::DropFlowTable);
    };
    // SAFETY: this processor's only value, and nothing else of ours runs on it meanwhile.
    let draft = unsafe { &mut *draft };
    draft.flow = Flow {
        service: service.index,
        nat_port: packet.tuple.source_port,
        state: if syn { state::SYN } else { 0 },
        created: now,
        last_seen: now,
        http2: observe::counter(packet),
        ..Flow::default()
    };
    if local {
        draft.flow.flags = flag::LOCAL;
    } else if let Err(event) = choose(packet, &service, draft, now) {
        return Opened::Refused(event);
    }
    record(packet, &draft.flow, anew)
}

/// Chooses a backend and claims the reply half.
#[inline(always)]
fn choose(packet: &Packet, service: &Service, draft: &mut Draft, now: u64) -> Result<(), Event> {
    let Draft { flow, reply } = draft;
    let settings: &Settings = SETTINGS.get(0).ok_or(Event::DropNoBackend)?;
    let hash = hash(&packet.tuple, settings.seed);
    let slot = slot(select::choice(&packet.tuple, settings.seed, service.hash));
    let table = MAGLEV
        .get_value(service.index, &0)
        .ok_or(Event::DropNoBackend)?;
    let index = *table.slots.get(slot as usize).ok_or(Event::DropNoBackend)?;
    if index == NO_BACKEND {
        return Err(Event::DropNoBackend);
    }
    let backend = BACKENDS.get(index.into()).ok_or(Event::DropNoBackend)?;
    flow.backend = index.into();
    *reply = Reply {
        client: packet.tuple.source,
        client_port: packet.tuple.source_port,
        state: flow.state,
        reserved: 0,
        backend: flow.backend,
        service: flow.service,
        nat_source: 0,
        reserved_half: 0,
        last_seen: now,
        packets: 0,
        bytes: 0,
        next_hop: NextHop::default(),
    };
    let mut key = Tuple {
        source: backend.address,
        destination: packet.tuple.source,
        source_port: backend.port,
        destination_port: packet.tuple.source_port,
        protocol: packet.tuple.protocol,
        reserved: [0; 3],
    };
    flow.nat_source =
        nat::claim(&mut key, reply, backend, settings, hash).ok_or(Event::DropNatPortsExhausted)?;
    flow.nat_port = key.destination_port;
    Ok(())
}

/// Inserts the flow and counts it.
#[inline(always)]
fn record(packet: &Packet, flow: &Flow, anew: bool) -> Opened {
    let how = if anew { BPF_ANY } else { BPF_NOEXIST };
    let inserted = FLOWS.insert(&packet.tuple, flow, how.into()).is_ok();
    let Some(present) = FLOWS.get_ptr_mut(&packet.tuple) else {
        return Opened::Refused(Event::DropFlowTable);
    };
    if inserted {
        let local = flow.flags & flag::LOCAL != 0;
        let adopted = u64::from(flow.state & state::SYN == 0);
        count::service(flow.service, |c| {
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
        if anew {
            count::event(Event::FlowReused);
        }
    }
    Opened::Flow(present)
}
