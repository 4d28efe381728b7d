//! What is not known of a direction since a segment of it was passed over.
//!
//! An answer that ended in such a segment, or a stream that was given up in it, leaves its stream waiting for ever. Which
//! one that was is not known, but when it was: only streams that had begun by then can be among them.

use super::{ABANDONED, Half, Watched};

/// Time is kept in steps of 2^24 ns (17 ms), so that 32 bits last for two years of uptime.
const STEP_BITS: u32 = 24;

/// What may be said of a stream that has not ended as far as was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Every segment since it began was read: it waits.
    Sure,
    /// Its end may have been in a segment that was passed over.
    Unsure,
    /// Likewise, and it began longer ago than [`ABANDONED`]: it ended, most likely.
    Unfinished,
}

impl Half {
    /// A segment was passed over at `now`, ns of CLOCK_MONOTONIC.
    #[inline(always)]
    pub fn pass_over(&mut self, now: u64) {
        // Not 0, and in doubt later.
        self.gap = ((now >> STEP_BITS) as u32).wrapping_add(1);
    }

    const fn passed_over_since(&self, begun: u64) -> bool {
        self.gap != 0 && begun >> STEP_BITS <= self.gap as u64
    }
}

impl Watched {
    /// Whether any segment was passed over.
    #[must_use]
    pub const fn has_gap(&self) -> bool {
        self.forward.gap != 0 || self.backward.gap != 0
    }

    /// What may be said at `now` of a stream that began at `begun`, and whose end was not seen.
    #[must_use]
    pub const fn waiting(&self, begun: u64, now: u64) -> Waiting {
        // The client gives streams up, too.
        if !self.forward.passed_over_since(begun) && !self.backward.passed_over_since(begun) {
            Waiting::Sure
        } else if now.saturating_sub(begun) <= ABANDONED {
            Waiting::Unsure
        } else {
            Waiting::Unfinished
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn a_stream_is_waited_for_as_long_as_every_segment_was_read() {
        let flow = Watched::default();
        assert!(!flow.has_gap());
        assert_eq!(flow.waiting(SECOND, 1000 * SECOND), Waiting::Sure);
    }

    #[test]
    fn only_streams_that_had_begun_may_have_ended_in_a_segment_passed_over() {
        for forward in [false, true] {
            let mut flow = Watched::default();
            let half = if forward {
                &mut flow.forward
            } else {
                &mut flow.backward
            };
            half.pass_over(5 * SECOND);
            half.pass_over(10 * SECOND);
            assert!(flow.has_gap());
            for (begun, now, waiting) in [
                (9 * SECOND, 11 * SECOND, Waiting::Unsure),
                (10 * SECOND, 11 * SECOND, Waiting::Unsure),
                (10 * SECOND + (2 << STEP_BITS), 11 * SECOND, Waiting::Sure),
                (11 * SECOND, 1000 * SECOND, Waiting::Sure),
                (9 * SECOND, 9 * SECOND + ABANDONED, Waiting::Unsure),
                (9 * SECOND, 10 * SECOND + ABANDONED, Waiting::Unfinished),
            ] {
                assert_eq!(flow.waiting(begun, now), waiting, "{begun} {now}");
            }
        }
    }

    #[test]
    fn a_segment_passed_over_right_at_the_start_is_not_forgotten() {
        let mut flow = Watched::default();
        flow.forward.pass_over(0);
        assert!(flow.has_gap());
        assert_eq!(flow.waiting(0, 1), Waiting::Unsure);
    }
}
