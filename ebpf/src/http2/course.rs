//! The course of a segment: which chain it continues, and what becomes of front and hole afterwards.
//!
//! See the parent module for what front, hole and search are.

use super::cursor::{Boundary, Cursor, Lane};
use super::{
    CONFIRMED, PREFACE_HEAD, PREFACE_LENGTH, STALE, Segment, UPGRADE_SEGMENTS, Walk, flag,
};
use crate::abi::{Http2, http2_phase as phase};
use crate::packet::Bytes;

/// Whether sequence number `a` comes after `b`; they wrap around (RFC 9293 section 3.4).
#[inline(always)]
const fn after(a: u32, b: u32) -> bool {
    (b.wrapping_sub(a) as i32) < 0
}

/// Which chain the segment continues; `None` if it brings nothing new. Notices gaps.
#[inline(always)]
pub(super) fn choose<B: Bytes>(
    state: &mut Http2,
    bytes: &B,
    segment: Segment,
    walk: &mut Walk,
) -> Option<Lane> {
    let start = segment.sequence;
    let end = start.wrapping_add(segment.length);
    if state.flags & flag::HOLE != 0 {
        let wanted = state
            .hole
            .wrapping_add(u32::from(state.hole_partial_length));
        if !after(start, wanted) && after(end, wanted) {
            return Some(Lane::Hole);
        }
        if state.next.wrapping_sub(state.hole) > STALE {
            state.flags &= !(flag::HOLE | flag::HOLE_PREFACE | flag::ISLAND);
        }
    }
    if state.phase == phase::UNKNOWN && state.flags & flag::FROM_START == 0 {
        state.phase = phase::SEARCHING;
        state.next = start;
        if is_tls(bytes, segment) {
            state.phase = phase::TLS;
            return None;
        }
    }
    let wanted = state.next.wrapping_add(u32::from(state.partial_length));
    let searching = state.phase == phase::SEARCHING;
    if !after(end, wanted) {
        // The candidate may be a wrong one that hides many streams behind its length: the search goes on.
        return (searching && state.score > 0).then_some(Lane::Search);
    }
    if searching && state.score == 0 {
        return Some(Lane::Search);
    }
    if !after(start, wanted) {
        return Some(Lane::Front);
    }
    if !searching {
        dig_hole(state, bytes, segment);
        walk.lost = true;
    }
    state.score = 0;
    state.partial_length = 0;
    Some(Lane::Search)
}

/// Remembers the front as the hole: the segment starts beyond it.
#[inline(always)]
fn dig_hole<B: Bytes>(state: &mut Http2, bytes: &B, segment: Segment) {
    let preface = state.flags & flag::PREFACE != 0;
    state.flags &= !(flag::PREFACE | flag::HOLE_PREFACE | flag::ISLAND);
    state.flags |= flag::HOLE;
    if preface {
        state.flags |= flag::HOLE_PREFACE;
    }
    state.hole = state.next;
    state.hole_partial = state.partial;
    state.hole_partial_length = state.partial_length;
    state.phase = phase::SEARCHING;
    state.misses = 0;
    if segment.length >= 8
        && let Some(head) = bytes.load(segment.offset)
    {
        state.island_head = u64::from_be_bytes(head);
        state.island = segment.sequence as u16;
        state.flags |= flag::ISLAND;
    }
}

/// Whether a flow found in the middle carries TLS records (RFC 8446 section 5.1): content type 20 to 23, version
/// 3.x. No frame starts like that: its length would be over a million.
#[inline(always)]
fn is_tls<B: Bytes>(bytes: &B, segment: Segment) -> bool {
    segment.length >= 3
        && bytes
            .load(segment.offset)
            .is_some_and(|[kind, major, minor]: [u8; 3]| {
                (20..=23).contains(&kind) && major == 3 && minor <= 4
            })
}

/// Whether the connection preface starts this segment of a flow that began as something else.
#[inline(always)]
pub(super) fn upgrades<B: Bytes>(state: &mut Http2, bytes: &B, segment: Segment) -> bool {
    if state.misses >= UPGRADE_SEGMENTS || segment.length < PREFACE_LENGTH {
        return false;
    }
    state.misses += 1;
    if bytes.load(segment.offset) != Some(PREFACE_HEAD) {
        return false;
    }
    state.phase = phase::UNKNOWN;
    state.next = segment.sequence;
    state.partial_length = 0;
    state.flags |= flag::PREFACE;
    // The request that asked for the upgrade is stream 1, though no frame of the client ever names it.
    state.highest = 1;
    true
}

#[inline(always)]
pub(super) const fn expects_preface(state: &Http2, lane: Lane) -> bool {
    let flag = match lane {
        Lane::Front => flag::PREFACE,
        Lane::Hole => flag::HOLE_PREFACE,
        Lane::Search => 0,
    };
    state.flags & flag != 0
}

/// Stores where the front's chain, or the search, came to.
#[inline(always)]
pub(super) fn settle_front(
    state: &mut Http2,
    cursor: &Cursor,
    boundary: Boundary,
    segment: Segment,
) {
    if cursor.score >= CONFIRMED {
        state.highest = cursor.base;
        state.phase = phase::SYNCHRONISED;
        state.score = 0;
        state.misses = 0;
        boundary.becomes_front(state);
        return;
    }
    let waits = cursor.lane == Lane::Search && state.score > 0;
    state.phase = phase::SEARCHING;
    state.highest = cursor.base;
    state.misses = state.misses.saturating_add(1);
    if waits {
        return;
    }
    state.score = cursor.score;
    state.candidate_highest = cursor.high;
    state.flags &= !flag::WITNESSED;
    if cursor.witnessed {
        state.flags |= flag::WITNESSED;
    }
    boundary.becomes_front(state);
    if state.flags & flag::HOLE == 0 && cursor.lost {
        // Not a hole to be filled; the limit for ids is reckoned from here.
        state.hole = segment.sequence;
    }
}

/// Stores where the chain from the hole came to, and closes the hole if that is at or beyond the front.
#[inline(always)]
pub(super) fn settle_hole(state: &mut Http2, cursor: &Cursor, boundary: Boundary) {
    state.highest = cursor.base;
    if cursor.lost {
        state.flags &= !(flag::HOLE | flag::ISLAND);
        return;
    }
    let boundary = boundary.join_island(state);
    let candidate = state.phase == phase::SEARCHING && state.score > 0;
    let bare = state.phase == phase::SEARCHING && state.score == 0;
    let reached = if bare {
        // Nothing is known behind the hole but how far it was seen.
        !after(state.next, boundary.end())
    } else {
        after(boundary.sequence, state.next)
    };
    if reached {
        boundary.becomes_front(state);
    } else if bare || boundary.sequence != state.next {
        boundary.becomes_hole(state);
        return;
    } else if candidate
        && state.flags & flag::WITNESSED != 0
        && state.candidate_highest > state.highest
    {
        state.highest = state.candidate_highest;
    }
    state.phase = phase::SYNCHRONISED;
    state.score = 0;
    state.misses = 0;
    state.flags &= !(flag::HOLE | flag::ISLAND);
}
