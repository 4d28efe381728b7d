//! What is kept of a flow between the segments in which its HTTP/2 frames come.

/// State of the HTTP/2 frame walker for one direction of one flow; written only by `http2.rs`, which explains how
/// the fields work together. All zero is the state of a flow whose SYN was not seen. 48 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Http2 {
    /// TCP sequence number at which the next frame header starts; while searching without a candidate, the end of
    /// the payload seen.
    pub next: u32,
    /// Highest client stream id seen; 0 for none. The highest bit is set while a processor changes the state, see
    /// `http2::Front`.
    pub highest: u32,
    /// The first bytes of the frame header at `next`, where a segment ended inside of it; the first byte is the
    /// most significant one, bytes not there yet are 0.
    pub partial: u64,
    /// The same for the header at `hole`.
    pub hole_partial: u64,
    /// The first bytes of the segment behind the hole.
    pub island_head: u64,
    /// TCP sequence number of the last frame boundary before a hole in the payload.
    pub hole: u32,
    /// Highest client stream id of the candidate chain, committed once the chain is confirmed.
    pub candidate_highest: u32,
    /// How many bytes of `partial` there are, at most 8 (of the connection preface: at most 23).
    pub partial_length: u8,
    /// How many bytes of `hole_partial` there are, likewise.
    pub hole_partial_length: u8,
    /// One of [`http2_phase`].
    pub phase: u8,
    /// Bits of `http2::flag`.
    pub flags: u8,
    /// While searching: what speaks for the candidate at `next`; 0 if there is none.
    pub score: u8,
    /// Segments searched in vain since the boundary was lost; stays at 255.
    pub misses: u8,
    /// Low half of the sequence number at which the segment behind the hole starts.
    pub island: u16,
}

/// What the walker knows of a flow's payload.
pub mod http2_phase {
    /// No payload seen yet.
    pub const UNKNOWN: u8 = 0;
    /// In step: `next` is a frame boundary.
    pub const SYNCHRONISED: u8 = 1;
    /// HTTP/2, or maybe HTTP/2, but the frame boundary was lost or never known.
    pub const SEARCHING: u8 = 2;
    /// TLS records: counted as flows, bytes and packets, never guessed.
    pub const TLS: u8 = 3;
    /// Something else (HTTP/1.x for example): no streams to count.
    pub const OTHER: u8 = 4;
}
