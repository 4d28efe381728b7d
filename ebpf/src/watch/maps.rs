//! Every map of `evenkeel observe`, with one sentence each.

use aya_ebpf::bindings::BPF_F_MMAPABLE;
use aya_ebpf::btf_maps::{Array, HashMap, LruHashMap, PerCpuArray};
use aya_ebpf::macros::btf_map;
use evenkeel_ebpf::abi::Tuple;
use evenkeel_ebpf::http2::Work;
use evenkeel_ebpf::watch::{
    MAX_FLOWS, MAX_PEERS, PeerKey, PeerStats, PortSet, STREAM_BUCKETS, StreamBucket, WatchEvent,
    WatchSettings, Watched,
};

use crate::frames::Task;

/// What to observe.
#[btf_map]
pub static W_SETTINGS: Array<WatchSettings, 1> = Array::new();

/// The server ports to observe, if any are given.
#[btf_map]
pub static W_PORTS: Array<PortSet, 1> = Array::new();

/// Connections, by canonical 5-tuple.
#[btf_map]
pub static W_FLOWS: LruHashMap<Tuple, Watched, { MAX_FLOWS as usize }> = LruHashMap::new();

/// Streams that wait for their answer; see `StreamBucket`. What can be mapped begins with a page (Linux 5.5,
/// fc9702273e2e), so that a bucket is two cache lines and not three; nobody does map it.
#[btf_map]
pub static W_STREAMS: Array<
    StreamBucket,
    { STREAM_BUCKETS as usize },
    { BPF_F_MMAPABLE as usize },
> = Array::new();

/// Server address -> index of its figures.
#[btf_map]
pub static W_PEERS: HashMap<PeerKey, u32, { MAX_PEERS as usize }> = HashMap::new();

/// How many indexes of peers are taken.
#[btf_map]
pub static W_PEER_COUNT: Array<u64, 1> = Array::new();

/// How many flows were recorded.
#[btf_map]
pub static W_FLOW_COUNT: Array<u64, 1> = Array::new();

/// Peer index -> streams and latencies; the first entry is nobody's.
#[btf_map]
pub static W_STATS: Array<PeerStats, { MAX_PEERS as usize + 1 }> = Array::new();

/// What went wrong, by kind.
#[btf_map]
pub static W_EVENTS: PerCpuArray<u64, { WatchEvent::COUNT as usize }> = PerCpuArray::new();

/// Where a new flow is put together: it would take half of the stack.
#[btf_map]
pub static W_DRAFT: PerCpuArray<Watched, 1> = PerCpuArray::new();

/// Where the frames of a segment are read.
#[btf_map]
pub static W_TASK: PerCpuArray<Task, 1> = PerCpuArray::new();

/// Where the frame walker searches a segment.
#[btf_map]
pub static W_WORK: PerCpuArray<Work, 1> = PerCpuArray::new();

/// Counts one occurrence.
#[inline(always)]
pub fn event(event: WatchEvent) {
    if let Some(count) = W_EVENTS.get_ptr_mut(event as u32) {
        // SAFETY: this processor's slot, and our hooks do not interrupt each other: both run with bottom halves off.
        unsafe { *count += 1 };
    }
}
