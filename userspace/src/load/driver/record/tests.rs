//! What is counted, and that nothing is lost where not everything is told apart.

use super::*;
use crate::load::arrival::Arrival;

fn recorder() -> Recorder {
    Recorder::new(Instant::now())
}

fn now() -> Start {
    Start {
        intended: Instant::now(),
        late: None,
    }
}

fn answer(backend: usize) -> Answer {
    Answer {
        backend: Some(HeaderValue::from_str(&format!("b{backend}")).unwrap()),
        took: None,
        over: Arrival::now(),
    }
}

fn named(counts: &Counts) -> BTreeMap<String, u64> {
    let each = counts.backends.iter();
    each.map(|backend| {
        let name = backend.name.as_ref().map_or_else(String::new, text);
        (name, backend.latencies().len())
    })
    .collect()
}

#[test]
fn backends_beyond_those_told_apart_are_one_other_backend() {
    let threads = [recorder(), recorder()];
    for backend in 0..BACKENDS {
        threads[0].succeeded(None, &answer(backend), now());
        threads[1].succeeded(None, &answer(BACKENDS + backend), now());
    }
    threads[0].succeeded(None, &answer(BACKENDS), now());
    let mut all = Counts::new();
    threads.iter().for_each(|thread| all.add(&thread.counts()));
    let named = named(&all);
    assert_eq!(named.len(), BACKENDS + 1);
    assert_eq!(named["(other)"], BACKENDS as u64 + 1);
    assert_eq!(named.values().sum::<u64>(), all.ok);
}

#[test]
fn what_is_not_listed_is_counted() {
    let recorder = recorder();
    let address = SocketAddr::from(([127, 0, 0, 1], 80));
    for _ in 0..CONNECTIONS + 2 {
        recorder.opened(0, address, false);
    }
    recorder.opened(0, address, true);
    for cause in 0..CAUSES + 3 {
        let failed = Failed::new(Failure::Connect, cause);
        recorder.failed(None, Instant::now(), failed);
    }
    let mut counts = Counts::new();
    counts.add(&recorder.counts());
    assert_eq!((counts.unlisted, counts.other_causes), (2, 3));
}

#[test]
fn retries_of_the_warm_up_are_not_counted() {
    let recorder = Recorder::new(Instant::now() + Duration::from_secs(1));
    recorder.retried(Instant::now());
    recorder.retried(Instant::now() + Duration::from_secs(2));
    assert_eq!(recorder.counts().retried, 1);
}
