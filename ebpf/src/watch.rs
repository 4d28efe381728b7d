//! Keys and values of the maps of `evenkeel observe`, which are its own: nothing here is loaded by `evenkeel run`.
//!
//! The rules of [`crate::abi`] hold: `#[repr(C)]`, no padding, sizes asserted, addresses and ports as in the packet.
//!
//! Who writes what: each direction of a flow has a [`Half`] that only packets of that direction change. Two processors
//! may still have such packets in hand (a retransmission by another processor's timer, a flow that moves to another
//! receive queue), so what is read of the payload is read by one at a time, see [`Half::busy`]. [`PeerStats`] is
//! changed from everywhere, atomically.

use crate::abi::{Address, Http2, ServiceKey, Tuple};

pub mod baseline;
mod gap;
mod slots;

pub use gap::Waiting;
pub use slots::{
    ABANDONED, MAX_STREAMS, NEAR, NEIGHBOURS, STREAM_BUCKETS, StreamBucket, StreamSlot, WAYS,
    WINDOW, home, near, other_bucket, stream_bucket, stream_key,
};

/// Flows that are remembered at once; beyond that the one that was silent for longest is forgotten.
pub const MAX_FLOWS: u32 = 1 << 16;
/// Peers that have figures of their own, unless more or fewer are asked for: see [`WatchSettings::peers`].
pub const MAX_PEERS: u32 = 1024;
/// The index of a flow without a peer, or whose peer has no figures of its own.
pub const NO_PEER: u32 = 0;

/// The same connection seen from either side has one key: the smaller of address and port comes first. The second
/// value says whether the packet's source is the key's.
#[inline(always)]
#[must_use]
pub fn canonical(tuple: &Tuple) -> (Tuple, bool) {
    let forward = comes_first(tuple);
    let key = if forward {
        *tuple
    } else {
        Tuple {
            source: tuple.destination,
            destination: tuple.source,
            source_port: tuple.destination_port,
            destination_port: tuple.source_port,
            protocol: tuple.protocol,
            reserved: [0; 3],
        }
    };
    (key, forward)
}

#[inline(always)]
fn comes_first(tuple: &Tuple) -> bool {
    let halves = |address: &Address| {
        let [a, b, c, d] = address.words;
        (
            (u64::from(a) << 32) | u64::from(b),
            (u64::from(c) << 32) | u64::from(d),
        )
    };
    let (source, destination) = (halves(&tuple.source), halves(&tuple.destination));
    if source.0 != destination.0 {
        return source.0 < destination.0;
    }
    if source.1 != destination.1 {
        return source.1 < destination.1;
    }
    tuple.source_port <= tuple.destination_port
}

/// Bits of `closed` in [`Half`].
pub mod closed {
    /// This side sent FIN.
    pub const FIN: u8 = 1 << 0;
    /// This side sent RST.
    pub const RST: u8 = 1 << 1;
}

/// Who the client of a flow is.
pub mod client {
    /// Not told yet.
    pub const UNKNOWN: u8 = 0;
    /// The key's source.
    pub const SOURCE: u8 = 1;
    /// The key's destination.
    pub const DESTINATION: u8 = 2;
}

/// One direction of a flow. 104 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Half {
    /// The walker's state.
    pub http2: Http2,
    /// Non-zero while a processor reads a payload of this direction.
    pub busy: u64,
    /// Packets, without bare acknowledgements.
    pub packets: u64,
    /// Their bytes, from the IP header.
    pub bytes: u64,
    /// Where this direction is counted: interface index, doubled, plus one on the way out. A packet that passes two
    /// hooks (a gateway's two interfaces, or loopback) counts at the first only.
    pub place: u32,
    /// Streams that had been opened when observation of the flow began, see [`baseline`].
    pub before: u32,
    /// Streams of this direction that were added to the peer's.
    pub counted: u32,
    /// Streams whose beginning was seen.
    pub begun: u32,
    /// Of those, streams whose answer came to its end in this direction.
    pub ended: u32,
    /// Of those, streams that this side gave up.
    pub reset: u32,
    /// Bits of [`closed`].
    pub closed: u8,
    /// One of [`baseline`].
    pub baseline: u8,
    /// Non-zero: a segment was passed over since the last one that was read.
    pub missed: u8,
    /// Zero.
    pub reserved: u8,
    /// When a segment was passed over last, 0 if none was: see [`Self::pass_over`].
    pub gap: u32,
}

/// Value of `W_FLOWS`, by [`canonical`] tuple. 224 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    /// Packets from the key's source.
    pub forward: Half,
    /// Packets from the key's destination.
    pub backward: Half,
    /// Random: tells this flow from others with the same tuple, and its streams from other flows'. Never 0.
    pub tag: u32,
    /// Index in `W_PEERS` of the server, once it is known.
    pub peer: u32,
    /// One of [`client`].
    pub client: u8,
    /// Non-zero if the handshake was seen.
    pub opened: u8,
    /// Zero.
    pub reserved: [u8; 2],
    /// The first of its buckets in `W_STREAMS`, see [`near`].
    pub near: u32,
}

impl Watched {
    /// No more packets are expected.
    #[inline(always)]
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        let (a, b) = (self.forward.closed, self.backward.closed);
        (a | b) & closed::RST != 0 || a & b & closed::FIN != 0
    }
}

/// Linear steps in each octave: a bucket is at most 1/16 wide, relative to its value.
const STEPS: u32 = 16;
const STEP_BITS: u32 = STEPS.ilog2();
/// Octaves of 2^10 ns (a microsecond) and more; the last ends at 2^37 ns (137 s).
const OCTAVES: u32 = 24;
/// Buckets of a latency histogram.
pub const BUCKETS: u32 = OCTAVES * STEPS;
/// Nanoseconds are counted in units of 2^10.
const UNIT_BITS: u32 = 10;

/// The bucket of a latency. Linear in each octave (log-linear): the first [`STEPS`] are one unit wide.
#[inline(always)]
#[must_use]
pub const fn bucket(nanoseconds: u64) -> u32 {
    let most = (1 << (OCTAVES + STEP_BITS - 1)) - 1;
    let units = nanoseconds >> UNIT_BITS;
    let units = if units > most { most } else { units } as u32;
    // Below 2^STEP_BITS the value itself; above, the octave and the highest bits below its first.
    let octave = (units | (STEPS - 1)).ilog2() - (STEP_BITS - 1);
    let shift = octave.saturating_sub(1);
    let linear = units >> shift;
    if octave == 0 {
        linear
    } else {
        (octave - 1) * STEPS + linear
    }
}

/// The least latency, in nanoseconds, of a bucket.
#[must_use]
pub const fn bucket_start(index: u32) -> u64 {
    let octave = index / STEPS;
    let units = if octave <= 1 {
        index as u64
    } else {
        ((STEPS + index % STEPS) as u64) << (octave - 1)
    };
    units << UNIT_BITS
}

/// Value of `W_STATS`, by peer index. 3,096 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStats {
    /// Streams opened at this peer since observation began.
    pub streams: u64,
    /// Streams that either side gave up, of those whose beginning was seen.
    pub reset: u64,
    /// Nanoseconds from the request's HEADERS to the answer's END_STREAM, in all.
    pub nanoseconds: u64,
    /// Streams whose answer was complete, likewise, by latency: see [`bucket`].
    pub buckets: [u64; BUCKETS as usize],
}

/// What to observe. Value of `W_SETTINGS`. 8 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WatchSettings {
    /// Non-zero: only flows with a server port in `W_PORTS`.
    pub ports_given: u32,
    /// Peers that have figures of their own: the entries of `W_PEERS`, and one less than those of `W_STATS`.
    pub peers: u32,
}

/// A set of ports, a bit for each, in host byte order. 8,192 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortSet {
    /// 65,536 bits.
    pub words: [u64; 1024],
}

/// Entries of `W_EVENTS` (per CPU `u64`).
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// A flow could not be recorded.
    FlowsFull = 0,
    /// A stream's slot was needed for another stream: it has no latency.
    StreamsFull = 1,
    /// A segment to a peer beyond [`WatchSettings::peers`]: its streams are counted by flow only.
    PeersFull = 2,
    /// The walker lost the boundary (loss, reordering) and searched.
    Resync = 3,
    /// A packet had more frames than the loop's bound.
    Bound = 4,
    /// A segment out of step: what opened or ended in it is not timed.
    Untimed = 5,
    /// A segment was not read, as another processor was busy with the same direction for too long.
    Contended = 6,
    /// A TCP packet over IPv6, which is not looked at.
    Ipv6 = 7,
    /// A TCP packet with a VLAN tag, likewise: the VLAN's own interface shows it without.
    Tagged = 8,
    /// A stream's slot was taken over, as it had not ended for longer than [`ABANDONED`]: it has no latency.
    Abandoned = 9,
}

impl WatchEvent {
    /// Number of entries.
    pub const COUNT: u32 = 10;
    /// Names in order of the value.
    pub const NAMES: [&'static str; Self::COUNT as usize] = [
        "flows_full",
        "streams_full",
        "peers_full",
        "resync",
        "bound",
        "untimed",
        "contended",
        "ipv6",
        "tagged",
        "streams_abandoned",
    ];
}

/// Key of `W_PEERS`: the server's address.
pub type PeerKey = ServiceKey;

const _: () = {
    assert!(size_of::<Half>() == 104);
    assert!(size_of::<Watched>() == 224);
    assert!(size_of::<PeerStats>() == 24 + 8 * BUCKETS as usize);
    assert!(size_of::<WatchSettings>() == 8);
    assert!(size_of::<PortSet>() == 8192);
};

#[cfg(feature = "userspace")]
mod pod {
    //! `aya::Pod`: these types may be copied to and from map memory as bytes.
    #![expect(
        unsafe_code,
        reason = "aya::Pod is an unsafe trait; it is what lets userspace copy these types as bytes"
    )]

    macro_rules! pod {
        ($($name:ident),*) => {$(
            // SAFETY: `#[repr(C)]`, `Copy`, no padding (sizes asserted above), no pointers, and every bit pattern
            // is a valid value of its integer fields.
            unsafe impl aya::Pod for super::$name {}
        )*};
    }
    pod!(Watched, StreamBucket, PeerStats, WatchSettings, PortSet);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_without_gap_or_overlap() {
        for index in 0..BUCKETS {
            assert_eq!(bucket(bucket_start(index)), index);
            if index > 0 {
                assert_eq!(bucket(bucket_start(index) - 1), index - 1);
            }
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn buckets_are_a_sixteenth_wide_at_most() {
        for index in STEPS..BUCKETS - 1 {
            let (start, end) = (bucket_start(index), bucket_start(index + 1));
            assert!(
                (end - start) * u64::from(STEPS) <= start,
                "{start} to {end}"
            );
        }
    }

    #[test]
    fn both_directions_of_a_connection_have_one_key() {
        let address = |last| Address::from_v4_word(u32::from_ne_bytes([10, 0, 0, last]));
        for (a, b, c, d) in [
            (1, 1000, 2, 80),
            (2, 80, 1, 1000),
            (1, 9, 1, 7),
            (3, 5, 3, 5),
        ] {
            let tuple = Tuple {
                source: address(a),
                destination: address(c),
                source_port: b,
                destination_port: d,
                protocol: 6,
                reserved: [0; 3],
            };
            let back = Tuple {
                source: address(c),
                destination: address(a),
                source_port: d,
                destination_port: b,
                ..tuple
            };
            let ((one, forward), (other, backward)) = (canonical(&tuple), canonical(&back));
            assert_eq!(one, other);
            assert!(forward != backward || tuple == back);
        }
    }
}
