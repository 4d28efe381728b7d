//! Watching without touching: streams in the payload, and the local proxy's own connections.
//!
//! At `l7` a stream takes two connections: the client's, which ends here (its flow is local, its streams are the
//! service's), and the proxy's to a backend, which is seen on its way out (its streams are the backend's). It is counted from
//! its first payload on: a check of a backend connects, too, and says nothing, so it is forgotten with the reset that ends it.
//! Of the proxy's packets to clients only those that end a flow matter.

use aya_ebpf::bindings::BPF_ANY;
use evenkeel_ebpf::abi::{Counters, Event, Flow, Http2, Tuple, flag, state};
use evenkeel_ebpf::http2::{self, Segment};
use evenkeel_ebpf::packet::{Packet, Parsed, parse, tcp};

use crate::clock;
use crate::count;
use crate::filter;
use crate::flow_table::{Flows, find};
use crate::frame::{Frame, Passage};
use crate::life;
use crate::maps::{BACKEND_BY_ADDR, SETTINGS, UPSTREAMS};
use crate::pair;
use crate::tc::TcFrame;
use crate::walker::walk;

/// What the payload of a packet brought.
#[derive(Clone, Copy, Default)]
pub struct Streams {
    /// Streams opened.
    pub opened: u64,
    /// 1 if the flow was just found to carry HTTP/2.
    pub recognised: u64,
}

impl Streams {
    /// Adds them to the counters.
    #[inline(always)]
    pub fn count(self, counters: &mut Counters) {
        // Also if there are none: asking first takes 14 to 18 ns more where the counters' lines are cold (4,096 backends, a Xeon).
        counters.streams += self.opened;
        if self.recognised != 0 {
            counters.flows_http2 += self.recognised;
        }
    }
}

/// Counts the streams that `packet` opens.
#[inline(always)]
pub fn streams<F: Frame>(frame: &F, packet: &Packet, state: &mut Http2) -> Streams {
    if packet.payload_length == 0 || !SETTINGS.get(0).is_some_and(|s| s.count_streams != 0) {
        return Streams::default();
    }
    // A SYN takes a sequence number of its own; its payload (TCP fast open) begins after it.
    let sequence = packet
        .sequence
        .wrapping_add(u32::from(packet.flags & tcp::SYN != 0));
    let segment = Segment {
        offset: packet.payload,
        length: packet.payload_length,
        sequence,
    };
    let found = walk(frame, state, segment);
    if found.lost {
        count::event(Event::WalkerResync);
    }
    if found.bound_reached {
        count::event(Event::WalkerBound);
    }
    Streams {
        opened: found.opened.into(),
        recognised: u64::from(found.recognised),
    }
}

/// The state of a new flow's stream counter.
#[inline(always)]
pub fn counter(packet: &Packet) -> Http2 {
    if packet.opens() {
        http2::opened(packet.sequence)
    } else {
        Http2::default()
    }
}

/// A packet on its way out.
#[inline(always)]
pub fn egress(frame: &TcFrame) {
    // What came in before is forwarded, by us or by the stack. What is tagged was seen on its VLAN interface.
    if !frame.is_local() || frame.is_tagged() {
        return;
    }
    let Parsed::Tcp(packet) = parse(frame, frame.length()) else {
        return;
    };
    let tuple = &packet.tuple;
    if !packet.sound {
        return;
    }
    if filter::maybe_backend(&tuple.destination, tuple.destination_port) {
        to_backend(frame, &packet);
    }
    if packet.flags & (tcp::FIN | tcp::RST) != 0
        && filter::maybe_service(&tuple.source, tuple.source_port)
        && let Some(flow) = find::<Flows>(&flip(tuple))
    {
        // SAFETY: a live map value.
        unsafe {
            let flags = (*flow).flags;
            if flags & (flag::LOCAL | flag::MOVED) != 0 {
                let bits = life::local(packet.flags, (*flow).state, state::BACKEND_FIN);
                life::advance(flow, bits);
                if flags & flag::MOVED != 0 {
                    pair::end_reply(&flip(tuple), &*flow, bits);
                }
            }
        }
    }
}

/// A packet of the proxy to a backend.
#[inline(always)]
fn to_backend(frame: &TcFrame, packet: &Packet) {
    let now = clock::now();
    let found = UPSTREAMS.get_ptr_mut(&packet.tuple);
    let flow = match found {
        // SAFETY: a live map value.
        Some(flow) if !packet.opens() || unsafe { is_under_way(&*flow) } => flow,
        _ => match adopt(packet, now) {
            Some(flow) => flow,
            None => return,
        },
    };
    // SAFETY: a live map value; its state is only changed atomically.
    let flow = unsafe { &mut *flow };
    let was_silent = flow.flags & flag::SILENT != 0;
    let is_silent = was_silent && packet.payload_length == 0;
    if was_silent && !is_silent {
        flow.flags &= !flag::SILENT;
    }
    let mut bits = life::local(packet.flags, flow.state, state::CLIENT_FIN);
    if !packet.opens() {
        bits |= state::ESTABLISHED;
    }
    // Its backend may have ended it before it said anything.
    let was_closed = flow.state & state::CLOSED != 0;
    if bits & !flow.state != 0 {
        upstream_state(flow, bits);
    }
    let streams = streams(frame, packet, &mut flow.http2);
    let mut passage = frame.passage(packet);
    flow.last_seen = now;
    flow.packets += passage.packets;
    flow.bytes += passage.bytes;
    if is_silent {
        if packet.flags & tcp::RST != 0 {
            forget(&packet.tuple);
        }
        return;
    }
    if was_silent {
        // With its handshake.
        passage = Passage {
            packets: flow.packets,
            bytes: flow.bytes,
        };
    }
    count::backend(flow.backend, |c| {
        c.flows_opened += u64::from(was_silent);
        c.flows_closed += u64::from(was_silent && was_closed);
        passage.count(c);
        streams.count(c);
    });
}

/// Whether a SYN with the tuple of `flow` belongs to it: it is neither over nor one that never came further than that, as a
/// check of a host that is gone.
#[inline(always)]
const fn is_under_way(flow: &Flow) -> bool {
    flow.state & state::CLOSED == 0 && flow.flags & flag::SILENT == 0
}

/// Records a connection of the proxy; `None` if it leads to no backend.
#[inline(always)]
fn adopt(packet: &Packet, now: u64) -> Option<*mut Flow> {
    if packet.flags & (tcp::RST | tcp::FIN) != 0 {
        return None;
    }
    // SAFETY: the value is copied before anything else happens to the map.
    let index = *unsafe { BACKEND_BY_ADDR.get(packet.destination()) }?;
    let syn = packet.opens();
    let flow = Flow {
        backend: index.backend,
        service: index.service as u16,
        nat_port: packet.tuple.source_port,
        state: if syn { state::SYN } else { 0 },
        flags: if syn { flag::SILENT } else { 0 },
        created: clock::created(now),
        last_seen: now,
        http2: counter(packet),
        ..Flow::default()
    };
    UPSTREAMS.insert(&packet.tuple, flow, BPF_ANY.into()).ok()?;
    if !syn {
        count::backend(index.backend, |c| {
            c.flows_opened += 1;
            c.flows_adopted += 1;
        });
        count::event(Event::UpstreamAdopted);
    }
    UPSTREAMS.get_ptr_mut(&packet.tuple)
}

/// A FIN or RST of a backend to the proxy.
#[inline(always)]
pub fn from_backend(packet: &Packet) {
    if packet.flags & (tcp::FIN | tcp::RST) == 0 {
        return;
    }
    if let Some(flow) = UPSTREAMS.get_ptr_mut(flip(&packet.tuple)) {
        // SAFETY: a live map value.
        let (before, flags) = unsafe { ((*flow).state, (*flow).flags) };
        let bits = life::local(packet.flags, before, state::BACKEND_FIN);
        upstream_state(flow, bits);
        // Of one that came to be the proxy may be sending the first bytes right now.
        let was_made = before & state::ESTABLISHED != 0;
        if packet.flags & tcp::RST != 0 && flags & flag::SILENT != 0 && !was_made {
            forget(&flip(&packet.tuple));
        }
    }
}

/// Removes a connection to a backend that was not counted, and never will be as a reset ended it. The scan would do so, too,
/// but that comes each ten seconds, and checks come all the time.
#[inline(always)]
fn forget(tuple: &Tuple) {
    // Gone already is as good.
    let _ = UPSTREAMS.remove(tuple);
}

/// Sets `bits` in a connection of the proxy, and counts it if that closed one that is counted: for the backend only.
#[inline(always)]
fn upstream_state(flow: *mut Flow, bits: u8) {
    // SAFETY: the callers pass a live map value.
    if unsafe { life::set(flow, bits) && (*flow).flags & flag::SILENT == 0 } {
        // SAFETY: as above; this field never changes.
        count::backend(unsafe { (*flow).backend }, |c| c.flows_closed += 1);
    }
}

/// The tuple of the other direction.
#[inline(always)]
pub const fn flip(tuple: &Tuple) -> Tuple {
    Tuple {
        source: tuple.destination,
        destination: tuple.source,
        source_port: tuple.destination_port,
        destination_port: tuple.source_port,
        protocol: tuple.protocol,
        reserved: [0; 3],
    }
}
