//! Keys and values of every map that the kernel side shares with userspace.
//!
//! All types are `#[repr(C)]`, have no padding (the verifier refuses uninitialised bytes, and keys are compared as
//! bytes), and have their size asserted at the end of this file. Addresses and ports are in network byte order, as
//! in the packet; everything else is in host byte order. IPv4 addresses are IPv4-mapped IPv6 addresses
//! (RFC 4291 section 2.5.5.2), so that one key type serves both families.

mod event;
mod filter;
mod http2;
#[cfg(feature = "userspace")]
mod pod;
mod words;

pub use event::Event;
pub use filter::{FILTER_BACKENDS, FILTER_BITS, FILTER_SERVICES, Filter, filter_bit};
pub use http2::{Http2, http2_phase};
pub use words::{TUPLE_WORDS, VALUE_WORDS};

/// Version of this layout; part of the pin directory's name, so that a daemon never adopts maps it cannot read.
pub const ABI_VERSION: u32 = 9;

/// Slots of a Maglev table: a prime, about 100 x the largest number of backends that should still be spread
/// within 1 % (Eisenbud et al., Maglev, NSDI 2016, section 5.3, which uses the same 65,537).
pub const MAGLEV_SLOTS: usize = 65_537;

/// Default number of flows that the flow table has room for (each half: [`Tuple`] -> [`Flow`], [`Tuple`] -> [`Reply`]).
pub const DEFAULT_MAX_FLOWS: u32 = 1 << 20;
/// Default number of proxy-to-backend connections that are observed.
pub const DEFAULT_MAX_UPSTREAMS: u32 = 1 << 16;
/// Default number of backend slots, over all services; a Maglev slot is a `u16`, so 65,535 is the most.
pub const DEFAULT_MAX_BACKENDS: u32 = 4096;
/// Default number of services.
pub const DEFAULT_MAX_SERVICES: u32 = 1024;
/// Entries of the NAT source pool, over all backends.
pub const MAX_NAT_SOURCES: u32 = 1024;

/// A slot in a [`MaglevTable`] that leads nowhere: the service has no backend that takes new flows.
pub const NO_BACKEND: u16 = u16::MAX;

/// TCP, IANA protocol number.
pub const PROTOCOL_TCP: u8 = 6;
/// UDP, IANA protocol number (not balanced yet; the types take it).
pub const PROTOCOL_UDP: u8 = 17;

/// An IPv6 address, or an IPv4 address in its IPv4-mapped form, in network byte order.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Address {
    /// The 16 bytes as four words, each in network byte order in memory.
    pub words: [u32; 4],
}

impl Address {
    /// The IPv4-mapped form of `word`, an IPv4 address as it stands in the packet.
    #[inline(always)]
    #[must_use]
    pub const fn from_v4_word(word: u32) -> Self {
        Self {
            words: [0, 0, 0x0000_ffff_u32.to_be(), word],
        }
    }

    /// The IPv4 word if this is an IPv4-mapped address.
    #[inline(always)]
    #[must_use]
    pub const fn v4_word(&self) -> Option<u32> {
        if self.words[0] == 0 && self.words[1] == 0 && self.words[2] == 0x0000_ffff_u32.to_be() {
            Some(self.words[3])
        } else {
            None
        }
    }
}

/// Key of `SERVICES`: the virtual address. 24 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ServiceKey {
    /// Virtual address.
    pub address: Address,
    /// Virtual port, network byte order.
    pub port: u16,
    /// [`PROTOCOL_TCP`] or [`PROTOCOL_UDP`].
    pub protocol: u8,
    /// Zero.
    pub reserved: [u8; 5],
}

/// How a service treats new flows. `auto` is decided in userspace and arrives here as one of these.
pub mod mode {
    /// New flows are balanced by hash.
    pub const L4: u8 = 0;
    /// New flows are handed to the local proxy.
    pub const L7: u8 = 1;
}

/// How L4 reaches a backend.
pub mod forwarding {
    /// Destination and source rewritten; the backend answers to the balancer.
    pub const NAT: u8 = 0;
    /// Destination rewritten; the balancer is the backend's gateway.
    pub const DNAT: u8 = 1;
}

/// What decides the backend of a new flow at L4. 0 is what services of an earlier version have there.
pub mod hash {
    /// The whole 5-tuple: every flow is chosen for by itself.
    pub const FIVE_TUPLE: u8 = 0;
    /// The client's address: all its flows to a service go to one backend.
    pub const SOURCE_IP: u8 = 1;
}

/// Value of `SERVICES`. Replaced whole; a packet sees the old or the new one. 16 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Index into `MAGLEV`, `SERVICE_INFO` and `SERVICE_COUNTERS`; stable for the life of the service.
    pub index: u32,
    /// One of [`mode`].
    pub mode: u8,
    /// One of [`forwarding`].
    pub forwarding: u8,
    /// One of [`hash`].
    pub hash: u8,
    /// Zero.
    pub reserved: [u8; 9],
}

/// Value of `SERVICE_INFO`, by service index: what the reply path must put back. 24 bytes.
pub type ServiceInfo = ServiceKey;

/// Value of `BACKENDS`, by backend index. Immutable while any flow refers to the slot. 40 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    /// Address of the backend.
    pub address: Address,
    /// Port of the backend, network byte order.
    pub port: u16,
    /// First entry in `NAT_SOURCES` that flows to this backend may use.
    pub nat_first: u16,
    /// Number of entries in `NAT_SOURCES`, 0 where the service forwards by [`forwarding::DNAT`].
    pub nat_count: u16,
    /// One of [`forwarding`].
    pub forwarding: u8,
    /// Non-zero if the slot is in use.
    pub used: u8,
    /// Service index.
    pub service: u32,
    /// Zero.
    pub reserved: [u32; 3],
}

/// Value of `BACKEND_BY_ADDRESS`, keyed by a [`ServiceKey`] that holds the *backend's* address: which backend a
/// connection of the local proxy leads to. 8 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BackendIndex {
    /// Backend index.
    pub backend: u32,
    /// Service index.
    pub service: u32,
}

/// The single value of each inner map of `MAGLEV`: slot -> backend index or [`NO_BACKEND`].
/// One value, so that one system call fills it. 131,080 bytes (the last three slots only round the size up to 8).
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaglevTable {
    /// Backend index for each slot.
    pub slots: [u16; MAGLEV_SLOTS + 3],
}

/// A 5-tuple as it stands in a packet: key of `FLOWS` (client -> service), `REPLIES` (backend -> NAT source or
/// client) and `UPSTREAMS` (proxy -> backend). 40 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tuple {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source port, network byte order.
    pub source_port: u16,
    /// Destination port, network byte order.
    pub destination_port: u16,
    /// IANA protocol number.
    pub protocol: u8,
    /// Zero.
    pub reserved: [u8; 3],
}

/// Bits of `state` in [`Flow`] and [`Reply`]; both halves of a flow learn of FIN and RST.
pub mod state {
    /// The flow began with a SYN that we saw; without it the flow was adopted.
    pub const SYN: u8 = 1 << 0;
    /// The backend (or the proxy's side) answered and the client acknowledged; of an adopted flow: the backend sent something.
    pub const ESTABLISHED: u8 = 1 << 1;
    /// The client sent FIN.
    pub const CLIENT_FIN: u8 = 1 << 2;
    /// The backend sent FIN.
    pub const BACKEND_FIN: u8 = 1 << 3;
    /// Either side sent RST.
    pub const RESET: u8 = 1 << 4;
    /// Counted as closed; the entry may be replaced and its NAT port reused.
    pub const CLOSED: u8 = 1 << 5;
    /// The slot of the flow table holds an entry; in all entries of `FLOWS` and `REPLIES`.
    pub const USED: u8 = 1 << 6;
    /// The slot is being filled or emptied, by whoever set this.
    pub const BUSY: u8 = 1 << 7;
    /// What an entry has when it is put in.
    pub const NEW: u8 = USED | BUSY;
}

/// Bits of `flags` in [`Flow`].
pub mod flag {
    /// The flow belongs to the local proxy; `backend` means nothing.
    pub const LOCAL: u8 = 1 << 0;
    /// The flow is on a backend, but its service is at `l7` by now and it was asked to move: what its client sends goes to
    /// the host, which knows no such connection and resets it, so that the client comes again. Set by userspace.
    pub const MOVED: u8 = 1 << 1;
    /// In `UPSTREAMS`: nothing but its handshake was sent, and it is not counted yet. A check of a backend sends no more.
    pub const SILENT: u8 = 1 << 2;
}

/// One entry of a flow table (`FLOWS` or `REPLIES`), see [`crate::table`]. 128 bytes: two cache lines.
#[repr(C, align(64))]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Slot<V> {
    /// The key.
    pub key: Tuple,
    /// The value: [`Flow`] or [`Reply`].
    pub value: V,
}

/// How many ns a tick of [`Flow::created`] is, as a shift: 2^24 ns, 16.8 ms; the field holds 2.3 years.
pub const CREATED_SHIFT: u32 = 24;

/// Value of `FLOWS` (and of `UPSTREAMS`): one flow in client -> service direction. 88 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// Backend index.
    pub backend: u32,
    /// When the flow was recorded: CLOCK_MONOTONIC (coarse) in ns, shifted right by [`CREATED_SHIFT`].
    pub created: u32,
    /// Source port towards the backend, network byte order; the client's own where nothing is rewritten.
    pub nat_port: u16,
    /// Index into `NAT_SOURCES`.
    pub nat_source: u16,
    /// Bits of [`state`].
    pub state: u8,
    /// Bits of [`flag`].
    pub flags: u8,
    /// Service index.
    pub service: u16,
    /// When a packet of this direction was last seen, ns of CLOCK_MONOTONIC (coarse).
    pub last_seen: u64,
    /// Packets client -> service.
    pub packets: u64,
    /// Bytes client -> service, counted from the IP header.
    pub bytes: u64,
    /// The stream counter.
    pub http2: Http2,
}

/// Where to send a packet, as `bpf_fib_lookup` said; trusted for one tick of 2^30 ns (1.07 s). 24 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextHop {
    /// The tick in which it was looked up: CLOCK_MONOTONIC (coarse) in ns, shifted right by 30; 0 for never.
    pub tick: u32,
    /// Largest packet that the route takes, from the IP header.
    pub mtu: u32,
    /// Outgoing interface, with [`XDP_TAKES`] set if it takes frames from XDP.
    pub interface: u32,
    /// Destination MAC address.
    pub destination: [u8; 6],
    /// Source MAC address.
    pub source: [u8; 6],
}

/// In [`NextHop::interface`]: XDP may send there. Indexes of interfaces are positive `int`s, so this bit is free.
pub const XDP_TAKES: u32 = 1 << 31;
/// Interfaces that take frames from XDP, at most; TC forwards what leaves by any further one.
pub const MAX_XDP_PORTS: u32 = 4096;

/// Value of `REPLIES`: one flow in backend -> client direction. 88 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reply {
    /// The client's address.
    pub client: Address,
    /// The client's port, network byte order.
    pub client_port: u16,
    /// Bits of [`state`].
    pub state: u8,
    /// Zero.
    pub reserved: u8,
    /// Backend index.
    pub backend: u32,
    /// Service index.
    pub service: u32,
    /// Index into `NAT_SOURCES`, so that this half can put the other back.
    pub nat_source: u16,
    /// Zero.
    pub reserved_half: u16,
    /// When a packet of this direction was last seen, ns of CLOCK_MONOTONIC (coarse).
    pub last_seen: u64,
    /// Packets backend -> client.
    pub packets: u64,
    /// Bytes backend -> client, counted from the IP header.
    pub bytes: u64,
    /// Next hop towards the client.
    pub next_hop: NextHop,
    /// Zero.
    pub reserved_end: u64,
}

/// Value of `SERVICE_COUNTERS` and `BACKEND_COUNTERS`, per CPU; they only grow. 80 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Flows recorded.
    pub flows_opened: u64,
    /// Flows closed by FIN in both directions or by RST.
    pub flows_closed: u64,
    /// Packets client -> service.
    pub packets: u64,
    /// Bytes client -> service, from the IP header.
    pub bytes: u64,
    /// Packets backend -> client (L4 only).
    pub reply_packets: u64,
    /// Bytes backend -> client, from the IP header (L4 only).
    pub reply_bytes: u64,
    /// HTTP/2 streams opened.
    pub streams: u64,
    /// Flows without a SYN that fell back to the hash.
    pub flows_adopted: u64,
    /// Flows that were handed to the local proxy (services only).
    pub flows_local: u64,
    /// Flows found to carry HTTP/2.
    pub flows_http2: u64,
}

/// A flow to forget, in the list that userspace runs the program `ek_expire` on: behind 14 bytes, one after the other. 16 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expired {
    /// Its slot in `FLOWS`.
    pub slot: u32,
    /// Zero.
    pub reserved: u32,
    /// Its [`Flow::last_seen`] when it was found: a packet since then saves it.
    pub last_seen: u64,
}

/// Most of them in one list: what fits into a page with the room that the kernel wants around a packet.
pub const EXPIRED_AT_ONCE: u32 = 192;

/// Value of `SETTINGS`, one entry. Written by userspace at load; the seed is kept as long as the map is pinned.
/// 56 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Seed of the flow hash, drawn once per boot (per pin directory).
    pub seed: u64,
    /// First port that NAT may use, host byte order.
    pub nat_port_first: u16,
    /// Last port that NAT may use, host byte order.
    pub nat_port_last: u16,
    /// Non-zero: count streams.
    pub count_streams: u32,
    /// How long a closed flow stays in the flow table, and keeps its NAT port when ports are scarce, ns.
    pub closed_hold: u64,
    /// How long a closed flow keeps its NAT port while there are others, ns.
    pub port_hold: u64,
    /// What CLOCK_MONOTONIC said at jiffy 0, ns, modulo 2^64; written by the program `ek_clock`.
    pub clock_offset: u64,
    /// ns of a jiffy; 0: the kernel is asked for the time of every packet instead.
    pub tick_ns: u32,
    /// Buckets of the index of each flow table, see [`crate::table`].
    pub flow_buckets: u32,
    /// Slots of each flow table.
    pub flow_slots: u32,
    /// Zero.
    pub reserved: u32,
}

const _: () = {
    assert!(size_of::<Address>() == 16);
    assert!(size_of::<ServiceKey>() == 24);
    assert!(size_of::<Service>() == 16);
    assert!(size_of::<Backend>() == 40);
    assert!(size_of::<BackendIndex>() == 8);
    assert!(size_of::<MaglevTable>() == 131_080);
    assert!(size_of::<Filter>() == 8192);
    assert!(size_of::<Tuple>() == 40);
    assert!(size_of::<Http2>() == 48);
    assert!(size_of::<Flow>() == 88);
    assert!(size_of::<Slot<Flow>>() == 128 && size_of::<Slot<Reply>>() == 128);
    assert!(size_of::<NextHop>() == 24);
    assert!(size_of::<Reply>() == 88);
    assert!(size_of::<Counters>() == 80);
    assert!(size_of::<Expired>() == 16);
    assert!(size_of::<Settings>() == 56);
};
