//! One bit test that lets packets pass which concern no service.

use super::Address;

/// Bits in each [`Filter`]; a power of two.
pub const FILTER_BITS: u32 = 1 << 16;

/// A set of (address, port) pairs with false positives and no false negatives: one bit per hash. Lets packets that
/// concern no service pass after one bit test. Userspace sets bits before it inserts and clears them after it
/// removed. 8,192 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// [`FILTER_BITS`] bits.
    pub words: [u64; FILTER_BITS as usize / 64],
}

/// Index of the filter of service addresses in `FILTERS`.
pub const FILTER_SERVICES: u32 = 0;
/// Index of the filter of backend addresses in `FILTERS`.
pub const FILTER_BACKENDS: u32 = 1;

/// The bit of `(address, port, protocol)` in a [`Filter`].
#[inline(always)]
#[must_use]
pub const fn filter_bit(address: &Address, port: u16, protocol: u8) -> u32 {
    let [a, b, c, d] = address.words;
    let folded = (a ^ b ^ c ^ d) as u64 | ((port as u64) << 32) | ((protocol as u64) << 48);
    // Fibonacci hashing: 2^64 / golden ratio (Knuth, TAOCP vol. 3, 6.4); the high bits are the well-mixed ones.
    (folded.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as u32 & (FILTER_BITS - 1)
}
