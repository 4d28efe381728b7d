//! Keys and values of the flow tables as the words that they are in memory (little-endian, as all targets are).
//!
//! A new entry is stored word by word, put together in registers. Field by field it would be twice as many stores, of which
//! a SYN has some behind one that waits for memory: the processor has room for so many there (104 in a Zen 5, 64 in a
//! Zen 4), and then waits, too. And what was stored in halves cannot be loaded whole before it has left that queue.

use super::{Address, Flow, Http2, NextHop, Reply, Tuple};

/// Words of a [`Tuple`].
pub const TUPLE_WORDS: usize = size_of::<Tuple>() / size_of::<u64>();
/// Words of a [`Flow`], and of a [`Reply`].
pub const VALUE_WORDS: usize = size_of::<Flow>() / size_of::<u64>();

const _: () = assert!(size_of::<Reply>() == VALUE_WORDS * size_of::<u64>());

/// Two halves, the first one in the low bits.
#[inline(always)]
const fn halves(low: u32, high: u32) -> u64 {
    low as u64 | (high as u64) << 32
}

/// Two halves of a half, likewise.
#[inline(always)]
const fn quarters(low: u16, high: u16) -> u32 {
    low as u32 | (high as u32) << 16
}

impl Address {
    /// Its two words.
    #[inline(always)]
    #[must_use]
    pub const fn words(&self) -> [u64; 2] {
        let [a, b, c, d] = self.words;
        [halves(a, b), halves(c, d)]
    }
}

impl Tuple {
    /// Its five words.
    #[inline(always)]
    #[must_use]
    pub const fn words(&self) -> [u64; TUPLE_WORDS] {
        let [source, source_low] = self.source.words();
        let [destination, destination_low] = self.destination.words();
        let [a, b, c] = self.reserved;
        let ports = quarters(self.source_port, self.destination_port);
        let protocol = u32::from_le_bytes([self.protocol, a, b, c]);
        let rest = halves(ports, protocol);
        [source, source_low, destination, destination_low, rest]
    }
}

impl Http2 {
    /// Its six words.
    #[inline(always)]
    #[must_use]
    pub const fn words(&self) -> [u64; 6] {
        let lengths = [
            self.partial_length,
            self.hole_partial_length,
            self.phase,
            self.flags,
        ];
        let found = u16::from_le_bytes([self.score, self.misses]);
        [
            halves(self.next, self.highest),
            self.partial,
            self.hole_partial,
            self.island_head,
            halves(self.hole, self.candidate_highest),
            halves(u32::from_le_bytes(lengths), quarters(found, self.island)),
        ]
    }
}

impl Flow {
    /// Its eleven words.
    #[inline(always)]
    #[must_use]
    pub const fn words(&self) -> [u64; VALUE_WORDS] {
        let nat = quarters(self.nat_port, self.nat_source);
        let bits = u16::from_le_bytes([self.state, self.flags]);
        let [a, b, c, d, e, f] = self.http2.words();
        [
            halves(self.backend, self.created),
            halves(nat, quarters(bits, self.service)),
            self.last_seen,
            self.packets,
            self.bytes,
            a,
            b,
            c,
            d,
            e,
            f,
        ]
    }
}

impl NextHop {
    /// Its three words.
    #[inline(always)]
    #[must_use]
    pub const fn words(&self) -> [u64; 3] {
        let [a, b, c, d, e, f] = self.destination;
        let [g, h, i, j, k, l] = self.source;
        [
            halves(self.tick, self.mtu),
            halves(self.interface, u32::from_le_bytes([a, b, c, d])),
            u64::from_le_bytes([e, f, g, h, i, j, k, l]),
        ]
    }
}

impl Reply {
    /// Its eleven words.
    #[inline(always)]
    #[must_use]
    pub const fn words(&self) -> [u64; VALUE_WORDS] {
        let [client, client_low] = self.client.words();
        let bits = u16::from_le_bytes([self.state, self.reserved]);
        let source = quarters(self.nat_source, self.reserved_half);
        let [a, b, c] = self.next_hop.words();
        [
            client,
            client_low,
            halves(quarters(self.client_port, bits), self.backend),
            halves(self.service, source),
            self.last_seen,
            self.packets,
            self.bytes,
            a,
            b,
            c,
            self.reserved_end,
        ]
    }
}

#[cfg(test)]
mod tests {
    use core::mem::offset_of;

    use super::{Address, Flow, Http2, NextHop, Reply, Tuple};

    /// What memory holds in which each field is where it is.
    fn memory<const N: usize>(fields: &[(usize, Vec<u8>)]) -> [u64; N] {
        let mut bytes = vec![0; N * 8];
        for (offset, field) in fields {
            bytes[*offset..offset + field.len()].copy_from_slice(field);
        }
        let (words, rest) = bytes.as_chunks::<8>();
        assert_eq!((words.len(), rest), (N, &[][..]));
        std::array::from_fn(|at| u64::from_le_bytes(words[at]))
    }

    macro_rules! fields {
        ($type:ty, $value:expr, $($field:ident),*) => {
            vec![$((offset_of!($type, $field), $value.$field.to_le_bytes().to_vec())),*]
        };
    }

    /// The bytes of an address, of which no two are the same.
    fn address(first: u8) -> (Address, [u8; 16]) {
        let bytes: [u8; 16] = std::array::from_fn(|at| first + at as u8);
        let (words, _) = bytes.as_chunks::<4>();
        let words = std::array::from_fn(|at| u32::from_le_bytes(words[at]));
        (Address { words }, bytes)
    }

    const HTTP2: Http2 = Http2 {
        next: 0x0102_0304,
        highest: 0x0506_0708,
        partial: 0x1112_1314_1516_1718,
        hole_partial: 0x2122_2324_2526_2728,
        island_head: 0x3132_3334_3536_3738,
        hole: 0x4142_4344,
        candidate_highest: 0x4546_4748,
        partial_length: 0x51,
        hole_partial_length: 0x52,
        phase: 0x53,
        flags: 0x54,
        score: 0x55,
        misses: 0x56,
        island: 0x5758,
    };

    fn http2() -> [u64; 6] {
        memory(&fields!(
            Http2,
            HTTP2,
            next,
            highest,
            partial,
            hole_partial,
            island_head,
            hole,
            candidate_highest,
            partial_length,
            hole_partial_length,
            phase,
            flags,
            score,
            misses,
            island
        ))
    }

    #[test]
    fn the_words_of_a_stream_counter_are_what_is_in_memory() {
        assert_eq!(HTTP2.words(), http2());
    }

    #[test]
    fn the_words_of_a_tuple_are_what_is_in_memory() {
        let ((source, source_bytes), (destination, destination_bytes)) = (address(1), address(17));
        let tuple = Tuple {
            source,
            destination,
            source_port: 0x6162,
            destination_port: 0x6364,
            protocol: 0x65,
            reserved: [0x66, 0x67, 0x68],
        };
        let mut fields = fields!(Tuple, tuple, source_port, destination_port, protocol);
        fields.push((offset_of!(Tuple, source), source_bytes.to_vec()));
        fields.push((offset_of!(Tuple, destination), destination_bytes.to_vec()));
        fields.push((offset_of!(Tuple, reserved), tuple.reserved.to_vec()));
        assert_eq!(tuple.words(), memory(&fields));
    }

    #[test]
    fn the_words_of_a_flow_are_what_is_in_memory() {
        let flow = Flow {
            backend: 0x6162_6364,
            created: 0x6566_6768,
            nat_port: 0x7172,
            nat_source: 0x7374,
            state: 0x75,
            flags: 0x76,
            service: 0x7778,
            last_seen: 0x8182_8384_8586_8788,
            packets: 0x9192_9394_9596_9798,
            bytes: 0xa1a2_a3a4_a5a6_a7a8,
            http2: HTTP2,
        };
        let counter: Vec<u8> = http2().iter().flat_map(|word| word.to_le_bytes()).collect();
        let mut fields = fields!(
            Flow, flow, backend, created, nat_port, nat_source, state, flags, service, last_seen,
            packets, bytes
        );
        fields.push((offset_of!(Flow, http2), counter.to_vec()));
        assert_eq!(flow.words(), memory(&fields));
    }

    #[test]
    fn the_words_of_a_reply_are_what_is_in_memory() {
        let (client, client_bytes) = address(1);
        let next_hop = NextHop {
            tick: 0x6162_6364,
            mtu: 0x6566_6768,
            interface: 0x7172_7374,
            destination: [0x21, 0x22, 0x23, 0x24, 0x25, 0x26],
            source: [0x31, 0x32, 0x33, 0x34, 0x35, 0x36],
        };
        let reply = Reply {
            client,
            client_port: 0x4142,
            state: 0x43,
            reserved: 0x44,
            backend: 0x4546_4748,
            service: 0x5152_5354,
            nat_source: 0x5556,
            reserved_half: 0x5758,
            last_seen: 0x8182_8384_8586_8788,
            packets: 0x9192_9394_9596_9798,
            bytes: 0xa1a2_a3a4_a5a6_a7a8,
            next_hop,
            reserved_end: 0xb1b2_b3b4_b5b6_b7b8,
        };
        let mut fields = fields!(
            Reply,
            reply,
            client_port,
            state,
            reserved,
            backend,
            service,
            nat_source,
            reserved_half,
            last_seen,
            packets,
            bytes,
            reserved_end
        );
        fields.push((offset_of!(Reply, client), client_bytes.to_vec()));
        let at = offset_of!(Reply, next_hop);
        for (offset, field) in fields!(NextHop, next_hop, tick, mtu, interface) {
            fields.push((at + offset, field));
        }
        fields.push((
            at + offset_of!(NextHop, destination),
            next_hop.destination.to_vec(),
        ));
        fields.push((at + offset_of!(NextHop, source), next_hop.source.to_vec()));
        assert_eq!(reply.words(), memory(&fields));
    }
}
