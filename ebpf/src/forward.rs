//! Client -> service: the flow's decision, or a new one; then on to the backend, or to the stack for the local proxy.
//!
//! Nothing is counted or changed before this hook is sure to finish the packet: XDP leaves what it cannot finish to
//! TC, which must find everything as it was. (Recording the flow early is harmless: TC finds it and agrees.)

use evenkeel_ebpf::abi::{Backend, Event, Flow, NextHop, flag, forwarding, state};
use evenkeel_ebpf::packet::{Packet, tcp};
use evenkeel_ebpf::select;

use crate::atomic;
use crate::clock;
use crate::count;
use crate::flow_table::{Flows, find_hashed};
use crate::frame::{Frame, Passage, Rewrite, Verdict};
use crate::life;
use crate::maps::{BACKENDS, NAT_SOURCES, NEXT_HOPS, SETTINGS};
use crate::next_hop;
use crate::observe;
use crate::open::{Opened, open};
use crate::pair;

/// Handles a packet whose destination may be a service; `None` if it is none.
#[inline(always)]
pub fn forward<F: Frame>(frame: &F, packet: &Packet) -> Option<Verdict> {
    let now = clock::now();
    let settings = SETTINGS.get(0)?;
    let hash = select::hash(&packet.tuple, settings.seed);
    let found = if packet.opens() {
        None
    } else {
        find_hashed::<Flows>(&packet.tuple, hash, settings)
    };
    let flow = match found {
        Some(flow) => flow,
        None => match open(packet, hash, F::LAST, now) {
            Opened::Flow(flow) => flow,
            Opened::NoService => return None,
            Opened::Leave => return Some(Verdict::Pass),
            Opened::Refused => return Some(Verdict::Drop),
        },
    };
    if !packet.sound {
        return Some(count::drop(Event::DropMalformed));
    }
    // SAFETY: a live map value. Other processors may write its counters meanwhile (a count may then be lost) and its
    // state, which is only changed atomically.
    let flow = unsafe { &mut *flow };
    Some(if flow.flags & flag::LOCAL != 0 {
        to_proxy(frame, packet, flow, now)
    } else if flow.flags & flag::MOVED != 0 && packet.flags & tcp::RST == 0 {
        to_reset::<F>()
    } else {
        to_backend(frame, packet, flow, now)
    })
}

#[inline(always)]
fn to_proxy<F: Frame>(frame: &F, packet: &Packet, flow: &mut Flow, now: u64) -> Verdict {
    if !F::LAST {
        return Verdict::Pass;
    }
    let bits =
        life::local(packet.flags, flow.state, state::CLIENT_FIN) | life::acknowledged(packet.flags);
    if bits & !flow.state != 0 {
        // SAFETY: a live map value.
        unsafe { life::advance(flow, bits) };
    }
    let streams = observe::streams(frame, packet, &mut flow.http2);
    let passage = frame.passage(packet);
    note(flow, passage, now);
    count::service(flow.service.into(), |c| {
        passage.count(c);
        streams.count(c);
    });
    count::event(Event::PassLocal);
    Verdict::Pass
}

/// A packet of a flow that is moved. Its client's own reset, which answers what the backend still sends, goes to the backend.
#[inline(always)]
fn to_reset<F: Frame>() -> Verdict {
    if F::LAST {
        count::event(Event::PassMoved);
    }
    Verdict::Pass
}

#[inline(always)]
fn to_backend<F: Frame>(frame: &F, packet: &Packet, flow: &mut Flow, now: u64) -> Verdict {
    let (Some(backend), Some(hop)) = (
        BACKENDS.get(flow.backend),
        NEXT_HOPS.get_ptr_mut(flow.backend),
    ) else {
        return count::drop(Event::DropNoBackend);
    };
    let Some(rewrite) = towards(packet, flow, backend) else {
        return count::drop(Event::DropNoBackend);
    };
    // SAFETY: this processor's slot.
    let hop: &mut NextHop = unsafe { &mut *hop };
    let route = next_hop::find(
        frame,
        hop,
        rewrite.source,
        rewrite.destination,
        clock::tick(now),
    );
    let ready = match next_hop::decide(frame, packet, hop, &route) {
        Ok(ready) => ready,
        Err(verdict) => return verdict,
    };
    let bits = life::by_client(packet.flags, flow.state) & !flow.state;
    if bits != 0 || clock::was_silent(now, flow.last_seen) {
        tend(packet, flow, backend, bits, now);
    }
    // First, as neither needs the other: the walk ends with an atomic instruction, behind which nothing begins before the flow's line
    // has come, and of many flows that is on its way from memory meanwhile.
    let verdict = next_hop::transmit(frame, packet, &rewrite, hop, ready);
    let streams = observe::streams(frame, packet, &mut flow.http2);
    let passage = frame.passage(packet);
    note(flow, passage, now);
    count::backend(flow.backend, |c| {
        passage.count(c);
        streams.count(c);
    });
    count::service(flow.service.into(), |c| {
        passage.count(c);
        streams.count(c);
    });
    verdict
}

/// The rare part: the state of both halves, and the other half's life.
#[inline(always)]
fn tend(packet: &Packet, flow: &mut Flow, backend: &Backend, bits: u8, now: u64) {
    let reply = pair::reply_of(&packet.tuple, flow, backend, now);
    if bits == 0 {
        return;
    }
    // SAFETY: live map values, both.
    unsafe {
        life::advance(flow, bits);
        if let Some(reply) = reply {
            atomic::set_state(reply, bits);
        }
    }
}

/// What a packet of `flow` leaves with.
#[inline(always)]
fn towards(packet: &Packet, flow: &Flow, backend: &Backend) -> Option<Rewrite> {
    let source = if backend.forwarding == forwarding::NAT {
        NAT_SOURCES.get(flow.nat_source.into())?.words[3]
    } else {
        packet.tuple.source.words[3]
    };
    Some(Rewrite {
        source,
        destination: backend.address.words[3],
        source_port: flow.nat_port,
        destination_port: backend.port,
    })
}

#[inline(always)]
fn note(flow: &mut Flow, passage: Passage, now: u64) {
    flow.last_seen = now;
    flow.packets += passage.packets;
    flow.bytes += passage.bytes;
}
