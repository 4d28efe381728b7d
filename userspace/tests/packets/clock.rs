//! The data path's clock.

use rustix::time::{ClockId, Timespec, clock_getres, clock_gettime};

use super::{CLIENT, SERVICE, from_client};
use crate::wire::{RST, SYN};
use crate::world::{BOTH, Setup, World, tuple};

fn ns(time: Timespec) -> u64 {
    u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).expect("not negative")
}

fn now() -> u64 {
    ns(clock_gettime(ClockId::MonotonicCoarse))
}

/// ns of a tick.
fn tick() -> u32 {
    let tick = ns(clock_getres(ClockId::MonotonicCoarse));
    u32::try_from(tick).expect("less than four seconds")
}

#[test]
fn it_is_the_monotonic_one_whether_it_counts_ticks_or_asks() {
    for hook in BOTH {
        for tick_ns in [0, tick()] {
            let mut world = World::new(hook, Setup::default());
            world.keep_time(tick_ns);
            let before = now();
            world.send(&from_client(SYN).frame());
            let after = now();
            let flow = world.flow(tuple(CLIENT, SERVICE)).expect("the flow");
            // The tick may come between the reading of one clock and of the other.
            let tick = u64::from(tick());
            assert!(
                (before - tick..=after + tick).contains(&flow.last_seen),
                "{hook:?}, tick {tick_ns}: {before} <= {} <= {after}",
                flow.last_seen
            );
        }
    }
}

#[test]
fn setting_it_again_moves_it_by_a_tick_at_most() {
    for hook in BOTH {
        let mut world = World::new(hook, Setup::default());
        let mut last = 0;
        for _ in 0..20 {
            world.keep_time(tick());
            world.send(&from_client(SYN).frame());
            let flow = world.flow(tuple(CLIENT, SERVICE)).expect("the flow");
            world.send(&from_client(RST).frame());
            assert!(
                flow.last_seen + u64::from(tick()) >= last,
                "{hook:?}: {} after {last}",
                flow.last_seen
            );
            last = flow.last_seen;
        }
    }
}
