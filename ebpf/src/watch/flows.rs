//! Which connection a packet belongs to, and what is known of it: the order of things for every packet.
//!
//! 1. TCP of an observed port that is more than an acknowledgement, else nothing.
//! 2. The connection, by canonical 5-tuple; recorded if it is new.
//! 3. Packets, bytes, FIN, RST.
//! 4. The frames in the payload: streams that open and end, or the walker if the boundaries are not known.
//! 5. What the client opened is added to the peer's figures, once it is known who the client is.

use aya_ebpf::bindings::{__sk_buff, BPF_ANY};
use aya_ebpf::helpers::generated::bpf_get_prandom_u32;
use aya_ebpf::programs::TcContext;
use evenkeel_ebpf::abi::{Tuple, http2_phase as phase};
use evenkeel_ebpf::exchange;
use evenkeel_ebpf::http2::{self, Segment, streams as streams_up_to};
use evenkeel_ebpf::packet::{Bytes, Packet, Parsed, parse, tcp};
use evenkeel_ebpf::watch::{
    Half, NO_PEER, PeerKey, WatchEvent, Watched, baseline, canonical, client, closed, near,
};

use crate::atomic;
use crate::frames;
use crate::maps::{W_DRAFT, W_FLOW_COUNT, W_FLOWS, W_PORTS, W_SETTINGS, event};
use crate::skb::Skb;
use crate::streams;

/// Where an Ethernet frame says what it carries, ...
const ETHERTYPE: u32 = 12;
/// ... what it says of IPv6 ...
const IPV6: [u8; 2] = [0x86, 0xdd];
/// ... and where that says what comes next (RFC 8200 section 3) ...
const IPV6_NEXT_HEADER: u32 = 14 + 6;
/// ... that this is TCP ...
const TCP: u8 = 6;
/// ... which begins with its ports.
const IPV6_PORTS: u32 = 14 + 40;

/// Which hook.
#[derive(Clone, Copy)]
pub enum Way {
    In = 0,
    Out = 1,
}

/// Takes a packet into account.
#[inline(always)]
pub fn watch(skb: &Skb, way: Way) {
    let Parsed::Tcp(packet) = parse(skb, skb.length()) else {
        ek_watch_other(skb.0.skb.skb);
        return;
    };
    // A bare acknowledgement tells nothing; not looking its connection up saves a tenth of the whole cost.
    let tells = packet.payload_length != 0 || packet.flags & (tcp::SYN | tcp::FIN | tcp::RST) != 0;
    let (source, destination) = (packet.tuple.source_port, packet.tuple.destination_port);
    if !packet.sound || !tells || !is_observed(source, destination) {
        return;
    }
    if skb.is_tagged() {
        event(WatchEvent::Tagged);
        return;
    }
    let (key, forward) = canonical(&packet.tuple);
    let Some(flow) = find(&key, &packet, forward) else {
        return;
    };
    // SAFETY: a live map value; each half is changed by packets of its direction only, and the rest by whoever knows
    // better, all to the same.
    let flow = unsafe { &mut *flow };
    let place = skb.interface().wrapping_mul(2).wrapping_add(way as u32);
    let half = sent(flow, forward);
    if half.place == 0 {
        half.place = place;
    } else if half.place != place {
        return;
    }
    let (packets, bytes) = skb.passage(&packet);
    half.packets += packets;
    half.bytes += bytes;
    half.closed |= ends(packet.flags);
    if packet.payload_length != 0 {
        payload(skb, flow, &packet, &key, forward);
    }
}

/// Counts what would be observed if it were not IPv6. Returns nothing; a global function has to return something.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ek_watch_other(context: *mut __sk_buff) -> u32 {
    let skb = Skb(TcContext::new(context));
    // One `let` each: a comparison with `Some` reads what a failed load left undefined, which the verifier refuses.
    let Some(ethertype) = skb.load(ETHERTYPE) else {
        return 0;
    };
    // Extension headers before TCP are as good as never seen.
    let Some([next_header]) = skb.load(IPV6_NEXT_HEADER) else {
        return 0;
    };
    let Some([a, b, c, d]) = skb.load(IPV6_PORTS) else {
        return 0;
    };
    let (source, destination) = (u16::from_ne_bytes([a, b]), u16::from_ne_bytes([c, d]));
    if ethertype == IPV6 && next_header == TCP && is_observed(source, destination) {
        event(WatchEvent::Ipv6);
    }
    0
}

/// The half of the packet's direction.
#[inline(always)]
pub fn sent(flow: &mut Watched, forward: bool) -> &mut Half {
    if forward {
        &mut flow.forward
    } else {
        &mut flow.backward
    }
}

/// Whether one of the ports is to be observed.
#[inline(always)]
fn is_observed(source: u16, destination: u16) -> bool {
    !are_ports_given() || is_given(source) || is_given(destination)
}

#[inline(always)]
fn are_ports_given() -> bool {
    W_SETTINGS
        .get(0)
        .is_some_and(|given| given.ports_given != 0)
}

/// Whether `port`, in network byte order, was asked for by name.
#[inline(always)]
fn is_given(port: u16) -> bool {
    let port = u32::from(u16::from_be(port));
    let Some(set) = W_PORTS.get(0) else {
        return false;
    };
    let word = set.words.get((port >> 6) as usize & 1023);
    word.is_some_and(|word| word >> (port & 63) & 1 != 0)
}

#[inline(always)]
const fn ends(flags: u8) -> u8 {
    let fin = if flags & tcp::FIN != 0 {
        closed::FIN
    } else {
        0
    };
    let rst = if flags & tcp::RST != 0 {
        closed::RST
    } else {
        0
    };
    fin | rst
}

/// The connection's record; a new one for a connection not seen before.
#[inline(always)]
fn find(key: &Tuple, packet: &Packet, forward: bool) -> Option<*mut Watched> {
    let synchronises = packet.flags & tcp::SYN != 0;
    if let Some(flow) = W_FLOWS.get_ptr_mut(key) {
        if !synchronises {
            return Some(flow);
        }
        // SAFETY: a live map value.
        let known = unsafe { &mut *flow };
        let closed = known.is_closed();
        let half = sent(known, forward);
        let again = half.http2.next == packet.sequence.wrapping_add(1);
        if !packet.opens() {
            if half.packets == 0 {
                half.http2 = exchange::answers(packet.sequence);
            }
            return Some(flow);
        }
        // A SYN may be sent again, and loopback shows everything twice; else the ports are used anew.
        if !closed && (again || half.packets <= 1) {
            return Some(flow);
        }
    } else if packet.flags & (tcp::RST | tcp::FIN) != 0 {
        return None;
    }
    record(key, packet, forward)
}

#[inline(always)]
fn record(key: &Tuple, packet: &Packet, forward: bool) -> Option<*mut Watched> {
    let draft = W_DRAFT.get_ptr_mut(0)?;
    // SAFETY: this processor's only value, and nothing else of ours runs on it meanwhile.
    let flow = unsafe {
        draft.write(Watched::default());
        &mut *draft
    };
    // SAFETY: a helper without arguments.
    flow.tag = unsafe { bpf_get_prandom_u32() } | 1;
    // SAFETY: an aligned word of a live map value.
    flow.near = near(unsafe { atomic::fetch_add(W_FLOW_COUNT.get_ptr_mut(0)?, 1) });
    let synchronises = packet.flags & tcp::SYN != 0;
    let half = sent(flow, forward);
    if packet.opens() {
        half.http2 = http2::opened(packet.sequence);
    } else if synchronises {
        half.http2 = exchange::answers(packet.sequence);
    }
    flow.opened = synchronises.into();
    flow.client = match is_clients(packet) {
        None => client::UNKNOWN,
        Some(sender) if sender == forward => client::SOURCE,
        Some(_) => client::DESTINATION,
    };
    if W_FLOWS.insert(key, &*flow, BPF_ANY.into()).is_err() {
        event(WatchEvent::FlowsFull);
    }
    W_FLOWS.get_ptr_mut(key)
}

/// Whether the client sent the first packet that was seen. The sender of a SYN is the client, that of a SYN-ACK the
/// server; otherwise a port that was asked for is the server's.
#[inline(always)]
fn is_clients(packet: &Packet) -> Option<bool> {
    if packet.flags & tcp::SYN != 0 {
        return Some(packet.opens());
    }
    if !are_ports_given() {
        return None;
    }
    let from = is_given(packet.tuple.source_port);
    let to = is_given(packet.tuple.destination_port);
    (from != to).then_some(to)
}

/// Looks at the payload of a packet.
#[inline(always)]
fn payload(skb: &Skb, flow: &mut Watched, packet: &Packet, key: &Tuple, forward: bool) {
    let known = flow.client;
    let from_client = (known == client::SOURCE) == forward;
    let (own, other) = if forward {
        (&flow.forward.http2, &flow.backward.http2)
    } else {
        (&flow.backward.http2, &flow.forward.http2)
    };
    if own.phase == phase::TLS {
        return;
    }
    // What carries something else may still become HTTP/2 (an upgrade), but the client says so. With a peer it did; its
    // half is then left alone, as another processor writes there.
    let answer = known != client::UNKNOWN && !from_client;
    let pointless =
        flow.peer == NO_PEER && (other.phase == phase::TLS || other.phase == phase::OTHER);
    let segment = Segment {
        offset: packet.payload,
        length: packet.payload_length,
        // A SYN takes a sequence number of its own; its payload (TCP fast open) begins after it.
        sequence: packet
            .sequence
            .wrapping_add(u32::from(packet.flags & tcp::SYN != 0)),
    };
    let half = sent(flow, forward);
    let busy = &raw mut half.busy;
    if !take(busy) {
        half.missed = 1;
        event(WatchEvent::Contended);
        return;
    }
    if half.missed != 0 {
        half.missed = 0;
        exchange::forsake(&mut half.http2, segment.sequence);
    }
    if answer && pointless {
        // After an upgrade the answers that follow begin where these end.
        let end = segment.sequence.wrapping_add(segment.length);
        exchange::skip(&mut half.http2, end);
    } else {
        let first = frames::read(skb, flow, segment, forward);
        // Answers of a peer that is known open nothing.
        if !answer || flow.peer == NO_PEER || sent(flow, forward).baseline != baseline::KNOWN {
            ek_watch_opened(flow, key, forward.into(), first);
        }
    }
    // SAFETY: an aligned word of a live map value.
    unsafe { atomic::exchange(busy, 0) };
}

/// Takes a direction of a flow for this processor. The one that has it cannot be interrupted by us, and is done with a
/// packet of the usual kind after as many tries.
#[inline(always)]
fn take(busy: *mut u64) -> bool {
    const TRIES: u32 = 64;
    for _ in 0..TRIES {
        // SAFETY: an aligned word of a live map value.
        if unsafe { atomic::exchange(busy, 1) } == 0 {
            return true;
        }
    }
    false
}

/// Adds the streams that the client opened to the peer's, after a packet of the direction `forward` of which `first` is
/// the first stream whose beginning was read. Returns nothing; a global function has to return something.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ek_watch_opened(
    flow: *mut Watched,
    key: *const Tuple,
    forward: u32,
    first: u32,
) -> u32 {
    // SAFETY: null or whole values, as `payload` passes them; the verifier checks no less.
    let (Some(flow), Some(key)) = (unsafe { flow.as_mut() }, unsafe { key.as_ref() }) else {
        return 0;
    };
    let forward = forward != 0;
    sent(flow, forward).rebase(first);
    let source = flow.client == client::SOURCE;
    let peer = flow.peer;
    if flow.client == client::UNKNOWN || (source != forward && peer != NO_PEER) {
        return 0;
    }
    let half = sent(flow, source);
    if half.baseline == baseline::NONE {
        return 0;
    }
    let opened = streams_up_to(half.http2.highest).wrapping_sub(half.counted);
    if peer == NO_PEER {
        flow.peer = streams::peer(&server(key, source));
    }
    // Only packets of the client change its half.
    if source == forward && opened != 0 {
        let peer = flow.peer;
        let half = sent(flow, source);
        half.counted = half.counted.wrapping_add(opened);
        streams::opened(peer, opened);
    }
    0
}

/// The server's address, given whether the key's source is the client.
#[inline(always)]
fn server(key: &Tuple, source: bool) -> PeerKey {
    let (address, port) = if source {
        (key.destination, key.destination_port)
    } else {
        (key.source, key.source_port)
    };
    PeerKey {
        address,
        port,
        protocol: key.protocol,
        reserved: [0; 5],
    }
}
