//! Flow hash -> backend slot.
//!
//! The hash takes the whole 5-tuple, the service's address included, so that a client port that talks to two
//! services is spread for each; and a seed drawn per boot, so that nobody outside can aim at one backend.
//! Where a service wants a client's flows together, the slot comes from a hash without the client's port instead; the
//! NAT port still comes from the whole, or a client's flows would all try the same ports in the same order.
//! It must be cheap, and well spread in its high bits (the slot) and in its low bits (the NAT port) alike.

use crate::abi::{self, MAGLEV_SLOTS, Tuple};

/// Multiplier of the mixing step: 2^64 / golden ratio, odd (Knuth, TAOCP vol. 3, 6.4).
const MULTIPLIER: u64 = 0x9e37_79b9_7f4a_7c15;
/// Multiplier of the last step, from MurmurHash3's 64-bit finaliser (public domain).
const LAST: u64 = 0xff51_afd7_ed55_8ccd;

#[inline(always)]
const fn mix(hash: u64, word: u64) -> u64 {
    // Without the shift the low bits would never see what the high bits of a word say.
    let product = (hash ^ word).wrapping_mul(MULTIPLIER);
    product ^ (product >> 32)
}

/// The hash of a flow's 5-tuple.
#[inline(always)]
#[must_use]
pub const fn hash(tuple: &Tuple, seed: u64) -> u64 {
    hash_with(tuple, tuple.source_port, seed)
}

/// The hash that chooses the slot, by the `kind` that the service has (one of [`abi::hash`]).
///
/// Without a branch: the verifier follows both sides of one to the end of the program, and twice the search for a NAT
/// port was more than the million instructions it has patience for (kernel 6.18).
#[inline(always)]
#[must_use]
pub const fn choice(tuple: &Tuple, seed: u64, kind: u8) -> u64 {
    const { assert!(abi::hash::FIVE_TUPLE == 0 && abi::hash::SOURCE_IP == 1) };
    let kept = (kind as u16).wrapping_sub(1);
    hash_with(tuple, tuple.source_port & kept, seed)
}

#[inline(always)]
const fn hash_with(tuple: &Tuple, source_port: u16, seed: u64) -> u64 {
    let key = Tuple {
        source_port,
        ..*tuple
    };
    let [source, source_low, destination, destination_low, ports] = key.words();
    // Each address by itself: a processor multiplies for both at once. Turned, or two that are the same would cancel out.
    let source = mix(mix(seed, source), source_low);
    let destination = mix(mix(seed, destination), destination_low);
    let hash = mix(source ^ destination.rotate_left(24), ports).wrapping_mul(LAST);
    hash ^ (hash >> 33)
}

/// The Maglev slot of a hash: its high half scaled to the table (multiply and shift, no division).
#[inline(always)]
#[must_use]
pub const fn slot(hash: u64) -> u32 {
    scale(hash >> 32, MAGLEV_SLOTS as u32)
}

/// `[0, 2^32)` scaled to `[0, size)`.
#[inline(always)]
const fn scale(word: u64, size: u32) -> u32 {
    ((word & 0xffff_ffff).wrapping_mul(size as u64) >> 32) as u32
}

/// The order in which a flow tries NAT ports: its own start and its own stride, so that two flows that want the same
/// port part ways at the next try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    first: u32,
    count: u32,
    position: u32,
    stride: u32,
}

impl Ports {
    /// The order over `first..=last` for a flow with this hash; `None` if the range is empty.
    #[inline(always)]
    #[must_use]
    pub const fn new(hash: u64, first: u16, last: u16) -> Option<Self> {
        if last < first {
            return None;
        }
        let count = (last - first) as u32 + 1;
        // Bits that the start does not depend on much. 0 or `count` would stand still.
        let stride = scale(hash.rotate_left(17), count) | 1;
        Some(Self {
            first: first as u32,
            count,
            position: scale(hash, count),
            stride: if stride < count { stride } else { 1 },
        })
    }

    /// The port to try now, host byte order, and a step on.
    #[inline(always)]
    pub const fn advance(&mut self) -> u16 {
        let port = (self.first + self.position) as u16;
        let next = self.position + self.stride;
        // Both are at most `count`, so one subtraction brings it back.
        self.position = if next >= self.count {
            next - self.count
        } else {
            next
        };
        port
    }
}

/// Which of `count` NAT sources a flow uses first.
#[inline(always)]
#[must_use]
pub const fn source(hash: u64, count: u16) -> u16 {
    scale(hash >> 16, count as u32) as u16
}

#[cfg(test)]
mod tests {
    use super::{Ports, choice, hash, slot, source};
    use crate::abi::{self, Address, MAGLEV_SLOTS, PROTOCOL_TCP, Tuple};
    use proptest::prelude::*;

    fn tuple(source: u32, port: u16) -> Tuple {
        Tuple {
            source: Address::from_v4_word(source.to_be()),
            destination: Address::from_v4_word(0x0a00_000a_u32.to_be()),
            source_port: port.to_be(),
            destination_port: 443u16.to_be(),
            protocol: PROTOCOL_TCP,
            reserved: [0; 3],
        }
    }

    /// Chi-squared of `hits` over its buckets.
    fn chi_squared(hits: &[u32]) -> f64 {
        let total: u32 = hits.iter().sum();
        let mean = f64::from(total) / hits.len() as f64;
        hits.iter()
            .map(|&n| (f64::from(n) - mean).powi(2) / mean)
            .sum()
    }

    proptest! {
        #[test]
        fn every_hash_has_a_slot_and_a_source(h in any::<u64>(), count in 1u16..) {
            prop_assert!((slot(h) as usize) < MAGLEV_SLOTS);
            prop_assert!(source(h, count) < count);
        }

        #[test]
        fn every_port_tried_is_in_range(h in any::<u64>(), a in any::<u16>(), b in any::<u16>()) {
            let (first, last) = (a.min(b), a.max(b));
            let mut ports = Ports::new(h, first, last).expect("not empty");
            for _ in 0..64 {
                let port = ports.advance();
                prop_assert!((first..=last).contains(&port));
            }
        }

        #[test]
        fn consecutive_ports_of_one_client_spread_evenly(seed in any::<u64>(), client in any::<u32>()) {
            let mut hits = [0u32; 64];
            for port in 1024..1024 + 16_384 {
                let s = slot(hash(&tuple(client, port), seed)) as usize;
                hits[s * 64 / MAGLEV_SLOTS] += 1;
            }
            // 63 degrees of freedom: mean 63, deviation 11.2; ten deviations away is not chance.
            prop_assert!(chi_squared(&hits) < 175.0, "{}", chi_squared(&hits));
        }

        #[test]
        fn consecutive_clients_spread_evenly(seed in any::<u64>(), first in any::<u32>()) {
            let mut hits = [0u32; 64];
            let mut ports = [0u32; 64];
            for n in 0..16_384 {
                let h = hash(&tuple(first.wrapping_add(n), 40_000), seed);
                hits[slot(h) as usize * 64 / MAGLEV_SLOTS] += 1;
                let port = Ports::new(h, 10_240, 10_240 + 6399).expect("not empty").advance();
                ports[usize::from(port - 10_240) / 100] += 1;
            }
            prop_assert!(chi_squared(&hits) < 175.0, "{}", chi_squared(&hits));
            prop_assert!(chi_squared(&ports) < 175.0, "{}", chi_squared(&ports));
        }
    }

    proptest! {
        #[test]
        fn source_ip_keeps_a_client_together_and_spreads_clients_evenly(
            seed in any::<u64>(), first in any::<u32>(), ports in any::<[u16; 3]>()
        ) {
            let by_address = |tuple: &Tuple| {
                slot(choice(tuple, seed, abi::hash::SOURCE_IP))
            };
            let mut hits = [0u32; 64];
            for n in 0..4096 {
                let client = first.wrapping_add(n);
                let chosen = by_address(&tuple(client, ports[0]));
                for port in ports {
                    prop_assert_eq!(by_address(&tuple(client, port)), chosen);
                }
                hits[chosen as usize * 64 / MAGLEV_SLOTS] += 1;
            }
            prop_assert!(chi_squared(&hits) < 175.0, "{}", chi_squared(&hits));
        }

        #[test]
        fn five_tuple_is_the_whole_hash(seed in any::<u64>(), client in any::<u32>(), port in any::<u16>()) {
            let tuple = tuple(client, port);
            let whole = hash(&tuple, seed);
            prop_assert_eq!(choice(&tuple, seed, abi::hash::FIVE_TUPLE), whole);
        }
    }

    #[test]
    fn an_empty_port_range_offers_none() {
        assert_eq!(Ports::new(1, 2, 1), None);
    }

    #[test]
    fn a_different_seed_is_a_different_spread() {
        let same = (0..10_000u16)
            .filter(|&p| slot(hash(&tuple(1, p), 1)) == slot(hash(&tuple(1, p), 2)))
            .count();
        assert!(same < 10, "{same} of 10,000 slots did not move");
    }
}
