//! Which service an address is: `SERVICES`, and what each processor remembers of it.
//!
//! A lookup in the kernel's hash map is a call that calls two more. What it said is remembered by each processor, together
//! with the epoch that it was said in. Userspace begins a new epoch after every change of `SERVICES`, and only then says
//! that the change is made; so what is remembered from before is no answer any more. That an address is no service is not
//! remembered: the filter has said so already, for nearly all.

use evenkeel_ebpf::abi::{PROTOCOL_TCP, Service, ServiceKey, filter_bit};

use crate::maps::{REMEMBERED, SERVICE_EPOCH, SERVICE_MEMORY, SERVICES};

/// A value of `SERVICE_MEMORY`; all zero is no address's. 48 bytes.
#[repr(C)]
pub struct Remembered {
    key: ServiceKey,
    service: Service,
    /// The epoch that it was said in.
    epoch: u64,
}

/// The service at `key`, which is only changed by the next call.
#[inline(always)]
pub fn service(key: &ServiceKey) -> Option<&'static Service> {
    const { assert!(REMEMBERED.is_power_of_two()) };
    // Before `SERVICES` is asked: a change meanwhile has an epoch after this one.
    let epoch = *SERVICE_EPOCH.get(0)?;
    let place = filter_bit(&key.address, key.port, PROTOCOL_TCP) & (REMEMBERED as u32 - 1);
    let memory = SERVICE_MEMORY.get_ptr_mut(place)?;
    // SAFETY: this processor's value, and nothing else of ours runs on it meanwhile.
    let memory = unsafe { &mut *memory };
    if memory.epoch == epoch && same(&memory.key, key) {
        return Some(&memory.service);
    }
    // SAFETY: the value is copied before anything else happens to the map.
    let service = *unsafe { SERVICES.get(key) }?;
    *memory = Remembered {
        key: *key,
        service,
        epoch,
    };
    Some(&memory.service)
}

/// Whether two keys are the same; their reserved bytes are zero. Without a branch between the words.
#[inline(always)]
fn same(one: &ServiceKey, other: &ServiceKey) -> bool {
    let ([a, b], [c, d]) = (one.address.words(), other.address.words());
    let rest = u64::from(one.port ^ other.port) | u64::from(one.protocol ^ other.protocol);
    (a ^ c) | (b ^ d) | rest == 0
}
