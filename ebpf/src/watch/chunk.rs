//! The payload, copied piece by piece.
//!
//! That of most packets is not where a program can look at it: a sender's is in fragments, and so is what GRO put
//! together. Asking the kernel for each header cost more than reading it, so a [`Chunk`] of the segment is copied at
//! once. A burst of ten requests, or of their answers, is one; of what a long DATA frame holds only the bytes behind a
//! header are copied.

use aya_ebpf::helpers::generated::bpf_skb_load_bytes;
use evenkeel_ebpf::exchange::Reader;
use evenkeel_ebpf::http2::frame::HEADER;
use evenkeel_ebpf::packet::Bytes;

use crate::raw;
use crate::skb::Skb;

/// Bytes that are copied at once.
const CHUNK: u32 = 512;

/// The bytes of a packet that were copied last.
#[repr(C)]
pub struct Chunk {
    bytes: [u64; CHUNK as usize / 8],
    /// Offset of the first.
    start: u32,
    length: u32,
}

impl Chunk {
    /// Nothing was copied yet.
    #[inline(always)]
    pub fn empty(&mut self) {
        self.length = 0;
    }

    /// Copies what comes from the next header on, unless that is here; false if the packet has no such bytes.
    #[inline(always)]
    pub fn fill(&mut self, skb: &Skb, reader: &Reader) -> bool {
        let (start, rest) = (reader.offset(), reader.rest());
        let last = start.wrapping_sub(self.start).wrapping_add(HEADER - 1);
        if reader.carries() || rest < HEADER || last < self.length {
            return true;
        }
        // In one register from the comparison to the call, see `raw::load`.
        let length = raw::opaque(if rest < CHUNK { rest } else { CHUNK } as usize);
        if length == 0 || length > CHUNK as usize {
            return false;
        }
        self.start = start;
        self.length = length as u32;
        // SAFETY: the helper writes the first `length` of `CHUNK` bytes.
        unsafe {
            let skb = skb.0.skb.skb.cast_const().cast();
            bpf_skb_load_bytes(skb, start, self.bytes.as_mut_ptr().cast(), length as u32) == 0
        }
    }
}

impl Bytes for Chunk {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        let at = offset.wrapping_sub(self.start);
        let end = raw::opaque(at.wrapping_add(N as u32) as usize);
        if end < N || end > CHUNK as usize || end as u32 > self.length {
            return None;
        }
        // SAFETY: `end` is at least `N` and at most `CHUNK`, which is how many bytes there are.
        Some(unsafe { raw::read::<N>(self.bytes.as_ptr().cast::<u8>().add(end - N)) })
    }
}
