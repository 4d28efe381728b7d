//! What the driver shows while it runs, and what it logs, once a second.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::interval::Interval;
use super::log::{Logs, Span};
use super::plan::{Budget, Plan};
use super::record::Recorder;
use super::report::{Latency, micros};

/// How progress is shown, on standard error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Progress {
    /// Not at all.
    #[default]
    None,
    /// One line, rewritten in place.
    Terminal,
    /// One JSON object a line: `elapsed` since the start in seconds, then `ok`, `failed`, `per_backend` and `latency`
    /// of the interval, and the totals so far.
    Json,
}

const INTERVAL: Duration = Duration::from_secs(1);
/// Backends named in the line on a terminal.
const NAMED: usize = 6;

/// Watches a run: takes the counts of each second, shows and logs them.
pub(super) struct Watch<'a> {
    pub(super) progress: Progress,
    pub(super) plan: &'a Plan,
    pub(super) recorders: &'a [Arc<Recorder>],
    pub(super) logs: Logs,
    pub(super) started: Instant,
    /// End of the last interval, counted from the end of the warm-up.
    logged_to: Duration,
    /// Good and failed requests until then.
    before: (u64, u64),
}

impl<'a> Watch<'a> {
    pub(super) fn new(
        progress: Progress,
        logs: Logs,
        plan: &'a Plan,
        recorders: &'a [Arc<Recorder>],
        started: Instant,
    ) -> Self {
        Self {
            progress,
            plan,
            recorders,
            logs,
            started,
            logged_to: Duration::ZERO,
            before: (0, 0),
        }
    }

    /// Goes on until a log cannot be written.
    pub(super) async fn run(&mut self) -> io::Result<()> {
        let mut ticks = tokio::time::interval_at(self.started + INTERVAL, INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let interval = self.take()?;
            // Nobody may be reading any more; that is no reason to stop the run.
            let _ = match self.progress {
                Progress::None => continue,
                Progress::Terminal => write!(io::stderr(), "\r{}\x1b[K", self.line(&interval)),
                Progress::Json => writeln!(io::stderr(), "{}", self.json(&interval)),
            };
        }
    }

    /// Ends the line that was rewritten in place, and the logs with what happened since the last second.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if self.progress == Progress::Terminal {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
        self.take()?;
        self.logs.finish()
    }

    fn take(&mut self) -> io::Result<Interval> {
        let to = self.started.elapsed().saturating_sub(self.plan.warm_up);
        let interval = Interval::take(self.recorders, &mut self.before);
        if to > self.logged_to {
            let from = std::mem::replace(&mut self.logged_to, to);
            self.logs.write(Span { from, to }, &interval)?;
        }
        Ok(interval)
    }

    fn json(&self, interval: &Interval) -> serde_json::Value {
        serde_json::json!({
            "elapsed": self.started.elapsed().as_secs_f64(),
            "ok": interval.ok,
            "failed": interval.failed,
            "per_backend": interval.per_backend(),
            "latency": Latency::of(&interval.latencies()),
            "total_ok": self.before.0,
            "total_failed": self.before.1,
        })
    }

    fn line(&self, interval: &Interval) -> String {
        let elapsed = self.started.elapsed();
        if let Some(left) = self
            .plan
            .warm_up
            .checked_sub(elapsed)
            .filter(|left| !left.is_zero())
        {
            return format!("warming up, {} s to go", left.as_secs() + 1);
        }
        let elapsed = (elapsed - self.plan.warm_up).as_secs();
        let (ok, failed) = self.before;
        let done = ok + failed;
        let end = self.plan.schedule.as_ref().and_then(super::Schedule::end);
        let of = match (self.plan.budget, end) {
            (Budget::Requests(total), _) if total < u64::MAX => format!("{done}/{total} requests"),
            (Budget::Duration(end), _) | (_, Some(end)) => {
                format!("{done} requests, {elapsed}/{} s", end.as_secs())
            }
            (Budget::Requests(_), None) => format!("{done} requests"),
        };
        let p99 = micros(Latency::of(&interval.latencies()).p99);
        let backends = busiest(&interval.per_backend());
        format!(
            "{of}, {failed} failed | {}/s, p99 {p99} | {backends}",
            interval.ok
        )
    }
}

/// The backends with their counts, as many as fit into a line: by name, or the busiest of many.
fn busiest(per_backend: &BTreeMap<String, u64>) -> String {
    let mut named: Vec<_> = per_backend.iter().collect();
    let more = named.len().saturating_sub(NAMED);
    if more > 0 {
        named.sort_by_key(|(_, ok)| std::cmp::Reverse(**ok));
        named.truncate(NAMED);
    }
    let mut words: Vec<String> = named
        .iter()
        .map(|(name, ok)| format!("{name} {ok}"))
        .collect();
    if more > 0 {
        words.push(format!("and {more} more"));
    }
    words.join("  ")
}
