//! What the whole host spends: processes, kernel and interrupts alike, whoever they are charged to.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

/// What /proc/stat says of all processors since boot, in ticks.
#[derive(Clone, Copy)]
struct Ticks {
    /// Spent by anybody in this machine.
    busy: u64,
    /// Given to others by the hypervisor, while somebody here could have used it.
    stolen: u64,
    all: u64,
}

impl Ticks {
    fn now() -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        Self::of(stat.lines().next().context("/proc/stat is empty")?)
    }

    fn of(line: &str) -> Result<Self> {
        // user nice system idle iowait irq softirq steal; guests are part of user. See proc_stat(5).
        let ticks: Vec<u64> = line
            .split_whitespace()
            .skip(1)
            .take(8)
            .map_while(|word| word.parse().ok())
            .collect();
        let [user, nice, system, _idle, _iowait, irq, softirq, stolen] = ticks[..] else {
            anyhow::bail!("/proc/stat begins with {line:?}");
        };
        Ok(Self {
            busy: user + nice + system + irq + softirq,
            stolen,
            all: ticks.iter().sum(),
        })
    }

    /// Share of the time of all processors that was stolen since `before`.
    fn stolen_since(self, before: Self) -> f64 {
        let all = self.all.saturating_sub(before.all).max(1);
        self.stolen.saturating_sub(before.stolen) as f64 / all as f64
    }
}

/// A tick of /proc/stat: USER_HZ is 100 on every architecture that we know.
const TICK: Duration = Duration::from_millis(10);

/// A running measurement.
pub(super) struct Stopwatch {
    begun: Instant,
    ticks: u64,
}

impl Stopwatch {
    pub(super) fn start() -> Result<Self> {
        Ok(Self {
            begun: Instant::now(),
            ticks: Ticks::now()?.busy,
        })
    }

    /// CPU seconds spent since the start, less what the host spends anyway (`idle`, from [`idle`]).
    pub(super) fn stop(self, idle: f64) -> Result<f64> {
        let ticks = Ticks::now()?.busy.saturating_sub(self.ticks);
        let spent = TICK.as_secs_f64() * ticks as f64;
        Ok((spent - idle * self.begun.elapsed().as_secs_f64()).max(0.0))
    }
}

/// CPU seconds per second that the host spends while nothing is measured.
pub(super) fn idle() -> Result<f64> {
    const OBSERVED: Duration = Duration::from_secs(2);
    let watch = Stopwatch::start()?;
    thread::sleep(OBSERVED);
    Ok(watch.stop(0.0)? / OBSERVED.as_secs_f64())
}

/// Does `work`, and says what share of the time of all processors the hypervisor gave to others meanwhile.
pub(super) fn stolen<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, f64)> {
    let before = Ticks::now()?;
    let done = work()?;
    Ok((done, Ticks::now()?.stolen_since(before)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_stolen_is_a_share_of_the_time_of_all_processors() -> Result<()> {
        let before = Ticks::of("cpu  100 10 50 1000 5 0 20 30 0 0")?;
        let after = Ticks::of("cpu  150 10 60 1020 5 0 25 45 0 0")?;
        let seen = after.stolen_since(before);
        assert!((seen - 0.15).abs() < 1e-9, "{seen}");
        assert_eq!(after.busy - before.busy, 65);
        Ok(())
    }

    #[test]
    fn where_no_tick_passed_nothing_was_stolen() -> Result<()> {
        let ticks = Ticks::of("cpu  100 10 50 1000 5 0 20 30 0 0")?;
        assert!(ticks.stolen_since(ticks).abs() < 1e-9);
        Ok(())
    }

    #[test]
    fn a_line_that_is_not_of_processors_is_told() {
        let failed = Ticks::of("intr 1 2 3").err().map(|error| error.to_string());
        assert_eq!(
            failed.as_deref(),
            Some("/proc/stat begins with \"intr 1 2 3\"")
        );
    }
}
