//! Being awake when a moment comes, instead of being woken because it came.
//!
//! What starts requests at their intended times must not be late by a wakeup, because latency counts from those times, and
//! neither must a backend that was asked for a delay. So the timer expires earlier than it has to, and looks at the clock for
//! the rest, again and again; between two looks the runtime handles what was received, so that nothing waits for it. How
//! much earlier is learned: as late as it was woken lately, which is the longest lateness seen, forgotten by [`FORGOTTEN`]
//! each time. A median would be too late every other time. Two bounds keep what is spent on it small:
//!
//! - at most [`MOST`], so that one long stall (a virtual machine that was not run for milliseconds) is not made up for;
//! - at most a tenth ([`SHARE`]) of the time since it was awake last, so that it takes a tenth of a core at most, however
//!   many moments a second there are and whoever waits for them. With a thousand and more of them a core does not sleep
//!   deeply, and wakes sooner.
//!
//! After a longer sleep that time is also used to become warm ([`crate::load::warm`]).

use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use crate::load::warm::Warmth;

/// Most wakeups on a virtual machine took less, from sleeps of 20 ms 220 us; becoming warm comes on top.
pub(super) const MOST: Duration = Duration::from_millis(1);
/// Which part of the time may be spent awake.
const SHARE: u32 = 10;
/// Which part of the longest lateness is forgotten with each wait: of one that comes never again half is, after eleven.
const FORGOTTEN: u32 = 16;
/// Sleeps from this on make cold: after 1 ms a message took 22 to 30 us instead of 17 to 28, after 5 ms 60 to 80.
const COLD: Duration = Duration::from_millis(2);

/// How much earlier than moments a timer expires.
pub(super) struct Punctual {
    lead: Lead,
    warmth: Rc<Warmth>,
    /// When it was awake last.
    awake: Instant,
    /// When it is to expire next.
    alarm: Instant,
    /// Whether it is yet to be learned how late it was.
    learning: bool,
}

/// How much earlier to be woken.
struct Lead {
    late: Duration,
}

// === impl Punctual ===

impl Punctual {
    pub(super) fn new(now: Instant, warmth: Rc<Warmth>) -> Self {
        Self {
            lead: Lead::new(),
            warmth,
            awake: now,
            alarm: now,
            learning: false,
        }
    }

    /// When to expire for `moment`.
    pub(super) fn alarm(&mut self, moment: Instant, now: Instant) -> Instant {
        let rest = moment.saturating_duration_since(self.awake);
        self.alarm = moment
            .checked_sub(self.lead.of(rest))
            .unwrap_or(moment)
            .max(now);
        self.alarm
    }

    /// Takes down that it was woken `now`, and begins to become warm.
    pub(super) fn woken(&mut self, now: Instant) {
        self.learning = true;
        if now.saturating_duration_since(self.awake) >= COLD {
            self.warm();
        }
        self.learn(now);
    }

    /// Takes down how late it was, once it is warm, too.
    pub(super) fn learn(&mut self, now: Instant) {
        if self.learning && !self.warmth.is_pending() {
            self.learning = false;
            let late = now.saturating_duration_since(self.alarm);
            self.lead.learn(late);
        }
    }

    /// Takes down that it is awake.
    pub(super) fn awake(&mut self, now: Instant) {
        self.awake = now;
        if std::mem::take(&mut self.learning) {
            // The moment came first: nobody knows how long it would have taken.
            self.lead.learn(MOST);
        }
    }

    /// Becomes, or stays, warm.
    pub(super) fn warm(&self) {
        self.warmth.ask();
    }
}

// === impl Lead ===

impl Lead {
    /// Nothing was learned: as careful as it gets.
    fn new() -> Self {
        Self { late: MOST }
    }

    /// When it was awake as long ago as that.
    fn of(&self, rest: Duration) -> Duration {
        self.late.min(rest / SHARE)
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
        fn whoever_waits_for_whatever_a_tenth_of_the_time_is_spent_awake_at_most(
            late in prop::collection::vec(0_u64..10_000_000, 0..100),
            waits in prop::collection::vec((0_u64..3_000, 0_u64..3_000), 1..100)
        ) {
            let start = Instant::now();
            let mut punctual = Punctual {
                lead: learned(late),
                warmth: Rc::default(),
                awake: start,
                alarm: start,
                learning: false,
            };
            let (mut now, mut spent) = (start, Duration::ZERO);
            for (idle, wait) in waits {
                now += micros(idle);
                let moment = now + micros(wait);
                let alarm = punctual.alarm(moment, now);
                prop_assert!(now <= alarm && alarm <= moment);
                prop_assert!(moment - alarm <= MOST);
                spent += moment - alarm;
                now = moment;
                punctual.awake(now);
            }
            prop_assert!(spent <= (now - start) / SHARE, "{spent:?} of {:?}", now - start);
        }
    }
}
