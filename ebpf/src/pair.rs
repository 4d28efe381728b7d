//! The two halves of a flow: each finds the other, keeps it alive, and puts it back if it was lost.
//!
//! A table that is full evicts what was silent for longest. The halves of a connection in use stay young by themselves,
//! as every TCP segment is acknowledged in the other direction within half a second (RFC 9293 section 3.8.6.3). Of a
//! connection that was silent for long one half may have been evicted and the other not, so the first packet after such
//! a silence looks the other half up, makes it young again, and puts it back before the answer needs it. A packet of a
//! busy flow is spared that lookup: with a million flows it would be what costs most.

use evenkeel_ebpf::abi::{
    Backend, Event, Flow, NextHop, Reply, ServiceInfo, Tuple, flag, forwarding, state,
};
use evenkeel_ebpf::select;

use crate::atomic;
use crate::clock;
use crate::count;
use crate::flow_table::{Flows, Inserted, Replies, Table, find, insert, value};
use crate::life;
use crate::maps::{BACKENDS, DRAFT, NAT_SOURCES, SETTINGS};

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
pub fn reply_of(
    client: &Tuple,
    flow: &mut Flow,
    backend: &Backend,
    now: u64,
) -> Option<*mut Reply> {
    let key = reply_key(client, flow, backend)?;
    if let Some(reply) = find::<Replies>(&key) {
        // SAFETY: live map values, both.
        unsafe {
            if is_of(&*reply, client, flow) {
                (*reply).last_seen = now;
                return Some(reply);
            }
            // While this one was silent its port was given to another: it is over.
            life::advance(flow, state::CLOSED);
        }
        return None;
    }
    // SAFETY: this processor's only value, and nothing else of ours runs on it meanwhile.
    let reply = unsafe { &mut (*DRAFT.get_ptr_mut(0)?).reply };
    *reply = Reply {
        client: client.source,
        client_port: client.source_port,
        state: flow.state | state::NEW,
        reserved: 0,
        backend: flow.backend,
        service: flow.service.into(),
        nat_source: flow.nat_source,
        reserved_half: 0,
        last_seen: now,
        packets: 0,
        bytes: 0,
        next_hop: NextHop::default(),
        reserved_end: 0,
    };
    put_back::<Replies>(&key, reply)
}

/// Whether `reply` is the other half of `flow`.
#[inline(always)]
fn is_of(reply: &Reply, client: &Tuple, flow: &Flow) -> bool {
    reply.client == client.source
        && reply.client_port == client.source_port
        && reply.service == u32::from(flow.service)
}

/// Sets `bits` in the reply half of `flow`, if it is there.
#[inline(always)]
pub fn end_reply(client: &Tuple, flow: &Flow, bits: u8) {
    let Some(backend) = BACKENDS.get(flow.backend) else {
        return;
    };
    if let Some(reply) = reply_key(client, flow, backend).and_then(|key| find::<Replies>(&key)) {
        // SAFETY: a live map value.
        unsafe {
            if is_of(&*reply, client, flow) {
                atomic::set_state(reply, bits);
            }
        }
    }
}

/// The client's half of `reply`, put back if it is gone; `None` if its client has another flow by now. `nat_port`: the port
/// that the backend answered to.
#[inline(always)]
pub fn flow_of(reply: &Reply, service: &ServiceInfo, nat_port: u16, now: u64) -> Option<*mut Flow> {
    let key = flow_key(reply, service);
    if let Some(flow) = find::<Flows>(&key) {
        // SAFETY: a live map value.
        unsafe {
            let same = (*flow).backend == reply.backend
                && (*flow).nat_port == nat_port
                && (*flow).flags & flag::LOCAL == 0;
            if !same {
                return None;
            }
            (*flow).last_seen = now;
        }
        return Some(flow);
    }
    // SAFETY: this processor's only value, and nothing else of ours runs on it meanwhile.
    let flow = unsafe { &mut (*DRAFT.get_ptr_mut(0)?).flow };
    *flow = Flow {
        backend: reply.backend,
        service: reply.service as u16,
        nat_port,
        nat_source: reply.nat_source,
        state: reply.state | state::NEW,
        created: clock::created(now),
        last_seen: now,
        ..Flow::default()
    };
    put_back::<Flows>(&key, flow)
}

/// Puts a half back, unless another processor has done so.
#[inline(always)]
fn put_back<T: Table>(key: &Tuple, half: &T::Value) -> Option<*mut T::Value> {
    let settings = SETTINGS.get(0)?;
    match insert::<T>(key, select::hash(key, settings.seed), half) {
        Inserted::New(index) => {
            count::event(Event::PairRepaired);
            value::<T>(index)
        }
        Inserted::Present(index) => value::<T>(index),
        Inserted::Refused => None,
    }
}
