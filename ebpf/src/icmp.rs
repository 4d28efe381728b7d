//! ICMP errors: the packet that one complains of was translated, so the complaint must be translated back, or path
//! MTU discovery fails and dead ends stay silent.
//!
//! | complaint about | carries inside | goes to | and then carries |
//! | --- | --- | --- | --- |
//! | a reply that we sent to the client | service -> client | the flow's backend | backend -> NAT source |
//! | a packet that we sent to the backend | NAT source -> backend | the flow's client | client -> service |
//!
//! Only eight bytes of the inner TCP header are sure to be there (RFC 792), which is enough: ports. The inner
//! checksum is kept right where it is there. The sender's address is kept (it is what traceroute shows), but a
//! backend's own is replaced by the service's, which is the only address that the client knows.
//! TC only: these are rare, and XDP passes them.

use evenkeel_ebpf::abi::{Address, Event, NextHop, PROTOCOL_TCP, flag};
use evenkeel_ebpf::packet::{
    Bytes, Change, ETHERNET_LENGTH, IPV4_CHECKSUM, IPV4_LENGTH, IPV4_SOURCE, IPV4_TTL, Ipv4,
    TCP_CHECKSUM,
};

use crate::clock;
use crate::count;
use crate::filter;
use crate::flow_table::{Flows, Replies, find};
use crate::frame::{Frame, Verdict, opaque};
use crate::maps::{BACKENDS, SERVICE_INFO};
use crate::next_hop::{self, Route};
use crate::observe::flip;
use crate::pair;
use crate::tc::TcFrame;

/// Length of the ICMP header of an error.
const ICMP_LENGTH: u32 = 8;
/// Offset of the checksum in it.
const ICMP_CHECKSUM: usize = 2;
/// The errors that carry a packet: destination unreachable, time exceeded, parameter problem (RFC 792).
const ERRORS: [u8; 3] = [3, 11, 12];

/// Addresses and ports as they must be, of the error and of the packet in it.
struct Translation {
    source: u32,
    destination: u32,
    inner_source: u32,
    inner_destination: u32,
    inner_source_port: u16,
    inner_destination_port: u16,
}

/// Handles the ICMP message at `at`.
#[inline(always)]
pub fn icmp(frame: &TcFrame, at: u32) -> Verdict {
    let Some([kind]) = frame.load::<1>(at) else {
        return Verdict::Pass;
    };
    let inner_at = at + ICMP_LENGTH;
    if !ERRORS.contains(&kind) {
        return Verdict::Pass;
    }
    let (Some(outer), Some(inner)) = (
        Ipv4::parse(frame, ETHERNET_LENGTH),
        Ipv4::parse(frame, inner_at),
    ) else {
        return Verdict::Pass;
    };
    let Some(p) = frame.load::<4>(inner_at + inner.header) else {
        return Verdict::Pass;
    };
    if inner.protocol != PROTOCOL_TCP {
        return Verdict::Pass;
    }
    let source_port = u16::from_ne_bytes([p[0], p[1]]);
    let destination_port = u16::from_ne_bytes([p[2], p[3]]);
    let Some(translation) = translate(&outer, &inner, source_port, destination_port) else {
        return Verdict::Pass;
    };
    send(frame, at, &outer, &inner, &translation)
}

/// Finds the flow that the inner packet belongs to.
#[inline(always)]
fn translate(
    outer: &Ipv4,
    inner: &Ipv4,
    source_port: u16,
    destination_port: u16,
) -> Option<Translation> {
    let back = flip(&inner.tuple(source_port, destination_port));
    let of_service = filter::maybe_service(&Address::from_v4_word(inner.source), source_port);
    // A bit of the filter may be another address's: then it is about a packet to a backend.
    if of_service && let Some(flow) = find::<Flows>(&back) {
        // SAFETY: a live map value.
        let flow = unsafe { &*flow };
        if flow.flags & flag::LOCAL != 0 {
            return None;
        }
        let backend = BACKENDS.get(flow.backend)?;
        let reply = pair::reply_key(&back, flow, backend)?;
        return Some(Translation {
            source: outer.source,
            destination: backend.address.words[3],
            inner_source: backend.address.words[3],
            inner_destination: reply.destination.words[3],
            inner_source_port: backend.port,
            inner_destination_port: flow.nat_port,
        });
    }
    let of_backend =
        filter::maybe_backend(&Address::from_v4_word(inner.destination), destination_port);
    let reply = if of_backend {
        find::<Replies>(&back)
    } else {
        None
    };
    let Some(reply) = reply else {
        if of_service {
            count::event(Event::IcmpUnmatched);
        }
        return None;
    };
    // SAFETY: a live map value.
    let reply = unsafe { &*reply };
    let service = SERVICE_INFO.get(reply.service)?;
    let vip = service.address.words[3];
    Some(Translation {
        source: if outer.source == inner.destination {
            vip
        } else {
            outer.source
        },
        destination: reply.client.words[3],
        inner_source: reply.client.words[3],
        inner_destination: vip,
        inner_source_port: reply.client_port,
        inner_destination_port: service.port,
    })
}

/// Rewrites the error and sends it on.
#[inline(always)]
fn send(frame: &TcFrame, at: u32, outer: &Ipv4, inner: &Ipv4, new: &Translation) -> Verdict {
    if outer.time_to_live <= 1 {
        return count::drop(Event::DropTtlExpired);
    }
    let mut hop = NextHop::default();
    let tick = clock::tick(clock::now());
    let route = next_hop::find(frame, &mut hop, new.source, new.destination, tick);
    let headers = at + ICMP_LENGTH + inner.header + 8;
    if frame.0.pull_data(headers).is_err() || rewrite(frame, at, inner, new).is_none() {
        return count::drop(Event::DropRewriteFailed);
    }
    count::event(Event::IcmpTranslated);
    match route {
        Route::Ready => match frame.address(&hop) {
            Some(()) => next_hop::send(frame, &hop),
            None => count::drop(Event::DropRewriteFailed),
        },
        Route::Unresolved {
            interface, gateway, ..
        } => frame.send_to_neighbour(interface, gateway),
        _ => count::drop(Event::DropNoRoute),
    }
}

/// Writes the new addresses and ports and keeps the four checksums right.
///
/// The inner IP header sums to the same before and after, its checksum included, so for the ICMP checksum only the
/// inner ports count, and the inner TCP checksum where it is there.
#[inline(always)]
fn rewrite(frame: &TcFrame, at: u32, inner: &Ipv4, new: &Translation) -> Option<()> {
    let (data, end) = (frame.0.data(), frame.0.data_end());
    let ip = data + ETHERNET_LENGTH as usize;
    if ip + IPV4_LENGTH as usize > end {
        return None;
    }
    // At most 74, and 60: the masks tell the verifier, which forgets bounds of spilled values.
    let error = opaque(data + (at & 0x7f) as usize);
    if error + (ICMP_LENGTH + IPV4_LENGTH) as usize > end {
        return None;
    }
    let packet = error + ICMP_LENGTH as usize;
    let tcp = opaque(packet + (inner.header & 0x3f) as usize);
    if tcp + 8 > end {
        return None;
    }
    // SAFETY: all three headers lie before `end`, as compared above; for the alignment see `frame::read`.
    unsafe {
        let ttl = (ip + IPV4_TTL as usize) as *mut u16;
        let old = ttl.read();
        ttl.write(old.wrapping_sub(1));
        let ttl = Change::default().half(old, old.wrapping_sub(1));
        let _ = addresses(ip, new.source, new.destination, ttl);
        let none = Change::default();
        let pseudo = addresses(packet, new.inner_source, new.inner_destination, none);
        let port = tcp as *mut u16;
        let ports = none
            .half(port.read(), new.inner_source_port)
            .half(port.add(1).read(), new.inner_destination_port);
        port.write(new.inner_source_port);
        port.add(1).write(new.inner_destination_port);
        let mut changed = ports;
        let whole = opaque(tcp);
        if whole + TCP_CHECKSUM as usize + 2 <= end {
            let checksum = (whole + TCP_CHECKSUM as usize) as *mut u16;
            let before = checksum.read();
            let after = pseudo.and(ports).apply(before);
            checksum.write(after);
            changed = changed.half(before, after);
        }
        let checksum = (error + ICMP_CHECKSUM) as *mut u16;
        checksum.write(changed.apply(checksum.read()));
    }
    Some(())
}

/// Writes the addresses and the checksum of the IPv4 header at `ip`; `more` changed in it besides.
///
/// # Safety
/// The header must lie inside the packet.
#[inline(always)]
unsafe fn addresses(ip: usize, source: u32, destination: u32, more: Change) -> Change {
    // SAFETY: as the caller promises.
    unsafe {
        let address = (ip + IPV4_SOURCE as usize) as *mut u32;
        let checksum = (ip + IPV4_CHECKSUM as usize) as *mut u16;
        let change = Change::default()
            .word(address.read(), source)
            .word(address.add(1).read(), destination);
        checksum.write(change.and(more).apply(checksum.read()));
        address.write(source);
        address.add(1).write(destination);
        change
    }
}
