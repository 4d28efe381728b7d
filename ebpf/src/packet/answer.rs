//! An ICMP error of the balancer's own: whether a packet may be answered with one, and the headers that go before it.
//!
//! ```text
//! IPv4, 20 bytes   from the packet's destination to its source, internetwork control (RFC 1812 section 4.3.2.5)
//! ICMP,  8 bytes   type, code, checksum, zero, MTU of the next hop (RFC 792; RFC 1191 section 4)
//! quote            the packet's IPv4 header and the first 20 bytes of its TCP header (RFC 792 asks for 8)
//! ```

use super::{Change, IPV4_LENGTH, Ipv4, TCP_LENGTH};

/// Bytes that go before the quote.
pub const ANSWER_LENGTH: u32 = 28;

/// What is wrong with a packet, as a word that fits a register: type, code, MTU (16 bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Complaint(pub u32);

impl Complaint {
    /// Destination unreachable, code 4: fragmentation needed and DF set.
    const TOO_BIG: u32 = 3 << 24 | 4 << 16;

    /// It is larger than the `mtu` of the next hop.
    #[inline(always)]
    #[must_use]
    pub const fn too_big(mtu: u32) -> Self {
        // The field has 16 bits, and no larger packet is an IPv4 packet on the wire.
        let mtu = if mtu > 0xffff { 0xffff } else { mtu };
        Self(Self::TOO_BIG | mtu)
    }

    /// Its time to live ran out in transit: type 11, code 0.
    #[inline(always)]
    #[must_use]
    pub const fn time_exceeded() -> Self {
        Self(11 << 24)
    }

    /// True if the sender of `packet` may be told: it is one host (RFC 1122 section 3.2.2: neither a group, nor a
    /// broadcast, nor this host or network), and asked for no fragments where fragments would have done.
    #[inline(always)]
    #[must_use]
    pub const fn may_answer(self, packet: &Ipv4) -> bool {
        let first = packet.source.to_ne_bytes()[0];
        let one_host = first != 0 && first != 127 && first < 224;
        let asked = self.0 & 0xffff_0000 != Self::TOO_BIG || packet.fragment & Ipv4::DONT != 0;
        one_host && asked
    }

    /// The headers that go before the quote of `packet`, as words in memory. `transport` is the sum of the quoted part
    /// of its TCP header, as it will be on the wire.
    ///
    /// An IP header sums to zero with its checksum, so the quoted one adds nothing to that of ICMP.
    #[inline(always)]
    #[must_use]
    pub const fn headers(self, packet: &Ipv4, transport: Change) -> [u32; 7] {
        let length = IPV4_LENGTH + 8 + packet.header + TCP_LENGTH;
        let first = u32::from_ne_bytes([0x45, 0xc0, (length >> 8) as u8, length as u8]);
        // Don't fragment: such a packet needs no identification (RFC 6864 section 4.1).
        let second = u32::from_ne_bytes([0, 0, 0x40, 0]);
        let third = [64, super::PROTOCOL_ICMP];
        let ip = Change::NONE
            .word(!0, first)
            .word(!0, second)
            .half(!0, u16::from_ne_bytes(third))
            .word(!0, packet.destination)
            .word(!0, packet.source)
            .apply(!0)
            .to_ne_bytes();
        let [kind, code, high, low] = self.0.to_be_bytes();
        let mtu = u32::from_ne_bytes([0, 0, high, low]);
        let icmp = transport
            .half(!0, u16::from_ne_bytes([kind, code]))
            .word(!0, mtu)
            .apply(!0)
            .to_ne_bytes();
        [
            first,
            second,
            u32::from_ne_bytes([third[0], third[1], ip[0], ip[1]]),
            packet.destination,
            packet.source,
            u32::from_ne_bytes([kind, code, icmp[0], icmp[1]]),
            mtu,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::full;
    use super::super::{Bytes, IPV4_CHECKSUM};
    use super::*;
    use proptest::prelude::*;

    fn packet(source: [u8; 4], fragment: u16, options: u8) -> Vec<u8> {
        let header = 20 + usize::from(options) * 4;
        let mut ip = vec![0; header];
        ip[0] = 0x45 + options;
        ip[2..4].copy_from_slice(&1500u16.to_be_bytes());
        ip[6..8].copy_from_slice(&fragment.to_be_bytes());
        ip[8..10].copy_from_slice(&[64, 6]);
        ip[12..16].copy_from_slice(&source);
        ip[16..20].copy_from_slice(&[10, 0, 0, 2]);
        let checksum = full(&ip);
        let at = IPV4_CHECKSUM as usize;
        ip[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
        ip
    }

    proptest! {
        #[test]
        fn both_checksums_are_right_whatever_is_quoted(
            source: [u8; 4], options in 0u8..=10, tcp: [u8; 20], mtu in 68u32..=0x1_0000, expired: bool
        ) {
            let mut quote = packet(source, 0x4000, options);
            let ip = Ipv4::parse(quote.as_slice(), 0).expect("a header");
            quote.extend(tcp);
            let mut transport = Change::default();
            for word in tcp.chunks_exact(4) {
                transport = transport.word(!0, u32::from_ne_bytes(word.try_into().expect("four")));
            }
            let complaint = if expired { Complaint::time_exceeded() } else { Complaint::too_big(mtu) };
            let headers: Vec<u8> = complaint
                .headers(&ip, transport)
                .iter()
                .flat_map(|word| word.to_ne_bytes())
                .collect();
            prop_assert_eq!(full(&headers[..20]), 0, "of the IP header");
            let message = [&headers[20..], &quote].concat();
            prop_assert_eq!(full(&message), 0, "of the ICMP message");
            let answer = Ipv4::parse(headers.as_slice(), 0).expect("a header");
            prop_assert_eq!((answer.source, answer.destination), (ip.destination, ip.source));
            prop_assert_eq!(answer.length as usize, headers.len() + quote.len());
            let said = headers.as_slice().load::<8>(20).expect("eight bytes");
            let expected = if expired { (11, 0, 0) } else { (3, 4, mtu.min(0xffff)) };
            let mtu = u32::from(u16::from_be_bytes([said[6], said[7]]));
            prop_assert_eq!((said[0], said[1], mtu), expected);
        }
    }

    #[test]
    fn only_one_host_is_answered() {
        for (source, answered) in [
            ([10, 0, 0, 1], true),
            ([223, 255, 255, 254], true),
            ([0, 0, 0, 1], false),
            ([127, 0, 0, 1], false),
            ([224, 0, 0, 1], false),
            ([255, 255, 255, 255], false),
        ] {
            let ip = Ipv4::parse(packet(source, 0x4000, 0).as_slice(), 0).expect("a header");
            for complaint in [Complaint::too_big(1400), Complaint::time_exceeded()] {
                assert_eq!(
                    complaint.may_answer(&ip),
                    answered,
                    "{source:?}, {complaint:?}"
                );
            }
        }
    }

    #[test]
    fn a_packet_that_may_be_fragmented_is_not_told_to_be_smaller() {
        let ip = Ipv4::parse(packet([10, 0, 0, 1], 0, 0).as_slice(), 0).expect("a header");
        assert!(!Complaint::too_big(1400).may_answer(&ip));
        assert!(Complaint::time_exceeded().may_answer(&ip));
    }
}
