//! The packet as TC shows it: only what reading needs.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use aya_ebpf::programs::TcContext;
use evenkeel_ebpf::packet::{Bytes, Packet};

use crate::raw::load;

pub struct Skb(pub TcContext);

impl Skb {
    /// True if the packet belongs to a VLAN interface above this one.
    #[inline(always)]
    pub fn is_tagged(&self) -> bool {
        // SAFETY: a field of the program's own context.
        unsafe { (*self.0.skb.skb).vlan_present != 0 }
    }

    #[inline(always)]
    pub fn length(&self) -> u32 {
        self.0.len()
    }

    /// Index of the interface that it is seen on.
    #[inline(always)]
    pub fn interface(&self) -> u32 {
        // SAFETY: a field of the program's own context.
        unsafe { (*self.0.skb.skb).ifindex }
    }

    /// How many packets it is on the wire, and how many bytes from the IP header: each segment has its own headers.
    #[inline(always)]
    pub fn passage(&self, packet: &Packet) -> (u64, u64) {
        // SAFETY: a field of the program's own context.
        let segments = u64::from(unsafe { (*self.0.skb.skb).gso_segs }).max(1);
        let headers = (segments - 1) * u64::from(packet.headers());
        (segments, u64::from(packet.length) + headers)
    }
}

impl Bytes for Skb {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        #[repr(C, align(8))]
        struct Aligned<const N: usize>([u8; N]);
        if let Some(found) = load::<N>(self.0.data(), self.0.data_end(), offset) {
            return Some(found);
        }
        let mut out = MaybeUninit::<Aligned<N>>::uninit();
        // SAFETY: the helper writes `N` bytes to a buffer of `N` bytes, or fails and zeroes it.
        unsafe {
            let skb = self.0.skb.skb.cast_const().cast();
            if bpf_skb_load_bytes(skb, offset, out.as_mut_ptr().cast(), N as u32) != 0 {
                return None;
            }
            Some(out.assume_init().0)
        }
    }
}
