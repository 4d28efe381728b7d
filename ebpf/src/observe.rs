//! Watching without touching: streams in the payload, and the local proxy's own connections.
//!
//! At `l7` a stream takes two connections: the client's, which ends here (its flow is local, its streams are the
//! service's), and the proxy's to a backend, which is seen on its way out (its streams are the backend's). Of the
//! proxy's packets to clients only those that end a flow matter.

use aya_ebpf::bindings::{__sk_buff, BPF_ANY, xdp_md};
use aya_ebpf::programs::{TcContext, XdpContext};
use evenkeel_ebpf::abi::{Event, Flow, Http2, Tuple, flag, state};
use evenkeel_ebpf::http2::{self, Segment, Walk};
use evenkeel_ebpf::packet::{Bytes, Packet, Parsed, parse, tcp};

use crate::clock;
use crate::count;
use crate::filter;
use crate::frame::Frame;
use crate::life;
use crate::maps::{BACKEND_BY_ADDR, FLOWS, SETTINGS, UPSTREAMS};
use crate::tc::TcFrame;
use crate::xdp::XdpFrame;

/// Frames that are walked in one XDP frame: more than fit 1,500 bytes (166 empty ones).
const XDP_FRAMES: u32 = 176;
/// Frames that are walked in one socket buffer, which may hold 64 KiB.
const TC_FRAMES: u32 = 256;

/// What the payload of a packet brought.
#[derive(Clone, Copy, Default)]
pub struct Streams {
    /// Streams opened.
    pub opened: u64,
    /// 1 if the flow was just found to carry HTTP/2.
    pub recognised: u64,
}

const STUB: bool = true;
const RECOGNISED: u64 = 1 << 32;
const LOST: u64 = 1 << 33;
const BOUND_REACHED: u64 = 1 << 34;

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
    let found = frame.walk(state, packet, sequence);
    if found & LOST != 0 {
        count::event(Event::WalkerResync);
    }
    if found & BOUND_REACHED != 0 {
        count::event(Event::WalkerBound);
    }
    Streams {
        opened: found & 0xffff_ffff,
        recognised: u64::from(found & RECOGNISED != 0),
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

// The walkers are global functions: the verifier checks each once, and not once for every way that leads there.

/// The frame walker on an XDP frame; a [`Walk`] in one word.
#[unsafe(no_mangle)]
pub extern "C" fn ek_walk_xdp(
    context: *mut xdp_md,
    state: *mut Http2,
    offset: u32,
    length: u32,
    sequence: u32,
) -> u64 {
    let frame = XdpFrame(XdpContext::new(context));
    walk::<XDP_FRAMES, _>(&frame, state, offset, length, sequence)
}

/// The frame walker on a socket buffer; a [`Walk`] in one word.
#[unsafe(no_mangle)]
pub extern "C" fn ek_walk_tc(
    context: *mut __sk_buff,
    state: *mut Http2,
    offset: u32,
    length: u32,
    sequence: u32,
) -> u64 {
    let frame = Copied(TcFrame(TcContext::new(context)));
    walk::<TC_FRAMES, _>(&frame, state, offset, length, sequence)
}

#[inline(always)]
fn walk<const FRAMES: u32, B: Bytes>(
    bytes: &B,
    state: *mut Http2,
    offset: u32,
    length: u32,
    sequence: u32,
) -> u64 {
    if state.is_null() || STUB {
        return 0;
    }
    let segment = Segment {
        offset,
        length,
        sequence,
    };
    // SAFETY: not null, and the callers pass part of a live map value.
    let Walk {
        opened,
        recognised,
        lost,
        bound_reached,
    } = http2::walk::<FRAMES, B>(unsafe { &mut *state }, bytes, segment);
    u64::from(opened)
        | if recognised { RECOGNISED } else { 0 }
        | if lost { LOST } else { 0 }
        | if bound_reached { BOUND_REACHED } else { 0 }
}

/// A packet on its way out.
#[inline(always)]
pub fn egress(frame: &TcFrame) {
    // What came in before is forwarded, by us or by the stack.
    if !frame.is_local() {
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
        && let Some(flow) = FLOWS.get_ptr_mut(flip(tuple))
    {
        // SAFETY: a live map value.
        unsafe {
            if (*flow).flags & flag::LOCAL != 0 {
                let bits = life::local(packet.flags, (*flow).state, state::BACKEND_FIN);
                life::advance(flow, bits);
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
        Some(flow) if !packet.opens() || unsafe { (*flow).state } & state::CLOSED == 0 => flow,
        _ => match adopt(packet, now) {
            Some(flow) => flow,
            None => return,
        },
    };
    // SAFETY: a live map value; its state is only changed atomically.
    let flow = unsafe { &mut *flow };
    if life::may_change(packet.flags, flow.state) {
        let bits = life::local(packet.flags, flow.state, state::CLIENT_FIN);
        upstream_state(flow, bits | state::ESTABLISHED);
    }
    let streams = streams(frame, packet, &mut flow.http2);
    let passage = frame.passage(packet);
    flow.last_seen = now;
    flow.packets += passage.packets;
    flow.bytes += passage.bytes;
    count::backend(flow.backend, |c| {
        c.packets += passage.packets;
        c.bytes += passage.bytes;
        c.streams += streams.opened;
        c.flows_http2 += streams.recognised;
    });
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
        service: index.service,
        nat_port: packet.tuple.source_port,
        state: if syn { state::SYN } else { 0 },
        created: now,
        last_seen: now,
        http2: counter(packet),
        ..Flow::default()
    };
    UPSTREAMS.insert(&packet.tuple, flow, BPF_ANY.into()).ok()?;
    count::backend(index.backend, |c| {
        c.flows_opened += 1;
        c.flows_adopted += u64::from(!syn);
    });
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
        let bits = life::local(packet.flags, unsafe { (*flow).state }, state::BACKEND_FIN);
        upstream_state(flow, bits);
    }
}

/// Sets `bits` in a connection of the proxy, and counts it if that closed it: for the backend only.
#[inline(always)]
fn upstream_state(flow: *mut Flow, bits: u8) {
    // SAFETY: the callers pass a live map value.
    if unsafe { life::set(flow, bits) } {
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

struct Copied(TcFrame);
impl Bytes for Copied {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        self.0.copy(offset)
    }
}
