//! What a connection had opened before it was observed.
//!
//! Of a flow found in its middle, frames tell little at first: a PING or an acknowledged SETTINGS names no stream at all,
//! and DATA may belong to a stream that is as old as the connection while its ids are at 200,001. The highest id heard so
//! far is then not where the client has come to, and the next request would look like 100,000 new ones. Only a HEADERS
//! frame that opens a stream tells: whatever has a lower id was opened before.
//!
//! Hence the baseline stays open, and nothing is counted as new, until the beginning of a stream is *read*, its boundaries
//! certain (see [`crate::exchange`]); what the search of [`crate::http2`] finds before that is counted as from before.

use super::Half;
use crate::http2::{flag, streams};

/// The direction is not known to carry HTTP/2.
pub const NONE: u8 = 0;
/// It does, but no stream was seen to begin: all that are heard of are from before.
pub const OPEN: u8 = 1;
/// How many were opened before is known.
pub const KNOWN: u8 = 2;

impl Half {
    /// Takes in a segment of this direction, of which `first` is the first stream whose beginning was read, 0 if none was.
    #[inline(always)]
    pub fn rebase(&mut self, first: u32) {
        if self.baseline == KNOWN || self.http2.flags & flag::RECOGNISED == 0 {
            return;
        }
        // A flow known from its first byte has nothing before.
        let from_start = self.http2.flags & flag::FROM_START != 0;
        let before = if from_start {
            0
        } else if first != 0 {
            streams(first).wrapping_sub(1)
        } else {
            streams(self.http2.highest)
        };
        self.before = before;
        self.counted = before;
        // Last: whoever reads the record meanwhile takes an open baseline's streams for old ones.
        self.baseline = if from_start || first != 0 {
            KNOWN
        } else {
            OPEN
        };
    }

    /// Streams opened before, and since.
    #[must_use]
    pub fn before_and_since(&self) -> (u32, u32) {
        let opened = streams(self.http2.highest);
        if self.baseline == KNOWN {
            (self.before, opened.saturating_sub(self.before))
        } else {
            (opened, 0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A direction that was recognised when it had come to `highest`.
    fn found(highest: u32, flags: u8) -> Half {
        let mut half = Half::default();
        half.http2.highest = highest;
        half.http2.flags = flags | flag::RECOGNISED;
        half.rebase(0);
        half
    }

    #[test]
    fn what_is_not_recognised_has_no_baseline() {
        let mut half = Half::default();
        half.rebase(7);
        assert_eq!((half.baseline, half.before), (NONE, 0));
    }

    #[test]
    fn streams_heard_of_are_old_until_one_was_seen_to_begin() {
        let mut half = found(1, 0);
        assert_eq!(half.before_and_since(), (1, 0));
        half.http2.highest = 200_003;
        assert_eq!(half.before_and_since(), (100_002, 0), "read too early");
        half.rebase(200_001);
        assert_eq!(half.before_and_since(), (100_000, 2));
        assert_eq!(half.counted, 100_000);
    }

    #[test]
    fn a_baseline_that_is_known_stays() {
        let mut half = found(1, 0);
        half.rebase(201);
        half.rebase(301);
        assert_eq!(half.before, 100);
    }

    #[test]
    fn a_flow_known_from_its_first_byte_has_nothing_before() {
        let mut half = found(9, flag::FROM_START);
        half.rebase(11);
        assert_eq!(half.before_and_since(), (0, 5));
    }
}
