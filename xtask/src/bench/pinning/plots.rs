//! Hot factor and latency over the number of clients, where the streams of one client land, and how long requests take.

use super::{
    expected::Expected,
    figures::{Metric, Visited, capital, find, loads, samples},
    stage::{BACKENDS, Visit, backend_name},
    ways::{MAGLEV, Placement, ROUND_ROBIN, WAYS, Way, Weights},
};
use crate::bench::result::{Axis, Measured, Plot, PlotKind, Point, Series};

/// Shown as a distribution: enough clients to be many, too few to be even.
const SHOWN: u32 = 30;

/// A metric over the number of clients, for who balances or for the sizes of pools.
pub(super) fn over_clients(
    metric: &Metric,
    visited: &[Visited],
    weights: Weights,
    pools: bool,
) -> Plot {
    let shown = |way: &&Way| way.pool == pools || (pools && way.name == MAGLEV);
    let series = WAYS.iter().filter(shown).map(|way| {
        let own = |(point, _): &&Visited| point.way.name == way.name && point.weights == weights;
        let points = visited.iter().filter(own).filter_map(|(point, visits)| {
            let measured = Measured::of(&samples(metric, visits))?;
            Some(Point::measured(f64::from(point.clients), &measured))
        });
        Series {
            name: way.name.to_owned(),
            points: points.collect(),
        }
    });
    let unit = if metric.unit.is_empty() {
        String::new()
    } else {
        format!(" ({})", metric.unit)
    };
    let latency = !metric.unit.is_empty();
    Plot {
        id: format!(
            "{}-over-clients-{}{}",
            metric.id,
            weights.name(),
            if pools { "-pools" } else { "" }
        ),
        title: format!(
            "{} over the number of clients{}, {}",
            capital(metric.title),
            if pools {
                ", with pools of connections"
            } else {
                ""
            },
            weights.about()
        ),
        kind: PlotKind::Lines,
        x: Axis {
            title: "clients".to_owned(),
            logarithmic: true,
            categories: Vec::new(),
        },
        y: Axis {
            title: format!("{}{unit}", metric.title),
            logarithmic: latency,
            categories: Vec::new(),
        },
        series: series.collect(),
    }
}

/// What the hot factor at L4 should be, and what no way of placing whole connections gets below.
pub(super) fn references(
    visited: &[Visited],
    expected: &[Option<Expected>],
    weights: Weights,
) -> [Series; 2] {
    let own = |(point, _): &Visited| point.way.name == MAGLEV && point.weights == weights;
    let own = || {
        let points = visited
            .iter()
            .zip(expected)
            .filter(|(visited, _)| own(visited));
        points.filter_map(|((point, _), expected)| {
            Some((f64::from(point.clients), expected.as_ref()?))
        })
    };
    let simulated = own().map(|(x, expected)| Point {
        x,
        y: expected.median,
        low: expected.low,
        high: expected.high,
    });
    let bound =
        own().filter_map(|(x, expected)| Some(Point::measured(x, &Measured::of(&expected.lower)?)));
    [
        Series {
            name: "L4, simulated".to_owned(),
            points: simulated.collect(),
        },
        Series {
            name: "L4, bound".to_owned(),
            points: bound.collect(),
        },
    ]
}

/// Where the streams of one client land.
pub(super) fn one_client(visited: &[Visited]) -> Plot {
    let shown = [
        "L4 hash (nftables)",
        MAGLEV,
        ROUND_ROBIN,
        "client pick_first",
        "client round_robin",
        "pool of 4 over L4",
    ];
    let series = shown.iter().filter_map(|name| {
        let (_, visits) = find(visited, name, Weights::Equal, 1)?;
        let loads = loads(visits.first()?);
        let all: f64 = loads.iter().sum();
        let points = loads
            .iter()
            .enumerate()
            .map(|(index, load)| Point::new(index as f64, 100.0 * load / all.max(1.0)));
        Some(Series {
            name: (*name).to_owned(),
            points: points.collect(),
        })
    });
    Plot {
        id: "one-client".to_owned(),
        title: "One client: share of its streams by backend, in the first round".to_owned(),
        kind: PlotKind::Bars,
        x: Axis {
            title: "backend".to_owned(),
            logarithmic: false,
            categories: (0..BACKENDS).map(backend_name).collect(),
        },
        y: Axis {
            title: "share of the streams (%)".to_owned(),
            ..Axis::default()
        },
        series: series.collect(),
    }
}

/// How long requests of few busy clients take, all rounds together.
pub(super) fn latencies(visited: &[Visited]) -> Plot {
    let series = WAYS
        .iter()
        .filter(|way| !way.pool && way.placement != Placement::First)
        .filter_map(|way| {
            let (_, visits) = find(visited, way.name, Weights::Zipf, SHOWN)?;
            Some(Series {
                name: way.name.to_owned(),
                points: distribution(visits),
            })
        });
    Plot {
        id: "latency-zipf".to_owned(),
        title: format!("Latency with {SHOWN} clients, {}", Weights::Zipf.about()),
        kind: PlotKind::Cdf,
        x: Axis {
            title: "latency (ms)".to_owned(),
            logarithmic: true,
            categories: Vec::new(),
        },
        y: Axis {
            title: "share of the requests".to_owned(),
            ..Axis::default()
        },
        series: series.collect(),
    }
}

/// The histograms of all visits as one distribution; at most 200 points, which is finer than anybody sees.
fn distribution(visits: &[Visit]) -> Vec<Point> {
    let mut all: Vec<(u64, u64)> = visits
        .iter()
        .flat_map(|visit| visit.histogram.iter().copied())
        .collect();
    all.sort_unstable();
    let total: u64 = all.iter().map(|(_, count)| count).sum();
    let mut seen = 0;
    let mut shown = 0.0;
    let mut points = Vec::new();
    for (index, (micros, count)) in all.iter().enumerate() {
        seen += count;
        let share = seen as f64 / total.max(1) as f64;
        if share - shown >= 0.005 || index + 1 == all.len() {
            shown = share;
            points.push(Point::new(*micros as f64 / 1e3, share));
        }
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::pinning::figures::tests::visit;

    #[test]
    fn a_distribution_ends_at_one() {
        let points = distribution(&[visit(&[]), visit(&[])]);
        let last = points.last().expect("points");
        assert_eq!((last.x, last.y), (2.0, 1.0));
    }
}
