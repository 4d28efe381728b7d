//! Where streams wait for their answer: value and places of `W_STREAMS`.

/// Streams whose beginning is remembered at once; a power of two.
pub const MAX_STREAMS: u32 = 1 << 18;
/// A stream that began longer ago (ns) was likely forgotten by its flow: an answer whose end was not seen. Its slot is taken
/// over if no other is free.
pub const ABANDONED: u64 = 1 << 36;

/// A stream that was opened and not yet answered. 16 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamSlot {
    /// When it was opened, ns of CLOCK_MONOTONIC.
    pub begun: u64,
    /// Whose slot it is, see [`stream_key`]; 0 if it is free.
    pub key: u64,
}

/// Slots of a [`StreamBucket`].
pub const WAYS: usize = 8;
/// Streams of a flow, one after the other, that have the same bucket; half of its slots.
pub const NEIGHBOURS: u32 = 4;

/// Value of `W_STREAMS`: streams in flight. The table has no chains: the bucket of a stream is given by its flow's number
/// and its id, so that opening and ending one costs an array access and not a hash. 128 bytes, two cache lines.
///
/// What costs most is memory that is not in the cache, as requests come in bursts and so do their answers. Hence streams
/// that follow each other are [`NEIGHBOURS`] in a bucket, each with a slot that is tried first ([`home`]), and a flow
/// uses no more than [`NEAR`] buckets over and over as long as they are free. A stream that finds its slot taken goes to
/// one of the flow's [`WINDOW`] others. Buckets of several flows may meet: of those recorded
/// [`STREAM_BUCKETS`] / [`NEAR`] after each other.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StreamBucket {
    /// The streams.
    pub slots: [StreamSlot; WAYS],
}

/// Buckets of the table.
pub const STREAM_BUCKETS: u32 = MAX_STREAMS / WAYS as u32;

/// Buckets that a flow uses first, a power of two: room for 32 streams at home.
pub const NEAR: u32 = 8;
/// Buckets that it uses then, likewise: room for 1,024 of its streams in flight, if no other flow is in the way.
pub const WINDOW: u32 = 128;

/// Where the buckets begin that the flow recorded as the `number`th uses first: behind those of the one before. Flows of the same
/// time thus share pages, and none of these buckets until the table is used up.
#[inline(always)]
#[must_use]
pub const fn near(number: u64) -> u32 {
    (number as u32).wrapping_mul(NEAR)
}

/// The bucket of stream `id` of a flow whose buckets begin at [`near`].
#[inline(always)]
#[must_use]
pub const fn stream_bucket(near: u32, id: u32) -> u32 {
    bucket_of::<NEAR>(near, id)
}

/// The bucket if that one is no good.
#[inline(always)]
#[must_use]
pub const fn other_bucket(tag: u32, id: u32) -> u32 {
    bucket_of::<WINDOW>(tag >> 16, id)
}

#[inline(always)]
const fn bucket_of<const OF: u32>(first: u32, id: u32) -> u32 {
    // Ids are odd.
    let turn = (id / (2 * NEIGHBOURS)) & (OF - 1);
    first.wrapping_add(turn) & (STREAM_BUCKETS - 1)
}

/// The slot of the bucket that is tried first: in the half, which is a cache line, that the tag chooses, so that two
/// flows need not meet.
#[inline(always)]
#[must_use]
pub const fn home(tag: u32, id: u32) -> u32 {
    ((id >> 1) & (NEIGHBOURS - 1)) | ((tag >> 31) * NEIGHBOURS)
}

/// What a slot is marked with.
#[inline(always)]
#[must_use]
pub const fn stream_key(tag: u32, id: u32) -> u64 {
    ((tag as u64) << 32) | id as u64
}

const _: () = {
    assert!(size_of::<StreamSlot>() == 16);
    assert!(size_of::<StreamBucket>() == 128);
    assert!(NEIGHBOURS as usize * 2 == WAYS);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_of_a_flow_stay_in_its_windows() {
        let buckets = |of: fn(u32, u32) -> u32| -> std::collections::HashSet<u32> {
            let ids = (0..10 * WINDOW * NEIGHBOURS).map(|n| 2 * n + 1);
            ids.map(|id| of(0xdead_beef, id)).collect()
        };
        let (near, others) = (buckets(stream_bucket), buckets(other_bucket));
        assert_eq!((near.len(), others.len()), (NEAR as usize, WINDOW as usize));
        assert!(near.union(&others).all(|bucket| *bucket < STREAM_BUCKETS));
    }

    #[test]
    fn flows_that_follow_each_other_have_buckets_of_their_own() {
        let flows = u64::from(STREAM_BUCKETS / NEAR);
        let ids = || (0..NEAR).map(|turn| 2 * NEIGHBOURS * turn + 1);
        // Also where the number does not fit a word.
        for first in [0, u64::from(u32::MAX)] {
            let buckets: std::collections::HashSet<_> = (first..first + flows)
                .flat_map(|number| ids().map(move |id| stream_bucket(near(number), id)))
                .collect();
            assert_eq!(buckets.len(), STREAM_BUCKETS as usize);
        }
    }

    #[test]
    fn streams_that_follow_each_other_have_slots_of_their_own() {
        for tag in [1, 0xdead_beef] {
            let slots: std::collections::HashSet<_> = (0..NEAR * NEIGHBOURS)
                .map(|n| 2 * n + 1)
                .map(|id| (stream_bucket(tag, id), home(tag, id)))
                .collect();
            assert_eq!(slots.len(), (NEAR * NEIGHBOURS) as usize);
            assert!(slots.iter().all(|(_, slot)| *slot < WAYS as u32));
        }
    }
}
