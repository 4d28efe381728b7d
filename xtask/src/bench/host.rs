//! What the whole host spends: processes, kernel and interrupts alike, whoever they are charged to.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

/// CPU time spent by all processors since boot, in ticks, as /proc/stat counts it.
fn busy_ticks() -> Result<u64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    // user nice system idle iowait irq softirq steal; guests are part of user. See proc_stat(5).
    let ticks: Vec<u64> = line
        .split_whitespace()
        .skip(1)
        .take(8)
        .map_while(|word| word.parse().ok())
        .collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, _steal] = ticks[..] else {
        anyhow::bail!("/proc/stat begins with {line:?}");
    };
    Ok(user + nice + system + irq + softirq)
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
            ticks: busy_ticks()?,
        })
    }

    /// CPU seconds spent since the start, less what the host spends anyway (`idle`, from [`idle`]).
    pub(super) fn stop(self, idle: f64) -> Result<f64> {
        let ticks = busy_ticks()?.saturating_sub(self.ticks);
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
