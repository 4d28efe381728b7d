//! The two halves of a flow: each finds the other, keeps it alive, and puts it back if it was lost.
//!
//! Both maps evict what was looked up longest ago. The halves of a connection in use stay young by themselves, as every
//! TCP segment is acknowledged in the other direction within half a second (RFC 9293 section 3.8.6.3). Of a connection
//! that was silent for long one half may have been evicted and the other not, so the first packet after such a silence
//! looks the other half up, which makes it young again, and puts it back before the answer needs it. A packet of a busy
//! flow is spared that lookup: with a million flows it would be what costs most.

use aya_ebpf::bindings::BPF_NOEXIST;
use evenkeel_ebpf::abi::{Backend, Event, Flow, NextHop, Reply, ServiceInfo, Tuple, forwarding};

use crate::count;
use crate::maps::{DRAFT, FLOWS, NAT_SOURCES, REPLIES};

/// The key of the reply half of a flow.
#[inline(always)]
pub fn reply_key(client: &Tuple, flow: &Flow, backend: &Backend) -> Option<Tuple> {
    let destination = if backend.forwarding == forwarding::NAT {
        *NAT_SOURCES.get(flow.nat_source.into())?
    } else {
        client.source
    };
    Some(Tuple {
        source: backend.address,
        destination,
        source_port: backend.port,
        destination_port: flow.nat_port,
        protocol: client.protocol,
        reserved: [0; 3],
    })
}

/// The key of the client's half of a reply.
#[inline(always)]
pub fn flow_key(reply: &Reply, service: &ServiceInfo) -> Tuple {
    Tuple {
        source: reply.client,
        destination: service.address,
        source_port: reply.client_port,
        destination_port: service.port,
        protocol: service.protocol,
        reserved: [0; 3],
    }
}

/// The reply half of `flow`, put back if it is gone.
#[inline(always)]
pub fn reply_of(client: &Tuple, flow: &Flow, backend: &Backend, now: u64) -> Option<*mut Reply> {
    let key = reply_key(client, flow, backend)?;
    if let Some(reply) = REPLIES.get_ptr_mut(&key) {
        return Some(reply);
    }
    // SAFETY: this processor's only value, and nothing else of ours runs on it meanwhile.
    let reply = unsafe { &mut (*DRAFT.get_ptr_mut(0)?).reply };
    *reply = Reply {
        client: client.source,
        client_port: client.source_port,
        state: flow.state,
        reserved: 0,
        backend: flow.backend,
        service: flow.service,
        nat_source: flow.nat_source,
        reserved_half: 0,
        last_seen: now,
        packets: 0,
        bytes: 0,
        next_hop: NextHop::default(),
    };
    if REPLIES.insert(&key, &*reply, BPF_NOEXIST.into()).is_ok() {
        count::event(Event::PairRepaired);
    }
    REPLIES.get_ptr_mut(&key)
}

/// The client's half of `reply`, put back if it is gone. `nat_port`: the port that the backend answered to.
#[inline(always)]
pub fn flow_of(reply: &Reply, service: &ServiceInfo, nat_port: u16, now: u64) -> Option<*mut Flow> {
    let key = flow_key(reply, service);
    if let Some(flow) = FLOWS.get_ptr_mut(&key) {
        return Some(flow);
    }
    // SAFETY: this processor's only value, and nothing else of ours runs on it meanwhile.
    let flow = unsafe { &mut (*DRAFT.get_ptr_mut(0)?).flow };
    *flow = Flow {
        backend: reply.backend,
        service: reply.service,
        nat_port,
        nat_source: reply.nat_source,
        state: reply.state,
        created: now,
        last_seen: now,
        ..Flow::default()
    };
    if FLOWS.insert(&key, &*flow, BPF_NOEXIST.into()).is_ok() {
        count::event(Event::PairRepaired);
    }
    FLOWS.get_ptr_mut(&key)
}
