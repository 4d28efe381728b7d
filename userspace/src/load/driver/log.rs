//! Files for other programs: a row for each second and backend (CSV), and a histogram for each (HdrHistogram's log).
//!
//! Both hold every backend by name and all of them together: `backend` is empty there in the CSV file, and the histogram
//! has no tag; `(other)` is all backends beyond the first 1,024. Times are seconds since the end of the warm-up; the log's
//! `BaseTime` says when that was. Latencies are in microseconds, but for the log's third column, the longest one, which is
//! in milliseconds as that format wants it.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{
    IntervalLogWriterBuilder, IntervalLogWriterError, Tag,
};
use serde::{Deserialize, Serialize};

use super::interval::Interval;
use super::report::Latency;

/// Where a run is logged.
#[derive(Default)]
pub struct Logs {
    csv: Option<csv::Writer<Box<dyn Write>>>,
    hdr: Option<Hdr>,
}

struct Hdr {
    to: Box<dyn Write>,
    serializer: V2DeflateSerializer,
    /// The head was written.
    begun: bool,
}

/// From when to when, counted from the end of the warm-up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) from: Duration,
    pub(super) to: Duration,
}

/// A row of the CSV file.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Row {
    /// Start and end of the interval, in seconds.
    from: f64,
    to: f64,
    /// Empty for all of them together.
    backend: String,
    ok: u64,
    /// Known for all together only.
    failed: Option<u64>,
    rate: f64,
    min_us: u64,
    mean_us: f64,
    p50_us: u64,
    p90_us: u64,
    p99_us: u64,
    p999_us: u64,
    max_us: u64,
}

// === impl Logs ===

impl Logs {
    /// Logs to the files named; an existing one is replaced.
    pub fn create(csv: Option<&Path>, hdr: Option<&Path>) -> io::Result<Self> {
        let create = |path: &Path| -> io::Result<Box<dyn Write>> {
            let file = File::create(path).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", path.display()))
            })?;
            Ok(Box::new(BufWriter::new(file)))
        };
        let (csv, hdr) = (csv.map(create).transpose()?, hdr.map(create).transpose()?);
        Ok(Self::new(csv, hdr))
    }

    /// Logs to writers.
    #[must_use]
    pub fn new(csv: Option<Box<dyn Write>>, hdr: Option<Box<dyn Write>>) -> Self {
        Self {
            csv: csv.map(csv::Writer::from_writer),
            hdr: hdr.map(|to| Hdr {
                to,
                serializer: V2DeflateSerializer::new(),
                begun: false,
            }),
        }
    }

    pub(super) fn write(&mut self, span: Span, interval: &Interval) -> io::Result<()> {
        if self.csv.is_none() && self.hdr.is_none() {
            return Ok(());
        }
        let all = interval.latencies();
        if let Some(csv) = &mut self.csv {
            csv.serialize(Row::new(span, "", &all, Some(interval.failed)))?;
            for (name, latencies) in &interval.backends {
                if let Some(name) = name {
                    csv.serialize(Row::new(span, name, latencies, None))?;
                }
            }
            csv.flush()?;
        }
        if let Some(hdr) = &mut self.hdr {
            hdr.write(span, &all, interval)?;
        }
        Ok(())
    }

    pub(super) fn finish(self) -> io::Result<()> {
        if let Some(mut csv) = self.csv {
            csv.flush()?;
        }
        if let Some(mut hdr) = self.hdr {
            hdr.to.flush()?;
        }
        Ok(())
    }
}

// === impl Hdr ===

impl Hdr {
    fn write(&mut self, span: Span, all: &Histogram<u64>, interval: &Interval) -> io::Result<()> {
        /// Microseconds in the histograms, milliseconds in the column of the longest.
        const MICROS_PER_MILLI: f64 = 1000.0;
        let mut builder = IntervalLogWriterBuilder::new();
        builder.with_max_value_divisor(MICROS_PER_MILLI);
        if !self.begun {
            builder
                .add_comment("[Histogram log format version 1.3]")
                .add_comment("latency in microseconds; tags are backends, without a tag: all")
                .with_base_time(SystemTime::now() - span.to);
        }
        let failed = |error: IntervalLogWriterError<_>| io::Error::other(format!("{error:?}"));
        let mut lines = Vec::new();
        let mut writer = builder.begin_log_with(&mut lines, &mut self.serializer)?;
        let lasts = span.to - span.from;
        writer
            .write_histogram(all, span.from, lasts, None)
            .map_err(failed)?;
        for (name, latencies) in &interval.backends {
            let Some(name) = name else { continue };
            let name = taggable(name);
            writer
                .write_histogram(latencies, span.from, lasts, Tag::new(&name))
                .map_err(failed)?;
        }
        // The writer borrows what it writes to, so there is one for each interval; the head is wanted once.
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            if !self.begun || !line.starts_with(b"#") {
                self.to.write_all(line)?;
            }
        }
        self.begun = true;
        self.to.flush()
    }
}

/// What the format cannot have in a tag, replaced.
fn taggable(name: &str) -> String {
    name.replace([',', ' ', '\n', '\r'], "_")
}

// === impl Row ===

impl Row {
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    fn new(
        Span { from, to }: Span,
        backend: &str,
        latencies: &Histogram<u64>,
        failed: Option<u64>,
    ) -> Self {
        let Latency {
            unit: _,
            min,
            mean,
            p50,
            p90,
            p99,
            p999,
            max,
        } = Latency::of(latencies);
        Self {
            from: from.as_secs_f64(),
            to: to.as_secs_f64(),
            backend: backend.to_owned(),
            ok: latencies.len(),
            failed,
            rate: latencies.len() as f64 / (to - from).as_secs_f64(),
            min_us: min,
            mean_us: mean,
            p50_us: p50,
            p90_us: p90,
            p99_us: p99,
            p999_us: p999,
            max_us: max,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeMap;
    use std::rc::Rc;

    use base64::Engine as _;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::super::record::histogram;
    use super::*;

    /// A file that can be read while it is written.
    #[derive(Clone, Default)]
    struct Shared(Rc<RefCell<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn interval(latencies: &[(Option<&str>, &[u64])], failed: u64) -> Interval {
        let mut backends = BTreeMap::new();
        for (name, values) in latencies {
            let mut latencies = histogram();
            for value in *values {
                latencies.record(*value).unwrap();
            }
            backends.insert(name.map(str::to_owned), latencies);
        }
        let ok = backends.values().map(Histogram::len).sum();
        Interval {
            ok,
            failed,
            backends,
        }
    }

    /// Two seconds of two backends, one of which has a name that CSV must quote and a tag cannot have.
    fn logged() -> (Vec<u8>, Vec<u8>) {
        let (csv, hdr) = (Shared::default(), Shared::default());
        let boxed = |shared: &Shared| -> Option<Box<dyn Write>> { Some(Box::new(shared.clone())) };
        let mut logs = Logs::new(boxed(&csv), boxed(&hdr));
        let seconds = |from, to| Span {
            from: Duration::from_secs(from),
            to: Duration::from_secs(to),
        };
        let first = interval(&[(Some("a, \"b\""), &[100, 300]), (None, &[700])], 2);
        logs.write(seconds(0, 1), &first).unwrap();
        let second = interval(&[(Some("c"), &[5000])], 0);
        logs.write(seconds(1, 2), &second).unwrap();
        logs.finish().unwrap();
        (csv.0.take(), hdr.0.take())
    }

    #[test]
    fn the_csv_file_reads_back_as_what_was_logged() {
        let (csv, _) = logged();
        let rows: Vec<Row> = csv::Reader::from_reader(csv.as_slice())
            .deserialize()
            .collect::<Result<_, _>>()
            .unwrap();
        let seen: Vec<_> = rows
            .iter()
            .map(|row| (row.to, row.backend.as_str(), row.ok, row.failed, row.max_us))
            .collect();
        assert_eq!(
            seen,
            [
                (1.0, "", 3, Some(2), 700),
                (1.0, "a, \"b\"", 2, None, 300),
                (2.0, "", 1, Some(0), 5003),
                (2.0, "c", 1, None, 5003),
            ]
        );
    }

    #[test]
    fn the_histogram_log_reads_back_as_what_was_logged() {
        let (_, hdr) = logged();
        let mut deserializer = Deserializer::new();
        let mut seen = Vec::new();
        let mut heads = 0;
        for entry in IntervalLogIterator::new(&hdr) {
            let LogEntry::Interval(line) = entry.expect("a line of the format") else {
                heads += 1;
                continue;
            };
            let encoded = line.encoded_histogram();
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(encoded)
                .unwrap();
            let latencies: Histogram<u64> =
                deserializer.deserialize(&mut bytes.as_slice()).unwrap();
            let tag = line.tag().map(|tag| tag.as_str().to_owned());
            seen.push((
                line.start_timestamp().as_secs(),
                tag,
                latencies.len(),
                line.max(),
            ));
        }
        assert_eq!(heads, 1, "the base time, once");
        let tag = |name: &str| Some(name.to_owned());
        assert_eq!(
            seen,
            [
                (0, None, 3, 0.7),
                (0, tag("a__\"b\""), 2, 0.3),
                (1, None, 1, 5.003),
                (1, tag("c"), 1, 5.003),
            ]
        );
    }
}
