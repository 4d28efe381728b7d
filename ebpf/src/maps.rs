//! Every map, with one sentence each. Userspace overrides `max_entries` where a config key exists.

use aya_ebpf::bindings::{BPF_F_MMAPABLE, bpf_fib_lookup};
use aya_ebpf::btf_maps::{Array, ArrayOfMaps, HashMap, LruHashMap, PerCpuArray, SockMap};
use aya_ebpf::macros::btf_map;
use evenkeel_ebpf::abi::{
    Backend, BackendIndex, Counters, DEFAULT_MAX_BACKENDS, DEFAULT_MAX_FLOWS, DEFAULT_MAX_SERVICES,
    DEFAULT_MAX_UPSTREAMS, Event, Filter, Flow, MAX_NAT_SOURCES, MAX_XDP_PORTS, MaglevTable,
    NextHop, Reply, Service, ServiceInfo, ServiceKey, Settings, Slot, Tuple,
};
use evenkeel_ebpf::http2::Work;
use evenkeel_ebpf::table::{self, Bucket, Place, Ring};

use crate::choose::Destination;
use crate::halves::Halves;
use crate::nat::Claim;
use crate::service::Remembered;

/// The value of [`DRAFT`].
#[repr(C)]
pub struct Draft {
    /// Of the packet's tuple.
    pub hash: u64,
    /// Of that hash.
    pub place: Place,
    pub now: u64,
    /// Index of its service.
    pub service: u32,
    pub to: Destination,
    pub halves: Halves,
    pub flow: Flow,
    pub reply: Reply,
    pub claim: Claim,
}

const FLOW_SLOTS: usize = table::slots(DEFAULT_MAX_FLOWS) as usize;
const FLOW_BUCKETS: usize = table::buckets(FLOW_SLOTS as u32) as usize;
/// Userspace reads the flow tables where they are.
const SHARED: usize = BPF_F_MMAPABLE as usize;
/// Services that a processor remembers, two in one place not at once: a power of two. 3 KiB on each.
pub const REMEMBERED: usize = 64;
const UPSTREAMS_MAX: usize = DEFAULT_MAX_UPSTREAMS as usize;
const BACKENDS_MAX: usize = DEFAULT_MAX_BACKENDS as usize;
const SERVICES_MAX: usize = DEFAULT_MAX_SERVICES as usize;

/// What userspace decided at load: the hash seed, NAT ports.
#[btf_map]
pub static SETTINGS: Array<Settings, 1> = Array::new();

/// One bit test that lets unrelated packets pass: services at index 0, backends at index 1.
#[btf_map]
pub static FILTERS: Array<Filter, 2> = Array::new();

/// Virtual address -> service.
#[btf_map]
pub static SERVICES: HashMap<ServiceKey, Service, SERVICES_MAX> = HashMap::new();

/// Counts changes of [`SERVICES`]; written after each.
#[btf_map]
pub static SERVICE_EPOCH: Array<u64, 1> = Array::new();

/// What a processor remembers of [`SERVICES`]: see [`crate::service`].
#[btf_map]
pub static SERVICE_MEMORY: PerCpuArray<Remembered, REMEMBERED> = PerCpuArray::new();

/// Service index -> virtual address, for the reply path.
#[btf_map]
pub static SERVICE_INFO: Array<ServiceInfo, SERVICES_MAX> = Array::new();

/// Service index -> its Maglev table, swapped whole.
#[btf_map]
pub static MAGLEV: ArrayOfMaps<Array<MaglevTable, 1>, SERVICES_MAX> = ArrayOfMaps::new();

/// What the tables in `MAGLEV` are like. Empty and never looked up: before 6.2 the kernel takes a table only if BTF says
/// as much of it as of the first one (a timer's offset of -ENOENT is not one of -EINVAL), and this map has that BTF.
#[btf_map]
pub static MAGLEV_TABLE: Array<MaglevTable, 1> = Array::new();

/// Backend index -> backend.
#[btf_map]
pub static BACKENDS: Array<Backend, BACKENDS_MAX> = Array::new();

/// Backend address -> backend index, for connections that the local proxy opens.
#[btf_map]
pub static BACKEND_BY_ADDR: HashMap<ServiceKey, BackendIndex, BACKENDS_MAX> = HashMap::new();

/// Addresses that NAT may use as source.
#[btf_map]
pub static NAT_SOURCES: Array<evenkeel_ebpf::abi::Address, { MAX_NAT_SOURCES as usize }> =
    Array::new();

/// Which slot of [`FLOWS`] has which key: see [`evenkeel_ebpf::table`].
#[btf_map]
pub static FLOW_INDEX: Array<Bucket, FLOW_BUCKETS, SHARED> = Array::new();

/// Client -> service packets' 5-tuple -> the decision taken, its counters and its stream counter.
#[btf_map]
pub static FLOWS: Array<Slot<Flow>, FLOW_SLOTS, SHARED> = Array::new();

/// What [`FLOW_INDEX`] is to [`FLOWS`], to [`REPLIES`].
#[btf_map]
pub static REPLY_INDEX: Array<Bucket, FLOW_BUCKETS, SHARED> = Array::new();

/// Backend -> client packets' 5-tuple -> how to put the service's address back.
#[btf_map]
pub static REPLIES: Array<Slot<Reply>, FLOW_SLOTS, SHARED> = Array::new();

/// How slots of [`FLOWS`] (0) and [`REPLIES`] (1) are given out.
#[btf_map]
pub static RINGS: Array<Ring, 2, SHARED> = Array::new();

/// The slot of either that a processor takes next of the chunk that it has; a multiple of a chunk's slots if it has none.
#[btf_map]
pub static RING_POSITIONS: PerCpuArray<u32, 2> = PerCpuArray::new();

/// Proxy -> backend packets' 5-tuple -> the stream counter of that upstream connection.
#[btf_map]
pub static UPSTREAMS: LruHashMap<Tuple, Flow, UPSTREAMS_MAX> = LruHashMap::new();

/// Interfaces that take frames from XDP, by index: without a driver for it behind them, or a program at the far end of a veth
/// pair, what is sent there vanishes, and no program learns of it.
#[btf_map]
pub static XDP_PORTS: HashMap<u32, u32, { MAX_XDP_PORTS as usize }> = HashMap::new();

/// Backend index -> next hop, cached for a second per CPU.
#[btf_map]
pub static NEXT_HOPS: PerCpuArray<NextHop, BACKENDS_MAX> = PerCpuArray::new();

/// Service index -> counters.
#[btf_map]
pub static SERVICE_COUNTS: PerCpuArray<Counters, SERVICES_MAX> = PerCpuArray::new();

/// Backend index -> counters.
#[btf_map]
pub static BACKEND_COUNTS: PerCpuArray<Counters, BACKENDS_MAX> = PerCpuArray::new();

/// Drops and noteworthy passes by reason.
#[btf_map]
pub static EVENTS: PerCpuArray<u64, { Event::COUNT as usize }> = PerCpuArray::new();

/// Where a new flow's two halves are put together: they would take a third of the 512 bytes of stack.
#[btf_map]
pub static DRAFT: PerCpuArray<Draft, 1> = PerCpuArray::new();

/// Where the kernel is asked for a route: twice on the stack (of a packet and of its reply) it would be a quarter of it.
#[btf_map]
pub static ROUTE: PerCpuArray<bpf_fib_lookup, 1> = PerCpuArray::new();

/// Where the frame walker works on a segment.
#[btf_map]
pub static WORK: PerCpuArray<Work, 1> = PerCpuArray::new();

/// The proxy's listening socket (index 0: one of a SO_REUSEPORT group).
#[btf_map]
pub static STEER_SOCKETS: SockMap<1> = SockMap::new();
