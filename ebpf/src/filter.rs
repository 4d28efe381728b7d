//! The bit tests that let unrelated packets pass before anything is hashed.

use evenkeel_ebpf::abi::{Address, FILTER_BACKENDS, FILTER_SERVICES, PROTOCOL_TCP, filter_bit};

use crate::maps::FILTERS;

/// May `(address, port)` be a service?
#[inline(always)]
pub fn maybe_service(address: &Address, port: u16) -> bool {
    holds(FILTER_SERVICES, address, port)
}

/// May `(address, port)` be a backend?
#[inline(always)]
pub fn maybe_backend(address: &Address, port: u16) -> bool {
    holds(FILTER_BACKENDS, address, port)
}

#[inline(always)]
fn holds(filter: u32, address: &Address, port: u16) -> bool {
    let bit = filter_bit(address, port, PROTOCOL_TCP);
    FILTERS
        .get(filter)
        .and_then(|filter| filter.words.get((bit >> 6) as usize))
        .is_some_and(|word| word >> (bit & 63) & 1 != 0)
}
