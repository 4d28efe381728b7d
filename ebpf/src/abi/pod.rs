//! `aya::Pod`: these types may be copied to and from map memory as bytes.
#![expect(
    unsafe_code,
    reason = "aya::Pod is an unsafe trait; it is what lets userspace copy these types as bytes"
)]

macro_rules! pod {
    ($($name:ident),*) => {$(
        // SAFETY: `#[repr(C)]`, `Copy`, no padding (sizes asserted beside them), no pointers, and every bit pattern
        // is a valid value of its integer fields.
        unsafe impl aya::Pod for super::$name {}
    )*};
}

// SAFETY: a key and a value of `Pod` types; 40 and 88 bytes, which is all of it (asserted beside it).
unsafe impl aya::Pod for super::Slot<super::Flow> {}
// SAFETY: likewise.
unsafe impl aya::Pod for super::Slot<super::Reply> {}

pod!(
    Address,
    ServiceKey,
    Service,
    Backend,
    BackendIndex,
    MaglevTable,
    Filter,
    Tuple,
    Http2,
    Flow,
    NextHop,
    Reply,
    Counters,
    Settings
);
