//! Streams in flight, and the figures of peers.

use aya_ebpf::bindings::BPF_NOEXIST;
use evenkeel_ebpf::watch::{
    ABANDONED, MAX_PEERS, NO_PEER, PeerKey, PeerStats, StreamSlot, WatchEvent, bucket,
    stream_bucket,
};

use crate::atomic::{add, fetch_add};
use crate::maps::{W_PEER_COUNT, W_PEERS, W_STATS, W_STREAMS, event};

/// A stream of the flow `tag` was opened.
#[inline(always)]
pub fn begin(tag: u32, id: u32, now: u64) {
    let Some(bucket) = W_STREAMS.get_ptr_mut(stream_bucket(tag, id)) else {
        return;
    };
    let new = StreamSlot {
        begun: now,
        tag,
        id,
    };
    // SAFETY: a live map value. Two flows may take a slot at the same time; each then finds a tag or an id that is not
    // its own and leaves it, at the price of a latency.
    let slots = unsafe { &mut (*bucket).slots };
    for slot in slots.iter_mut() {
        if slot.tag == 0 || now.wrapping_sub(slot.begun) > ABANDONED {
            *slot = new;
            return;
        }
    }
    event(WatchEvent::StreamsFull);
    slots[0] = new;
}

/// A stream of the flow `tag` has ended: when it was opened, if that was seen.
#[inline(always)]
pub fn end(tag: u32, id: u32) -> Option<u64> {
    let bucket = W_STREAMS.get_ptr_mut(stream_bucket(tag, id))?;
    // SAFETY: as in `begin`.
    let slots = unsafe { &mut (*bucket).slots };
    for slot in slots.iter_mut() {
        if slot.tag == tag && slot.id == id {
            slot.tag = 0;
            return Some(slot.begun);
        }
    }
    None
}

/// An answer took so many nanoseconds.
#[inline(always)]
pub fn count_answer(peer: u32, nanoseconds: u64) {
    if let Some(stats) = stats(peer) {
        // SAFETY: a live map value; all changes are atomic.
        unsafe {
            if let Some(bucket) = (*stats).buckets.get_mut(bucket(nanoseconds) as usize) {
                add(bucket, 1);
            }
        }
    }
}

/// The answers of a segment took so many nanoseconds in all.
#[inline(always)]
pub fn answered(peer: u32, nanoseconds: u64) {
    if nanoseconds != 0
        && let Some(stats) = stats(peer)
    {
        // SAFETY: as above.
        unsafe { add(&raw mut (*stats).nanoseconds, nanoseconds) };
    }
}

/// A stream was given up.
#[inline(always)]
pub fn count_reset(peer: u32) {
    if let Some(stats) = stats(peer) {
        // SAFETY: as above.
        unsafe { add(&raw mut (*stats).reset, 1) };
    }
}

/// So many streams were opened at a peer.
#[inline(always)]
pub fn opened(peer: u32, streams: u32) {
    if let Some(stats) = stats(peer) {
        // SAFETY: a live map value; all changes are atomic.
        unsafe { add(&raw mut (*stats).streams, streams.into()) };
    }
}

#[inline(always)]
fn stats(peer: u32) -> Option<*mut PeerStats> {
    if peer == NO_PEER {
        return None;
    }
    W_STATS.get_ptr_mut(peer)
}

/// The index of a server's figures; [`NO_PEER`] if there is no room for it.
#[inline(always)]
pub fn peer(server: &PeerKey) -> u32 {
    // SAFETY: the value is copied before anything else happens to the map.
    if let Some(index) = unsafe { W_PEERS.get(server) } {
        return *index;
    }
    let Some(count) = W_PEER_COUNT.get_ptr_mut(0) else {
        return NO_PEER;
    };
    // Index 0 stays free. One that is drawn in vain, as another processor was faster, is lost.
    // SAFETY: an aligned word of a live map value.
    let index = unsafe { fetch_add(count, 1) }.saturating_add(1);
    if index >= u64::from(MAX_PEERS) {
        event(WatchEvent::PeersFull);
        return NO_PEER;
    }
    let index = index as u32;
    if W_PEERS.insert(server, index, BPF_NOEXIST.into()).is_ok() {
        return index;
    }
    // SAFETY: as above.
    unsafe { W_PEERS.get(server) }.map_or(NO_PEER, |index| *index)
}
