//! What happened in one second of a run, for those who watch it and for the logs.

use std::collections::BTreeMap;
use std::sync::Arc;

use hdrhistogram::Histogram;

use super::record::{Recorder, add, histogram};

/// What happened since the last interval was taken.
pub(super) struct Interval {
    pub(super) ok: u64,
    pub(super) failed: u64,
    /// By name; `None` answers that named none.
    pub(super) backends: BTreeMap<Option<String>, Histogram<u64>>,
}

// === impl Interval ===

impl Interval {
    /// What all threads did since the last one was taken; `before` are the good and the failed requests then.
    pub(super) fn take(recorders: &[Arc<Recorder>], before: &mut (u64, u64)) -> Self {
        let mut backends = BTreeMap::new();
        let mut now = (0, 0);
        for recorder in recorders {
            let mut counts = recorder.counts();
            counts.take_recent(&mut backends);
            now = (now.0 + counts.ok, now.1 + counts.failed);
        }
        let before = std::mem::replace(before, now);
        Self {
            ok: now.0 - before.0,
            failed: now.1 - before.1,
            backends,
        }
    }

    /// Good answers by the backend that gave them.
    pub(super) fn per_backend(&self) -> BTreeMap<String, u64> {
        let named = self.backends.iter();
        named
            .filter_map(|(name, latencies)| Some((name.clone()?, latencies.len())))
            .collect()
    }

    /// All latencies.
    pub(super) fn latencies(&self) -> Histogram<u64> {
        let mut all = histogram();
        self.backends
            .values()
            .for_each(|latencies| add(&mut all, latencies));
        all
    }
}
