//! Tests of the flow table's arithmetic.

use proptest::prelude::*;

use super::*;

proptest! {
    #[test]
    fn a_bucket_and_its_neighbours_are_in_the_index(hash in any::<u64>(), flows in any::<u32>()) {
        let buckets = buckets(slots(flows));
        let place = Place::of(hash, buckets);
        let mut group: Vec<u32> = (0..GROUP).map(|number| place.neighbour(number)).collect();
        prop_assert_eq!(group[0], place.first);
        group.sort_unstable();
        let first = group[0];
        prop_assert_eq!(&group, &(first..first + GROUP).collect::<Vec<_>>());
        prop_assert!(first.is_multiple_of(GROUP) && first + GROUP <= buckets, "{group:?} of {buckets}");
    }

    #[test]
    fn an_entry_says_what_it_was_made_of_and_is_not_the_empty_word(
        hash in any::<u64>(),
        slot in any::<u32>(),
    ) {
        let tag = Place::of(hash, GROUP).tag;
        let entry = entry(tag, slot);
        prop_assert_eq!((tag_of(entry), slot_of(entry)), (tag, slot));
        prop_assert_ne!(entry, 0);
    }

    #[test]
    fn there_is_room_for_all_flows_in_whole_chunks(flows in 1..=u32::MAX - CHUNK) {
        let slots = slots(flows);
        prop_assert!(slots >= flows && slots - flows < CHUNK);
        prop_assert_eq!(slots % CHUNK, 0);
    }

    #[test]
    fn a_rank_is_below_that_of_nobody(bits in any::<u8>(), last_seen in any::<u64>()) {
        prop_assert!(rank(bits, last_seen) < NOBODY);
    }

    #[test]
    fn the_closed_go_first_then_the_opening_then_the_silent(times in any::<[u32; 3]>()) {
        let [closed, opening, established] = times.map(u64::from);
        let closed = rank(state::USED | state::SYN | state::ESTABLISHED | state::CLOSED, closed);
        let opening = rank(state::USED | state::SYN, opening);
        let later = rank(state::USED | state::SYN | state::ESTABLISHED, established + 1);
        let established = rank(state::USED | state::SYN | state::ESTABLISHED, established);
        prop_assert!(closed < opening && opening < established && established < later);
    }
}

#[test]
fn a_slot_in_somebodys_hands_has_no_entry() {
    assert!(is_used(state::USED | state::SYN));
    for bits in [0, state::SYN, state::BUSY, state::NEW] {
        assert!(!is_used(bits), "{bits:#x}");
    }
}

#[test]
fn a_stack_gives_back_what_was_put_on_it_and_is_never_the_same_twice() {
    let empty = 0;
    assert_eq!(Ring::top(empty), None);
    let one = Ring::pushed(empty, 0);
    let two = Ring::pushed(one, 7);
    assert_eq!((Ring::top(one), Ring::top(two)), (Some(0), Some(7)));
    let one_again = Ring::popped(two, one);
    assert_eq!(Ring::top(one_again), Some(0));
    assert_ne!(one_again, one);
    assert_eq!(Ring::top(Ring::popped(one_again, empty)), None);
}

#[test]
fn more_chunks_than_there_are_were_given_but_no_more_slots_used() {
    let ring = |chunks| Ring {
        chunks,
        ..Ring::default()
    };
    assert_eq!(ring(2).used(64), 32);
    assert_eq!(ring(5).used(64), 64);
    assert_eq!(ring(u64::MAX).used(64), 64);
}

/// What `SLOTS_FOR` promises, on 200,000 flows.
#[test]
fn a_full_table_has_room_for_every_entry_in_its_group_of_buckets() {
    let slots = slots(200_000);
    let buckets = buckets(slots);
    let mut entries = vec![0_usize; (buckets / GROUP) as usize];
    // SplitMix64 (Steele, Lea, Flood, Fast splittable pseudorandom number generators, 2014).
    let mut state = 0_u64;
    for _ in 0..slots {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut hash = state;
        hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        entries[(Place::of(hash ^ (hash >> 31), buckets).first / GROUP) as usize] += 1;
    }
    let room = GROUP as usize * WAYS;
    let most = entries.iter().max();
    assert!(
        most.is_some_and(|most| *most <= room),
        "{most:?} in one, which has room for {room}"
    );
}
