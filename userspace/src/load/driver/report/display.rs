//! The result as people read it.

use std::cmp::Reverse;
use std::fmt;

use super::{Connection, Latency, Report};
use crate::load::driver::record::WarmUp;

/// Beyond so many microseconds a client is late by itself: wakeups do not take as long, and what comes on top of it is in the
/// latencies.
const TOO_LATE: u64 = 1_000;

/// Microseconds in the unit that reads best.
pub(in super::super) fn micros(micros: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let value = micros as f64;
    match micros {
        0..1_000 => format!("{micros} us"),
        1_000..1_000_000 => format!("{:.1} ms", value / 1e3),
        _ => format!("{:.2} s", value / 1e6),
    }
}

#[expect(clippy::cast_precision_loss, reason = "a percentage for people")]
fn percent(part: u64, of: u64) -> f64 {
    100.0 * part as f64 / of.max(1) as f64
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            p50,
            p90,
            p99,
            p999,
            max,
            ..
        } = self;
        let [p50, p90, p99, p999, max] = [p50, p90, p99, p999, max].map(|value| micros(*value));
        write!(
            f,
            "p50 {p50}  p90 {p90}  p99 {p99}  p99.9 {p999}  max {max}"
        )
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_summary(f)?;
        self.write_delays(f)?;
        if let Some(schedule) = &self.schedule {
            writeln!(
                f,
                "schedule     {schedule}, latency from the intended start"
            )?;
        }
        self.write_backends(f)?;
        self.write_busiest(f)?;
        self.write_failures(f)?;
        writeln!(f, "seed         {}", self.seed)
    }
}

impl Report {
    /// How many requests, how fast, and how long they took.
    fn write_summary(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            balance,
            requests,
            ok,
            failed,
            retried,
            connections,
            elapsed_seconds,
            rate,
            warm_up,
            latency,
            beyond_backend,
            ..
        } = self;
        writeln!(
            f,
            "requests     {requests} in {elapsed_seconds:.2} s: {ok} ok, {failed} failed, {retried} retried"
        )?;
        if *warm_up != WarmUp::default() {
            let WarmUp { ok, failed } = warm_up;
            writeln!(
                f,
                "warm-up      {ok} ok, {failed} failed, in no other figure"
            )?;
        }
        writeln!(
            f,
            "throughput   {rate:.0} requests/s over {connections} connections, {balance}"
        )?;
        writeln!(f, "latency      {latency}")?;
        if let Some(beyond) = beyond_backend {
            writeln!(
                f,
                "beyond       {beyond}, without the time that backends took"
            )?;
        }
        Ok(())
    }

    /// Who answered.
    fn write_backends(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, count) in &self.per_backend {
            let share = percent(*count, self.ok);
            write!(f, "backend      {name:<16} {count:>10}  {share:5.1} %")?;
            match self.latency_by_backend.get(name) {
                Some(latency) => writeln!(
                    f,
                    "  p50 {}  p99 {}",
                    micros(latency.p50),
                    micros(latency.p99)
                )?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }

    /// Why requests failed.
    fn write_failures(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (cause, count) in &self.causes {
            writeln!(f, "failure      {count:>10} x {cause}")?;
        }
        if self.other_causes > 0 {
            let count = self.other_causes;
            writeln!(
                f,
                "failure      {count:>10} x for other reasons, too many to list"
            )?;
        }
        Ok(())
    }

    /// How late this program was, and whether that matters.
    fn write_delays(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let delays = [
            ("answers read", &self.read_delay),
            ("requests started", &self.start_delay),
        ];
        let known = || {
            let known = |(what, delay): (_, &Option<Latency>)| Some((what, delay.clone()?));
            delays.into_iter().filter_map(known)
        };
        let words: Vec<String> = known()
            .map(|(what, Latency { p50, p99, max, .. })| {
                let [p50, p99, max] = [p50, p99, max].map(micros);
                format!("{what} late by p50 {p50}  p99 {p99}  max {max}")
            })
            .collect();
        if words.is_empty() {
            return Ok(());
        }
        let slow = known().any(|(_, delay)| delay.p99 > TOO_LATE);
        let verdict = if slow {
            ": this client was the bottleneck, unless packets were lost on the way"
        } else {
            ""
        };
        writeln!(f, "client       {}{verdict}", words.join(", "))
    }

    /// The busiest connections, where there are several.
    fn write_busiest(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 3;
        if self.per_connection.len() < 2 {
            return Ok(());
        }
        let mut busiest: Vec<&Connection> = self.per_connection.iter().collect();
        busiest.sort_by_key(|connection| Reverse(connection.ok));
        for connection in busiest.iter().take(SHOWN) {
            let Connection {
                client,
                address,
                ok,
                max,
                ..
            } = connection;
            let share = percent(*ok, self.ok);
            let from = format!("client {client}");
            writeln!(
                f,
                "connection   {from:<16} {ok:>10}  {share:5.1} %  to {address}  max {}",
                micros(*max)
            )?;
        }
        if self.connections_not_listed > 0 {
            let more = self.connections_not_listed;
            writeln!(
                f,
                "connection   {more} more are counted above, but not one by one"
            )?;
        }
        Ok(())
    }
}
