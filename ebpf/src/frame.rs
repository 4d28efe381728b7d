//! A frame as a hook shows it: what forwarding needs from XDP and TC alike, so that one core serves both.
//!
//! The trait is monomorphised and everything that takes a frame is `#[inline(always)]`: the verifier follows the
//! context pointer only inside the program's own function.

use aya_ebpf::bindings::bpf_fib_lookup;
use evenkeel_ebpf::abi::{Counters, Event, Http2, NextHop};
use evenkeel_ebpf::http2::{Segment, Work};
use evenkeel_ebpf::packet::{
    Bytes, Change, Complaint, ETHERNET_LENGTH, IPV4_CHECKSUM, IPV4_SOURCE, IPV4_TTL, Packet,
    TCP_CHECKSUM,
};

pub use crate::raw::{load, opaque};
use crate::walker::Phase;

/// What becomes of a packet.
pub enum Verdict {
    /// On to the next hook or the stack, untouched.
    Pass,
    /// Dropped; the reason is counted.
    Drop,
    /// Sent: the action that the helper asked for.
    Sent(u32),
}

/// The addresses and ports that a packet leaves with.
pub struct Rewrite {
    pub source: u32,
    pub destination: u32,
    pub source_port: u16,
    pub destination_port: u16,
}

/// The helper or the frame's layout refused.
pub struct Refused;

/// What one packet adds to the counters.
#[derive(Clone, Copy)]
pub struct Passage {
    pub packets: u64,
    pub bytes: u64,
}

impl Passage {
    /// Adds it to what came from clients.
    #[inline(always)]
    pub fn count(self, counters: &mut Counters) {
        counters.packets += self.packets;
        counters.bytes += self.bytes;
    }
}

/// The part of a frame that a program can look at without asking the kernel for it: its first and its last address.
pub struct Linear(pub usize, pub usize);

impl Bytes for Linear {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        load::<N>(self.0, self.1, offset)
    }
}

/// A received frame.
pub trait Frame: Bytes {
    /// No hook of ours comes after this one: what it cannot finish it must still do something about.
    const LAST: bool;

    /// What can be looked at as it is; until the frame is changed.
    fn linear(&self) -> Linear;

    /// Length of the frame.
    fn length(&self) -> u32;
    /// What the packet adds to the counters; a GSO packet counts as the packets it was or will be.
    fn passage(&self, packet: &Packet) -> Passage;
    /// Length, from the IP header, of the largest packet that leaves for this one.
    fn largest(&self, packet: &Packet) -> u32;
    /// Interface it came in on.
    fn interface(&self) -> u32;
    /// `bpf_fib_lookup` with this hook's context.
    fn fib_lookup(&self, parameters: &mut bpf_fib_lookup) -> i64;
    /// Runs the frame walker's common case, see `walker`.
    fn walk_in_step(&self, state: &mut Http2, segment: Segment) -> u32;
    /// Runs a phase of the frame walker.
    fn walk(&self, phase: Phase, work: *mut Work) -> u32;
    /// Handles the ICMP message at `at`.
    fn icmp(&self, at: u32) -> Verdict;
    /// What becomes of a packet that cannot be sent on, which is counted as `reason`.
    fn refuse(&self, reason: Event, complaint: Complaint) -> Verdict;
    /// Writes addresses, ports, TTL, checksums and, where `hop` is given, the Ethernet header.
    fn rewrite(
        &self,
        packet: &Packet,
        rewrite: &Rewrite,
        hop: Option<&NextHop>,
    ) -> Result<(), Refused>;
    /// Sends the frame as it is out of `interface`.
    fn send(&self, interface: u32) -> Verdict;
    /// Sends the packet through the neighbour table, which resolves `gateway` first where needed.
    fn send_to_neighbour(&self, interface: u32, gateway: u32) -> Verdict;
}

/// The changes of a TCP checksum, apart because the kernel treats the pseudo header apart where the checksum is
/// still to be completed by the device (`CHECKSUM_PARTIAL`).
pub struct Changes {
    pub addresses: Change,
    pub ports: Change,
}

/// Rewrites headers that lie between `data` and `end`, all but the TCP checksum. `None` if they do not.
///
/// The IP header's checksum makes the header sum to zero before and after, so a checksum over the whole packet
/// (`CHECKSUM_COMPLETE`) stays true without a helper.
#[inline(always)]
pub fn rewrite_in_place(
    data: usize,
    end: usize,
    packet: &Packet,
    rewrite: &Rewrite,
    hop: Option<&NextHop>,
) -> Option<Changes> {
    // At most 74; the mask tells the verifier, which forgets bounds of spilled values.
    let tcp = opaque(data + (packet.transport & 0x7f) as usize);
    if tcp + TCP_CHECKSUM as usize + 2 > end {
        return None;
    }
    let ip = data + ETHERNET_LENGTH as usize;
    if ip + 20 > end {
        return None;
    }
    let ttl = (ip + IPV4_TTL as usize) as *mut u16;
    let checksum = (ip + IPV4_CHECKSUM as usize) as *mut u16;
    let address = (ip + IPV4_SOURCE as usize) as *mut u32;
    let port = tcp as *mut u16;
    // SAFETY: both headers lie before `end`, as compared above; for the alignment see `read`.
    unsafe {
        let addresses = Change::default()
            .word(address.read(), rewrite.source)
            .word(address.add(1).read(), rewrite.destination);
        let ports = Change::default()
            .half(port.read(), rewrite.source_port)
            .half(port.add(1).read(), rewrite.destination_port);
        let old = ttl.read();
        // TTL is the first byte in memory, the low one of a little-endian half word; it is at least 2 here.
        let new = old.wrapping_sub(1);
        ttl.write(new);
        checksum.write(addresses.half(old, new).apply(checksum.read()));
        address.write(rewrite.source);
        address.add(1).write(rewrite.destination);
        port.write(rewrite.source_port);
        port.add(1).write(rewrite.destination_port);
        if let Some(hop) = hop {
            write_ethernet(data, hop);
        }
        Some(Changes { addresses, ports })
    }
}

/// Writes the Ethernet addresses.
///
/// # Safety
/// The header must lie inside the packet.
#[inline(always)]
pub unsafe fn write_ethernet(data: usize, hop: &NextHop) {
    let ethernet = data as *mut u16;
    let to = hop.destination.as_ptr().cast::<u16>();
    let from = hop.source.as_ptr().cast::<u16>();
    // SAFETY: as the caller promises; both addresses in `hop` are 6 bytes at even offsets.
    unsafe {
        ethernet.write(to.read());
        ethernet.add(1).write(to.add(1).read());
        ethernet.add(2).write(to.add(2).read());
        ethernet.add(3).write(from.read());
        ethernet.add(4).write(from.add(1).read());
        ethernet.add(5).write(from.add(2).read());
    }
}
