//! Frame headers (RFC 9113 section 4.1): nine bytes, never compressed.
//!
//! ```text
//! length (24) | type (8) | flags (8) | R (1) stream id (31)
//! ```
//!
//! Written with few branches: the verifier walks each of them, in every turn of the loop that calls this.

/// Bytes of a frame header.
pub const HEADER: u32 = 9;

/// The largest payload until the peer allows more (SETTINGS_MAX_FRAME_SIZE, RFC 9113 section 6.5.2).
const DEFAULT_MAX_FRAME_SIZE: u64 = 16_384;

const HEADERS: u64 = 1;
const PRIORITY: u64 = 2;
const SETTINGS: u64 = 4;
const PUSH_PROMISE: u64 = 5;
const CONTINUATION: u64 = 9;

/// The one length that a type may have, a hex digit for each type from the right, 0 where any length will do:
/// PRIORITY 5, RST_STREAM 4, PING 8, WINDOW_UPDATE 4 (RFC 9113 sections 6.3, 6.4, 6.7, 6.9).
const ONLY_LENGTH: u64 = 0x04_0800_4500;
/// The least length, likewise: HEADERS 1 (a request has fields), GOAWAY 8 (RFC 9113 section 6.8).
const LEAST_LENGTH: u64 = 0x00_8000_0010;
/// Types that belong to the connection, a bit for each: SETTINGS, PING, GOAWAY.
const STREAM_ZERO_ONLY: u64 = 0b00_1101_0000;
/// Types that may belong to the connection: those, and WINDOW_UPDATE.
const STREAM_ZERO_TOO: u64 = 0b01_1101_0000;
/// Types that prove that their stream was opened: DATA, HEADERS, RST_STREAM, WINDOW_UPDATE, CONTINUATION. PRIORITY
/// may name idle streams (RFC 9113 section 6.3), and so may types that we do not know.
const PROVES_STREAM: u64 = 0b11_0000_1011;
/// Flags defined for DATA to GOAWAY, a byte for each from the right.
const FLAGS: u64 = 0x00_01_00_01_00_00_2d_09;
/// Flags defined for WINDOW_UPDATE and CONTINUATION.
const FLAGS_FROM_8: u64 = 0x04_00;

/// A frame header, as read.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    /// Length, type, flags, and the first three bytes of the stream id; the first byte is the most significant.
    pub word: u64,
    /// The last byte of the stream id.
    pub last: u64,
}

impl Header {
    /// The header that starts at the first of `bytes`.
    #[inline(always)]
    pub fn new(bytes: [u8; HEADER as usize]) -> Self {
        let [a, b, c, d, e, f, g, h, last] = bytes;
        Self {
            word: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            last: u64::from(last),
        }
    }

    /// The header whose first `count` (1 to 8) bytes lead `head` and whose others lead `rest`.
    #[inline(always)]
    pub fn join(head: u64, count: u32, rest: u64) -> Self {
        let bits = count.wrapping_mul(8);
        // In two steps, as a shift by 64 is none.
        let half = bits / 2;
        let kept = head & !(u64::MAX.wrapping_shr(half).wrapping_shr(half));
        Self {
            word: kept | rest.wrapping_shr(half).wrapping_shr(half),
            last: rest.wrapping_shr(bits.wrapping_sub(8)) & 0xff,
        }
    }

    /// Length of the frame's payload.
    #[inline(always)]
    pub fn length(self) -> u32 {
        (self.word >> 40) as u32
    }

    /// Its type.
    #[inline(always)]
    #[must_use]
    pub fn kind(self) -> u64 {
        (self.word >> 32) & 0xff
    }

    /// Its flags.
    #[inline(always)]
    #[must_use]
    pub fn flags(self) -> u64 {
        (self.word >> 24) & 0xff
    }

    /// The stream id with the reserved bit above it.
    #[inline(always)]
    pub fn stream(self) -> u64 {
        ((self.word & 0xff_ffff) << 8) | self.last
    }

    /// True if none of the first eight bytes is zero, so that no [likely](Self::is_likely) header starts at any of them.
    #[inline(always)]
    pub fn starts_nowhere(self) -> bool {
        // Alan Mycroft's test: a byte that is zero, and only with one in sight, borrows into its highest bit.
        const ONES: u64 = 0x0101_0101_0101_0101;
        self.word.wrapping_sub(ONES) & !self.word & (ONES << 7) == 0
    }

    /// The stream id if this is DATA or HEADERS on one: most of what clients send, and [`Self::is_possible`] with
    /// whatever length.
    #[inline(always)]
    pub fn request_frame(self) -> Option<u32> {
        let stream = (self.word << 8) as u32 | self.last as u32;
        (self.kind() <= HEADERS && stream.wrapping_sub(1) < 0x7fff_ffff).then_some(stream)
    }

    /// The id of the client's stream that this frame proves to exist, or 0.
    #[inline(always)]
    pub fn opened(self) -> u32 {
        let kind = self.kind();
        let stream = self.stream();
        // A shift by 64 or more is none.
        let known = u64::from(kind <= CONTINUATION);
        let proves = (PROVES_STREAM >> (kind & 0x3f)) & known & stream & 1;
        (stream & proves.wrapping_neg()) as u32
    }

    /// Whether a peer that keeps to RFC 9113 can have sent this header, in either direction of time: also types
    /// and flags that we do not know, and payloads as large as a peer may allow.
    #[inline(always)]
    pub fn is_possible(self) -> bool {
        let kind = self.kind();
        let length = u64::from(self.length());
        let stream = self.stream();
        if stream > 0x7fff_ffff {
            return false;
        }
        if kind > CONTINUATION {
            return true;
        }
        let only = (ONLY_LENGTH >> (kind * 4)) & 0xf;
        if only != 0 && only != length {
            return false;
        }
        if kind == SETTINGS && !length.is_multiple_of(6) {
            return false;
        }
        let allowed = if stream == 0 {
            STREAM_ZERO_TOO
        } else {
            !STREAM_ZERO_ONLY
        };
        (allowed >> kind) & 1 == 1
    }

    /// Whether this looks like what a client sends, to someone who does not know where frames start: beyond
    /// [`Self::is_possible`] only known types with known flags, no more than the default frame size, and stream ids
    /// of clients up to `limit` (but for PRIORITY, which may name a stream not opened yet).
    #[inline(always)]
    pub fn is_likely(self, limit: u32) -> bool {
        let kind = self.kind();
        let length = u64::from(self.length());
        let stream = self.stream();
        if kind > CONTINUATION || kind == PUSH_PROMISE || length > DEFAULT_MAX_FRAME_SIZE {
            return false;
        }
        if length < (LEAST_LENGTH >> (kind * 4)) & 0xf {
            return false;
        }
        let legal = if kind < 8 {
            FLAGS >> (kind * 8)
        } else {
            FLAGS_FROM_8 >> ((kind - 8) * 8)
        };
        if self.flags() & !legal & 0xff != 0 {
            return false;
        }
        if kind == SETTINGS && self.flags() != 0 && length != 0 {
            return false;
        }
        if stream == 0 {
            return true;
        }
        stream & 1 == 1 && (stream <= u64::from(limit) || kind == PRIORITY)
    }
}
