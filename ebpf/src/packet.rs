//! Headers: where things are in a frame, and the checksums that must follow when they change.
//!
//! Parsing reads through [`Bytes`], so that the same code runs on an XDP frame, on a (possibly non-linear) socket
//! buffer and on a slice in a test. Nothing here trusts a length that it has not compared with what is there, and
//! nothing allocates, loops without bound or panics.
//!
//! Byte order: addresses and ports are kept as they stand in the packet (big endian in memory), like everywhere in
//! [`crate::abi`]; lengths, sequence numbers and offsets are host integers. One's complement sums do not depend on
//! the byte order as long as it is the same for all words (RFC 1071 section 2 (B)), so checksums are computed on
//! words exactly as they lie in memory.

mod answer;

use crate::abi::{Address, PROTOCOL_TCP, ServiceKey, Tuple};

pub use answer::{ANSWER_LENGTH, Complaint};

/// Bytes that can be read at an offset: a frame, or the payload of a packet.
pub trait Bytes {
    /// `N` bytes from `offset`, or `None` where any of them lies beyond the end.
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]>;
}

impl Bytes for [u8] {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let rest = self.get(offset as usize..)?;
        rest.first_chunk::<N>().copied()
    }
}

impl<B: Bytes + ?Sized> Bytes for &B {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        (**self).load(offset)
    }
}

/// A part of other bytes, with offsets counted from its own start; what the frame walker gets to see.
/// It never reads past its own end, even where the frame goes on (Ethernet pads short frames).
#[derive(Clone, Copy, Debug)]
pub struct Window<B> {
    /// What is looked at.
    pub bytes: B,
    /// Where the window starts in it.
    pub start: u32,
    /// How long the window is.
    pub length: u32,
}

impl<B: Bytes> Bytes for Window<B> {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        // Widened, so that no offset wraps into the window.
        if u64::from(offset) + N as u64 > u64::from(self.length) {
            return None;
        }
        self.bytes.load(self.start.wrapping_add(offset))
    }
}

/// Length of an Ethernet header without a VLAN tag.
pub const ETHERNET_LENGTH: u32 = 14;
/// Length of an IPv4 header without options.
pub const IPV4_LENGTH: u32 = 20;
/// Length of a TCP header without options.
pub const TCP_LENGTH: u32 = 20;
/// Offset of the time to live in an IPv4 header.
pub const IPV4_TTL: u32 = 8;
/// Offset of the checksum in an IPv4 header.
pub const IPV4_CHECKSUM: u32 = 10;
/// Offset of the source address in an IPv4 header.
pub const IPV4_SOURCE: u32 = 12;
/// Offset of the checksum in a TCP header.
pub const TCP_CHECKSUM: u32 = 16;

/// IANA protocol number of ICMP.
const PROTOCOL_ICMP: u8 = 1;
/// `ETH_P_IP` as it stands in the frame.
const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];

/// TCP flags (RFC 9293 section 3.1).
pub mod tcp {
    /// No more data from the sender.
    pub const FIN: u8 = 1 << 0;
    /// Synchronise sequence numbers.
    pub const SYN: u8 = 1 << 1;
    /// Reset the connection.
    pub const RST: u8 = 1 << 2;
    /// The acknowledgement field is valid.
    pub const ACK: u8 = 1 << 4;
}

/// A TCP packet and where its parts are in the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Addresses, ports and protocol.
    pub tuple: Tuple,
    /// Offset of the TCP header in the frame.
    pub transport: u32,
    /// Offset of the payload in the frame.
    pub payload: u32,
    /// Bytes of payload.
    pub payload_length: u32,
    /// Bytes from the IP header to the end of the payload.
    pub length: u32,
    /// TCP sequence number.
    pub sequence: u32,
    /// Bits of [`tcp`].
    pub flags: u8,
    /// Time to live.
    pub time_to_live: u8,
    /// The header lengths agree with each other and with the frame; otherwise `payload` and the lengths mean nothing.
    pub sound: bool,
}

impl Packet {
    /// The tuple's destination as the key of a service or a backend.
    #[inline(always)]
    #[must_use]
    pub const fn destination(&self) -> ServiceKey {
        ServiceKey {
            address: self.tuple.destination,
            port: self.tuple.destination_port,
            protocol: self.tuple.protocol,
            reserved: [0; 5],
        }
    }

    /// True for the first packet of a connection.
    #[inline(always)]
    #[must_use]
    pub const fn opens(&self) -> bool {
        self.flags & (tcp::SYN | tcp::ACK) == tcp::SYN
    }

    /// Length of the headers from the IP header on.
    #[inline(always)]
    #[must_use]
    pub const fn headers(&self) -> u32 {
        self.payload.wrapping_sub(ETHERNET_LENGTH)
    }
}

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A TCP packet that is whole.
    Tcp(Packet),
    /// The first fragment of a TCP packet; the others carry no ports.
    Fragment(Tuple),
    /// An ICMP message, at this offset.
    Icmp(u32),
    /// Anything else; no business of ours.
    Other,
}

/// A fixed part of an IPv4 header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4 {
    /// Source address, as it stands in the packet.
    pub source: u32,
    /// Destination address, as it stands in the packet.
    pub destination: u32,
    /// Header length with options, 20 to 60.
    pub header: u32,
    /// Total length.
    pub length: u32,
    /// The fragment word: flags and offset.
    pub fragment: u16,
    /// Time to live.
    pub time_to_live: u8,
    /// IANA protocol number.
    pub protocol: u8,
}

impl Ipv4 {
    /// Bit "don't fragment" of the fragment word.
    const DONT: u16 = 0x4000;
    /// Bit "more fragments" of the fragment word.
    const MORE: u16 = 0x2000;
    /// The offset in the fragment word.
    const OFFSET: u16 = 0x1fff;

    /// Reads the header at `offset`; `None` where it is cut short or is none.
    #[inline(always)]
    #[must_use]
    pub fn parse(frame: &(impl Bytes + ?Sized), offset: u32) -> Option<Self> {
        let h = frame.load::<{ IPV4_LENGTH as usize }>(offset)?;
        let header = u32::from(h[0] & 0x0f) * 4;
        if h[0] >> 4 != 4 || header < IPV4_LENGTH {
            return None;
        }
        Some(Self {
            source: u32::from_ne_bytes([h[12], h[13], h[14], h[15]]),
            destination: u32::from_ne_bytes([h[16], h[17], h[18], h[19]]),
            header,
            length: u32::from(u16::from_be_bytes([h[2], h[3]])),
            fragment: u16::from_be_bytes([h[6], h[7]]),
            time_to_live: h[8],
            protocol: h[9],
        })
    }

    /// The 5-tuple with these ports.
    #[inline(always)]
    #[must_use]
    pub const fn tuple(&self, source_port: u16, destination_port: u16) -> Tuple {
        Tuple {
            source: Address::from_v4_word(self.source),
            destination: Address::from_v4_word(self.destination),
            source_port,
            destination_port,
            protocol: self.protocol,
            reserved: [0; 3],
        }
    }
}

/// Parses an Ethernet frame of `length` bytes. A VLAN tag in the frame makes it [`Parsed::Other`]: the packet belongs
/// to the VLAN's own interface.
#[inline(always)]
#[must_use]
pub fn parse(frame: &(impl Bytes + ?Sized), length: u32) -> Parsed {
    if frame.load::<2>(ETHERNET_LENGTH - 2) != Some(ETHERTYPE_IPV4) {
        return Parsed::Other;
    }
    let Some(ip) = Ipv4::parse(frame, ETHERNET_LENGTH) else {
        return Parsed::Other;
    };
    let transport = ETHERNET_LENGTH + ip.header;
    if ip.protocol == PROTOCOL_ICMP && ip.fragment & (Ipv4::MORE | Ipv4::OFFSET) == 0 {
        return Parsed::Icmp(transport);
    }
    if ip.protocol != PROTOCOL_TCP || ip.fragment & Ipv4::OFFSET != 0 {
        return Parsed::Other;
    }
    if ip.fragment & Ipv4::MORE != 0 {
        return match frame.load::<4>(transport) {
            Some(p) => Parsed::Fragment(ip.tuple(
                u16::from_ne_bytes([p[0], p[1]]),
                u16::from_ne_bytes([p[2], p[3]]),
            )),
            None => Parsed::Other,
        };
    }
    let Some(t) = frame.load::<16>(transport) else {
        return Parsed::Other;
    };
    // BIG TCP (Linux 6.3, b1a78b9b9886): a packet that does not fit the 16 bits says 0, and the frame's own length
    // is the truth.
    let total = if ip.length == 0 && length > 0xffff {
        length.wrapping_sub(ETHERNET_LENGTH)
    } else {
        ip.length
    };
    let headers = ip.header + u32::from(t[12] >> 4) * 4;
    Parsed::Tcp(Packet {
        tuple: ip.tuple(
            u16::from_ne_bytes([t[0], t[1]]),
            u16::from_ne_bytes([t[2], t[3]]),
        ),
        transport,
        payload: ETHERNET_LENGTH + headers,
        payload_length: total.wrapping_sub(headers),
        length: total,
        sequence: u32::from_be_bytes([t[4], t[5], t[6], t[7]]),
        flags: t[13],
        time_to_live: ip.time_to_live,
        sound: headers >= ip.header + TCP_LENGTH
            && headers <= total
            && total.wrapping_add(ETHERNET_LENGTH) <= length,
    })
}

/// The change of a one's complement sum, gathered word by word (RFC 1624 equation 3: HC' = ~(~HC + ~m + m')).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change(u64);

impl Change {
    /// No change; also the sum of nothing, to which words are added as if they had been `!0`, which counts as nothing.
    pub const NONE: Self = Self(0);

    /// A 32-bit word of the packet went from `old` to `new`, both as they lie in memory.
    #[inline(always)]
    #[must_use]
    pub const fn word(self, old: u32, new: u32) -> Self {
        // Each step adds less than 2^33 to 64 bits: no carry is lost.
        Self(self.0 + (!old) as u64 + new as u64)
    }

    /// A 16-bit half word went from `old` to `new`.
    #[inline(always)]
    #[must_use]
    pub const fn half(self, old: u16, new: u16) -> Self {
        Self(self.0 + (!old) as u64 + new as u64)
    }

    /// Both changes together.
    #[inline(always)]
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    /// The change as a 32-bit partial sum, as the kernel's checksum helpers take it.
    #[inline(always)]
    #[must_use]
    pub const fn partial(self) -> u32 {
        // Below 2^36 after a dozen words: the first fold leaves at most one carry, the second none.
        let once = (self.0 & 0xffff_ffff) + (self.0 >> 32);
        ((once & 0xffff_ffff) + (once >> 32)) as u32
    }

    /// The checksum that was `old` before the change.
    #[inline(always)]
    #[must_use]
    pub const fn apply(self, old: u16) -> u16 {
        let sum = self.partial() as u64 + (!old) as u64;
        // At most 2^32 + 2^16: 17 bits after one fold, and a carry of one after two; the third takes that in.
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        let sum = (sum & 0xffff) + (sum >> 16);
        !(sum as u16)
    }
}

#[cfg(test)]
mod tests;
