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
        // 32-bit lengths never come near the wrap: frames are at most 64 KiB, BIG TCP at most 512 KiB.
        if offset.wrapping_add(N as u32) > self.length {
            return None;
        }
        self.bytes.load(self.start.wrapping_add(offset))
    }
}
