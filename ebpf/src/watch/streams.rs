//! Streams in flight, and the figures of peers.

use aya_ebpf::bindings::BPF_NOEXIST;
use evenkeel_ebpf::watch::{
    ABANDONED, NO_PEER, PeerKey, PeerStats, StreamSlot, WatchEvent, bucket, home, other_bucket,
    stream_bucket, stream_key,
};

use crate::atomic::{add, fetch_add};
use crate::maps::{W_PEER_COUNT, W_PEERS, W_SETTINGS, W_STATS, W_STREAMS, event};
use crate::raw::opaque;

/// The index of a stream's own slot, which has to be compared with the number of slots: Linux 6.1 knows no bounds of what
/// comes out of an OR on 32 bits.
#[inline(always)]
fn own(tag: u32, id: u32) -> usize {
    opaque(home(tag, id) as usize)
}

/// Whose stream it is.
#[derive(Clone, Copy)]
pub struct Flow {
    /// Its tag, ...
    pub tag: u32,
    /// ... and where its buckets begin.
    pub near: u32,
}

/// A stream was opened.
#[inline(always)]
pub fn begin(Flow { tag, near }: Flow, id: u32, now: u64) {
    let Some(bucket) = W_STREAMS.get_ptr_mut(stream_bucket(near, id)) else {
        return;
    };
    let key = stream_key(tag, id);
    // SAFETY: a live map value. Two flows may take a slot at the same time; each then finds a key that is not its own
    // and leaves it, at the price of a latency.
    let slots = unsafe { &mut (*bucket).slots };
    let Some(slot) = slots.get_mut(own(tag, id)) else {
        return;
    };
    if slot.key == 0 {
        *slot = StreamSlot { begun: now, key };
    } else {
        ek_watch_crowd(tag, id, now);
    }
}

/// Finds a slot for a stream that cannot have its own: a free one, else one that was abandoned, else somebody's. A stream
/// that takes its time is thus kept as long as there is room. Returns nothing; a global function has to return something.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ek_watch_crowd(tag: u32, id: u32, now: u64) -> u32 {
    let Some(bucket) = W_STREAMS.get_ptr_mut(other_bucket(tag, id)) else {
        return 0;
    };
    let key = stream_key(tag, id);
    let new = StreamSlot { begun: now, key };
    // SAFETY: as in `begin`.
    let slots = unsafe { &mut (*bucket).slots };
    for slot in slots.iter_mut() {
        if slot.key == 0 {
            *slot = new;
            return 0;
        }
    }
    for slot in slots.iter_mut() {
        if now.wrapping_sub(slot.begun) > ABANDONED {
            event(WatchEvent::Abandoned);
            *slot = new;
            return 0;
        }
    }
    event(WatchEvent::StreamsFull);
    slots[0] = new;
    0
}

/// A stream has ended: when it was opened, if that was seen.
#[inline(always)]
pub fn end(Flow { tag, near }: Flow, id: u32) -> Option<u64> {
    let bucket = W_STREAMS.get_ptr_mut(stream_bucket(near, id))?;
    let key = stream_key(tag, id);
    // SAFETY: as in `begin`.
    let slots = unsafe { &mut (*bucket).slots };
    let slot = slots.get_mut(own(tag, id))?;
    if slot.key == key {
        slot.key = 0;
        return Some(slot.begun);
    }
    match ek_watch_away(tag, id) {
        0 => None,
        begun => Some(begun),
    }
}

/// Frees the slot of a stream that has not its own: when it was opened, 0 if that was not seen.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ek_watch_away(tag: u32, id: u32) -> u64 {
    let Some(bucket) = W_STREAMS.get_ptr_mut(other_bucket(tag, id)) else {
        return 0;
    };
    let key = stream_key(tag, id);
    // SAFETY: as in `begin`.
    for slot in unsafe { &mut (*bucket).slots } {
        if slot.key == key {
            slot.key = 0;
            return slot.begun;
        }
    }
    0
}

/// Answers of one peer, before they are added to its figures: those of a burst took equally long, and count at once.
#[repr(C)]
pub struct Answers {
    /// So many nanoseconds ...
    took: u64,
    /// Index of the peer.
    pub peer: u32,
    /// ... was what so many took, one after the other.
    alike: u32,
    /// Nanoseconds in all.
    sum: u64,
}

impl Answers {
    /// None yet.
    #[inline(always)]
    pub fn restart(&mut self, peer: u32) {
        self.took = 0;
        self.peer = peer;
        self.alike = 0;
        self.sum = 0;
    }

    /// One took so many nanoseconds.
    #[inline(always)]
    pub fn add(&mut self, took: u64) {
        if took != self.took {
            self.tell();
            self.alike = 0;
            self.took = took;
        }
        self.alike += 1;
        self.sum = self.sum.wrapping_add(took);
    }

    /// Adds those that took equally long to the peer's figures.
    #[inline(always)]
    fn tell(&self) {
        // Not left to the function: on processors that return by way of a mitigation a call takes tens of nanoseconds.
        if self.alike != 0 {
            ek_watch_count(self);
        }
    }

    #[inline(always)]
    fn count(&self) {
        if let Some(stats) = stats(self.peer) {
            // SAFETY: a live map value; all changes are atomic.
            unsafe {
                if let Some(bucket) = (*stats).buckets.get_mut(bucket(self.took) as usize) {
                    add(bucket, self.alike.into());
                }
            }
        }
    }

    /// Adds what is left to the peer's figures.
    #[inline(always)]
    pub fn settle(&self) {
        self.tell();
        if self.sum != 0
            && let Some(stats) = stats(self.peer)
        {
            // SAFETY: as above.
            unsafe { add(&raw mut (*stats).nanoseconds, self.sum) };
        }
    }
}

/// Adds answers that took equally long to their peer's figures. Returns nothing; a global function has to return
/// something.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ek_watch_count(answers: *const Answers) -> u32 {
    // SAFETY: null or a whole value, as `Answers` passes it; the verifier checks no less.
    if let Some(answers) = unsafe { answers.as_ref() } {
        answers.count();
    }
    0
}

/// So many streams were given up.
#[inline(always)]
pub fn count_resets(peer: u32, streams: u32) {
    if streams != 0
        && let Some(stats) = stats(peer)
    {
        // SAFETY: as above.
        unsafe { add(&raw mut (*stats).reset, streams.into()) };
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
    let (Some(settings), Some(count)) = (W_SETTINGS.get(0), W_PEER_COUNT.get_ptr_mut(0)) else {
        return NO_PEER;
    };
    // Index 0 stays free. One that is drawn in vain, as another processor was faster, is lost.
    // SAFETY: an aligned word of a live map value.
    let index = unsafe { fetch_add(count, 1) }.saturating_add(1);
    if index > u64::from(settings.peers) {
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
