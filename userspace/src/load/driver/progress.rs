//! What the driver shows while it runs, once a second on standard error.

use std::io::Write as _;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::MissedTickBehavior;

use super::plan::{Budget, Plan};
use super::record::Recorder;
use super::report::micros;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Not at all.
    None,
    /// One line, rewritten in place.
    Terminal,
    /// One JSON object a line: `elapsed` since the start in seconds, then `ok`, `failed`, `per_backend` and `latency`
    /// of the interval, and the totals so far.
    Json,
}

const INTERVAL: Duration = Duration::from_secs(1);

/// Shows progress for ever; dropped when the run ends.
pub(super) async fn show(progress: Progress, plan: &Plan, recorder: &Rc<Recorder>) {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + INTERVAL, INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        // Nobody may be reading any more; that is no reason to stop the run.
        let _ = match progress {
            Progress::None => continue,
            Progress::Terminal => write!(
                std::io::stderr(),
                "\r{}\x1b[K",
                terminal_line(plan, recorder)
            ),
            Progress::Json => writeln!(std::io::stderr(), "{}", json_line(recorder)),
        };
    }
}

/// Ends the line that was rewritten in place.
pub(super) fn finish(progress: Progress) {
    if progress == Progress::Terminal {
        let _ = write!(std::io::stderr(), "\r\x1b[K");
    }
}

fn json_line(recorder: &Recorder) -> serde_json::Value {
    let interval = recorder.take_interval();
    serde_json::json!({
        "elapsed": recorder.started.elapsed().as_secs_f64(),
        "ok": interval.ok,
        "failed": interval.failed,
        "per_backend": interval.per_backend,
        "latency": interval.latency(),
        "total_ok": recorder.ok.get(),
        "total_failed": recorder.failed.get(),
    })
}

fn terminal_line(plan: &Plan, recorder: &Recorder) -> String {
    let interval = recorder.take_interval();
    let elapsed = recorder.started.elapsed().as_secs();
    let (done, failed) = (
        recorder.ok.get() + recorder.failed.get(),
        recorder.failed.get(),
    );
    let of = match plan.budget {
        Budget::Requests(total) => format!("{done}/{total} requests"),
        Budget::Duration(duration) => {
            format!("{done} requests, {elapsed}/{} s", duration.as_secs())
        }
    };
    let backends: Vec<String> = interval
        .per_backend
        .iter()
        .map(|(name, ok)| format!("{name} {ok}"))
        .collect();
    let p99 = micros(interval.latency().p99);
    format!(
        "{of}, {failed} failed | {}/s, p99 {p99} | {}",
        interval.ok,
        backends.join("  ")
    )
}
