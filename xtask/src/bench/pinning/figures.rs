//! What is read off the visits, and the outcome made of it.

use super::{
    claims::claims,
    expected::Expected,
    plots::{latencies, one_client, over_clients, references},
    stage::{BACKENDS, Visit, backend_name},
    tables::{agreement, table},
    ways::{Point, Weights},
};
use crate::bench::{Context, Outcome, attempts::Attempts};

/// A point with its visits.
pub(super) type Visited = (Point, Vec<Visit>);

/// Figures this close are the same: sums in another order differ by less.
pub(super) const SAME: f64 = 1e-9;
/// What is read off a visit.
pub(super) struct Metric {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) unit: &'static str,
    pub(super) digits: usize,
    pub(super) read: fn(&Visit) -> f64,
}

/// All that is read off a visit; [`METRICS`]`[0]` is the hot factor.
pub(super) static METRICS: [Metric; 5] = [
    Metric {
        id: "hot",
        title: "hot factor",
        unit: "",
        digits: 2,
        read: hot_factor,
    },
    Metric {
        id: "fairness",
        title: "fairness",
        unit: "",
        digits: 3,
        read: fairness,
    },
    Metric {
        id: "p50",
        title: "p50",
        unit: "ms",
        digits: 1,
        read: |visit| visit.latency.p50 as f64 / 1e3,
    },
    Metric {
        id: "p99",
        title: "p99",
        unit: "ms",
        digits: 1,
        read: |visit| visit.latency.p99 as f64 / 1e3,
    },
    Metric {
        id: "p999",
        title: "p99.9",
        unit: "ms",
        digits: 1,
        read: |visit| visit.latency.p999 as f64 / 1e3,
    },
];

/// Why some figures are missing.
pub(super) struct Gaps<'a> {
    /// Why a way was not measured at all.
    pub(super) missing: Option<&'a str>,
    /// What went wrong with the others.
    pub(super) attempts: Attempts,
}

/// Everything.
pub(super) fn outcome(
    visited: &[Visited],
    expected: &[Option<Expected>],
    gaps: &Gaps<'_>,
    context: &Context,
) -> Outcome {
    let clients = clients(visited);
    let rounds = visited.iter().map(|(_, visits)| visits.len());
    let (fewest, most) = (rounds.clone().min().unwrap_or(0), rounds.max().unwrap_or(0));
    let mut tables = Vec::new();
    for weights in Weights::ALL {
        tables.extend(
            METRICS
                .iter()
                .map(|metric| table(metric, visited, weights, &clients, gaps)),
        );
    }
    tables.push(agreement(visited, expected));
    let mut plots = Vec::new();
    for weights in Weights::ALL {
        let mut hot = over_clients(&METRICS[0], visited, weights, false);
        hot.series.extend(references(visited, expected, weights));
        plots.push(hot);
        plots.push(over_clients(&METRICS[0], visited, weights, true));
        plots.push(over_clients(&METRICS[3], visited, weights, false));
    }
    plots.push(one_client(visited));
    plots.push(latencies(visited));
    Outcome {
        tables,
        plots,
        claims: claims(visited, expected)
            .into_iter()
            .chain(gaps.attempts.claim())
            .collect(),
        notes: vec![
            format!(
                "{fewest} to {most} rounds; the seed of a visit follows from {} and its number; connections land by the kernel's \
                 choice of ports and by evenkeel's own seed, which is drawn for each run",
                context.seed
            ),
            "ten backends, each answers 1,500 requests a second at most (6 at once, 4 ms each on average, exponentially \
             distributed) and is asked for 600 if all is level"
                .to_owned(),
            "a client has one connection, with client round_robin one to each backend, with a pool so many; a connection is \
             made when its first request comes. The first requests (1 ms for each connection, 0.1 to 1.2 s) are in no figure; \
             with pools of a thousand clients connections are still made after that, as they would be"
                .to_owned(),
            "bound: no placement of whole connections that carry these streams has a lower hot factor; best known: one is known \
             that has it"
                .to_owned(),
            "L4 hash is nftables (jhash of source address and port, modulo the number of backends): evenkeel's data path has \
             no plain hash"
                .to_owned(),
        ],
        ..Outcome::default()
    }
}

/// Good answers by backend, those without any included.
pub(super) fn loads(visit: &Visit) -> Vec<f64> {
    let of = |index| {
        visit
            .per_backend
            .get(&backend_name(index))
            .copied()
            .unwrap_or(0) as f64
    };
    (0..BACKENDS).map(of).collect()
}

/// Max / mean.
fn hot_factor(visit: &Visit) -> f64 {
    let loads = loads(visit);
    let mean = loads.iter().sum::<f64>() / loads.len() as f64;
    loads.into_iter().fold(0.0, f64::max) / mean.max(f64::MIN_POSITIVE)
}

/// Jain's index.
fn fairness(visit: &Visit) -> f64 {
    let loads = loads(visit);
    let sum: f64 = loads.iter().sum();
    let squares: f64 = loads.iter().map(|load| load * load).sum();
    sum * sum / (loads.len() as f64 * squares).max(f64::MIN_POSITIVE)
}

pub(super) fn samples(metric: &Metric, visits: &[Visit]) -> Vec<f64> {
    visits.iter().map(metric.read).collect()
}

fn clients(visited: &[Visited]) -> Vec<u32> {
    let mut clients: Vec<u32> = visited.iter().map(|(point, _)| point.clients).collect();
    clients.sort_unstable();
    clients.dedup();
    clients
}

pub(super) fn find<'a>(
    visited: &'a [Visited],
    way: &str,
    weights: Weights,
    clients: u32,
) -> Option<&'a Visited> {
    visited.iter().find(|(point, _)| {
        point.way.name == way && point.weights == weights && point.clients == clients
    })
}

/// With a capital letter, to begin a title with.
pub(super) fn capital(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A visit with these answers.
    pub(in super::super) fn visit(answers: &[(&str, u64)]) -> Visit {
        let per_backend: BTreeMap<String, u64> = answers
            .iter()
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect();
        serde_json::from_value(serde_json::json!({
            "failed": 0,
            "per_backend": per_backend,
            "per_connection": [],
            "latency": { "p50": 4000, "p99": 18_000, "p999": 28_000 },
            "histogram": [[1000, 3], [2000, 1]],
        }))
        .expect("a visit")
    }

    #[test]
    fn backends_without_an_answer_count() {
        let pinned = visit(&[("b3", 500)]);
        assert_eq!(hot_factor(&pinned), 10.0);
        assert!((fairness(&pinned) - 0.1).abs() < 1e-9);
    }
}
