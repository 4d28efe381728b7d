//! What becomes of the packets of one direction, decided without I/O and without a clock.
//!
//! 1. The packet has a number, counted from 0. Whether it is lost depends on the seed and that number alone, so the
//!    same seed loses the same packets of a run, whatever the time of day and however busy the machine is.
//! 2. One that is not lost waits for those before it: the transmitter takes `length * 8 / rate` for each. More than
//!    `queue` of them waiting, the one being sent included, is one too many: it is dropped at the tail.
//! 3. After its transmission it is `delay` on its way.
//!
//! Packets never overtake each other.

use std::collections::VecDeque;

/// Packets on their way at most, whatever the queue and the delay: what bounds the memory of the relay.
pub const MOST_ON_THE_WAY: usize = 65_536;

/// One direction of a [`super::RelaySpec`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Direction {
    /// Share of packets that are lost, 0 to 1.
    pub loss: f64,
    /// Nanoseconds from the end of the transmission to the arrival.
    pub delay: u64,
    /// Bits a second that the transmitter sends; `None`: it takes no time.
    pub rate: Option<u64>,
    /// Packets that may wait for the transmitter.
    pub queue: usize,
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Lost by chance.
    Lost,
    /// Dropped: the queue was full.
    Overflowed,
    /// It arrives at that time.
    Arrives(u64),
}

/// The schedule of one direction. Times are nanoseconds of any clock that does not go back.
#[derive(Clone, Debug)]
pub struct Schedule {
    direction: Direction,
    seed: u64,
    number: u64,
    /// When the transmitter has sent all that waits.
    free: u64,
    /// When each of the packets that wait will have been sent.
    waiting: VecDeque<u64>,
    /// When each of the packets that left the transmitter arrives.
    travelling: VecDeque<u64>,
}

impl Schedule {
    /// The schedule of `direction` for `seed`.
    #[must_use]
    pub fn new(direction: Direction, seed: u64) -> Self {
        Self {
            direction,
            seed,
            number: 0,
            free: 0,
            waiting: VecDeque::new(),
            travelling: VecDeque::new(),
        }
    }

    /// Whether packet `number` is lost by chance.
    #[must_use]
    pub fn loses(&self, number: u64) -> bool {
        // 53 bits are what a float holds exactly.
        let drawn = (scramble(self.seed ^ scramble(number)) >> 11) as f64;
        drawn < self.direction.loss * (1_u64 << 53) as f64
    }

    /// The fate of the next packet, which came at `now` and has `length` bytes.
    pub fn decide(&mut self, now: u64, length: usize) -> Fate {
        let lost = self.loses(self.number);
        self.number += 1;
        if lost {
            return Fate::Lost;
        }
        for queue in [&mut self.waiting, &mut self.travelling] {
            while queue.front().is_some_and(|time| *time <= now) {
                queue.pop_front();
            }
        }
        let Direction {
            delay, rate, queue, ..
        } = self.direction;
        if (rate.is_some() && self.waiting.len() >= queue)
            || self.travelling.len() >= MOST_ON_THE_WAY
        {
            return Fate::Overflowed;
        }
        let takes = rate.map_or(0, |rate| {
            (length as u64 * 8).saturating_mul(1_000_000_000) / rate.max(1)
        });
        self.free = self.free.max(now).saturating_add(takes);
        if rate.is_some() {
            self.waiting.push_back(self.free);
        }
        let arrives = self.free.saturating_add(delay);
        self.travelling.push_back(arrives);
        Fate::Arrives(arrives)
    }
}

/// The output step of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014): every bit of the result depends on every bit of
/// `word`, and neighbours have nothing in common.
fn scramble(word: u64) -> u64 {
    let word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const IDEAL: Direction = Direction {
        loss: 0.0,
        delay: 0,
        rate: None,
        queue: 0,
    };

    proptest! {
        #[test]
        fn the_same_seed_loses_the_same_packets_at_any_pace(
            seed in any::<u64>(), loss in 0.0..1.0_f64, gaps in vec(0_u64..1_000_000, 1..200)
        ) {
            let direction = Direction { loss, ..IDEAL };
            let mut slow = Schedule::new(direction, seed);
            let mut fast = Schedule::new(direction, seed);
            let mut now = 0;
            for (number, gap) in (0..).zip(gaps) {
                now += gap;
                let lost = slow.decide(now, 1500) == Fate::Lost;
                prop_assert_eq!(lost, fast.decide(0, 40) == Fate::Lost);
                prop_assert_eq!(lost, slow.loses(number));
            }
        }

        #[test]
        fn packets_come_in_order_after_the_delay_and_not_faster_than_the_rate(
            delay in 0_u64..100_000_000,
            rate in 1_000_000_u64..1_000_000_000,
            packets in vec((0_u64..2_000_000, 40_usize..1500), 1..200),
        ) {
            let direction = Direction { delay, rate: Some(rate), queue: 50, ..IDEAL };
            let mut schedule = Schedule::new(direction, 1);
            let (mut now, mut last) = (0, None);
            for (gap, length) in packets {
                now += gap;
                if let Fate::Arrives(time) = schedule.decide(now, length) {
                    let takes = length as u64 * 8 * 1_000_000_000 / rate;
                    prop_assert!(time >= now + delay + takes);
                    prop_assert!(last.is_none_or(|last| time >= last + takes));
                    last = Some(time);
                }
                prop_assert!(schedule.waiting.len() <= 50);
            }
        }

        #[test]
        fn without_rate_a_packet_takes_the_delay_and_nothing_else(delay in any::<u32>(), now in any::<u32>()) {
            let mut schedule = Schedule::new(Direction { delay: delay.into(), ..IDEAL }, 1);
            let (now, delay) = (u64::from(now), u64::from(delay));
            prop_assert_eq!(schedule.decide(now, 1500), Fate::Arrives(now + delay));
        }
    }

    #[test]
    fn the_share_lost_is_the_share_asked_for() {
        for loss in [0.0, 0.001, 0.01, 0.05, 0.5, 1.0] {
            let schedule = Schedule::new(Direction { loss, ..IDEAL }, 7);
            let lost = (0..1_000_000)
                .filter(|number| schedule.loses(*number))
                .count() as f64;
            // Four standard deviations of a binomial distribution.
            let slack = 4.0 * (1_000_000.0 * loss * (1.0 - loss)).sqrt();
            assert!((lost - 1_000_000.0 * loss).abs() <= slack, "{loss}: {lost}");
        }
    }

    #[test]
    fn what_finds_the_queue_full_is_dropped_and_what_comes_later_is_not() {
        // 8 bits a nanosecond: a byte a nanosecond.
        let rate = Some(8_000_000_000);
        let mut schedule = Schedule::new(
            Direction {
                rate,
                queue: 2,
                ..IDEAL
            },
            1,
        );
        let fates: Vec<Fate> = (0..4).map(|_| schedule.decide(0, 100)).collect();
        let full = Fate::Overflowed;
        assert_eq!(fates, [Fate::Arrives(100), Fate::Arrives(200), full, full]);
        assert_eq!(schedule.decide(100, 100), Fate::Arrives(300));
    }

    #[test]
    fn no_more_packets_are_on_their_way_than_memory_is_meant_for() {
        let mut schedule = Schedule::new(Direction { delay: 1, ..IDEAL }, 1);
        for _ in 0..MOST_ON_THE_WAY {
            assert_eq!(schedule.decide(0, 1), Fate::Arrives(1));
        }
        assert_eq!(schedule.decide(0, 1), Fate::Overflowed);
        assert_eq!(schedule.decide(1, 1), Fate::Arrives(2));
    }
}
