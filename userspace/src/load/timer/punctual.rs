//! Being awake when a moment comes, instead of being woken because it came.
//!
//! What starts requests at their intended times must not be late by a wakeup, because latency counts from those times. It
//! asks the timer to be woken earlier than it has to be there, and looks at the clock for the rest, again and again; between
//! two looks the runtime handles what was received, so that nothing waits for it. How much earlier is learned: as late as it
//! was woken lately, which is the longest lateness seen, forgotten by [`FORGOTTEN`] each time. A median would be too late every
//! other time. Two bounds keep what is spent on it small:
//!
//! - at most [`MOST`], so that one long stall (a virtual machine that was not run for milliseconds) is not made up for;
//! - at most a tenth of the wait ([`SHARE`]), so that it takes a tenth of a core at most, however many requests a second
//!   there are. With a thousand and more of them a core does not sleep deeply, and wakes sooner.

use std::time::Duration;

use tokio::time::Instant;

use super::Timer;

/// Most wakeups on a virtual machine took less, from sleeps of 20 ms 220 us.
const MOST: Duration = Duration::from_micros(500);
/// Which part of a wait may be spent awake.
const SHARE: u32 = 10;
/// Which part of the longest lateness is forgotten with each wait: of one that comes never again half is, after eleven.
const FORGOTTEN: u32 = 16;

/// Waits for moments one after the other.
pub struct Punctual<'a> {
    timer: &'a Timer,
    lead: Lead,
}

/// How much earlier to be woken.
struct Lead {
    late: Duration,
}

// === impl Punctual ===

impl<'a> Punctual<'a> {
    pub fn new(timer: &'a Timer) -> Self {
        Self {
            timer,
            lead: Lead::new(),
        }
    }

    /// Waits until `moment`; not at all if it has passed.
    pub async fn until(&mut self, moment: Instant) {
        if self.timer.stands_still() {
            return self.timer.until(moment).await;
        }
        if Instant::now() >= moment {
            return;
        }
        // What the moment before was waited for is done first, and then the next wait prepared.
        tokio::task::yield_now().await;
        let wait = moment.saturating_duration_since(Instant::now());
        let woken = moment - self.lead.of(wait);
        if woken > Instant::now() {
            self.timer.until(woken).await;
            self.lead.learn(woken.elapsed());
        }
        while Instant::now() < moment {
            tokio::task::yield_now().await;
        }
    }
}

// === impl Lead ===

impl Lead {
    /// Nothing was learned: as careful as it gets.
    fn new() -> Self {
        Self { late: MOST }
    }

    /// For a wait as long as that.
    fn of(&self, wait: Duration) -> Duration {
        self.late.min(wait / SHARE)
    }

    /// That much later than it was asked for came the last wakeup.
    fn learn(&mut self, late: Duration) {
        self.late = late.min(MOST).max(self.late - self.late / FORGOTTEN);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn micros(micros: u64) -> Duration {
        Duration::from_micros(micros)
    }

    /// What is learned when each wakeup comes so late.
    fn learned(late: impl IntoIterator<Item = u64>) -> Lead {
        let mut lead = Lead::new();
        for late in late {
            lead.learn(micros(late));
        }
        lead
    }

    #[test]
    fn after_some_waits_it_is_woken_as_much_earlier_as_it_is_woken_late() {
        let lead = learned([220; 50]);
        assert_eq!(lead.of(micros(20_000)), micros(220));
        // One in ten is later than the others, and still comes in time.
        let lead = learned((0..500).map(|wait| if wait % 10 == 0 { 300 } else { 50 }));
        assert!(lead.of(micros(20_000)) > micros(150));
    }

    #[test]
    fn one_long_stall_is_forgotten() {
        let mut lead = learned([60; 50]);
        lead.learn(Duration::from_secs(3));
        assert_eq!(lead.of(Duration::from_secs(1)), MOST);
        for _ in 0..11 {
            lead.learn(micros(60));
        }
        assert!(lead.of(Duration::from_secs(1)) <= MOST / 2);
    }

    proptest! {
        #[test]
        fn it_is_awake_for_no_longer_than_the_bounds_allow(
            late in prop::collection::vec(0_u64..10_000_000, 0..100), wait in 0_u64..10_000_000
        ) {
            let lead = learned(late).of(micros(wait));
            prop_assert!(lead <= MOST && lead <= micros(wait) / SHARE);
        }
    }
}
