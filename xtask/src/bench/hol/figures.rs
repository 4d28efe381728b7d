//! Tables and plots of head-of-line blocking.

use super::{
    Cell as Point3, RTTS, Visited, again,
    claims::claims,
    stage::{DOWNLOAD, QUEUE, RATE, SMALL, Way},
};
use crate::bench::{
    Context, Outcome,
    attempts::Attempts,
    result::{Axis, Cell, Column, Measured, Plot, PlotKind, Point, Row, Series, Table},
};

/// The round-trip time of the plots that show only one.
const TYPICAL_RTT: u64 = 50;
/// The loss of the plots that show only one.
const TYPICAL_LOSS: f64 = 0.01;
/// Points of a cumulative distribution.
const STEPS: usize = 200;

pub(super) fn outcome(visited: &Visited, context: &Context) -> Outcome {
    let Visited {
        grid: cells,
        again,
        attempts,
    } = visited;
    let mut tables = Vec::new();
    for rtt in RTTS {
        let of = |id: &str, what: &str, read: &dyn Fn(&Point3) -> Cell| {
            table(cells, rtt, id, what, read)
        };
        tables.push(of("p99", "p99 of the small requests, ms", &|cell| {
            quantile(cell, attempts, 0.99)
        }));
        tables.push(of("p50", "p50 of the small requests, ms", &|cell| {
            quantile(cell, attempts, 0.5)
        }));
        tables.push(of(
            "download",
            "Time of 10 MB at the download's speed, s",
            &|cell| attempts.cell(&cell.name(), &downloads_of(cell)),
        ));
    }
    tables.extend(again::table(again));
    let mut plots: Vec<Plot> = RTTS.iter().map(|rtt| over_pool(cells, *rtt)).collect();
    plots.extend(RTTS.iter().map(|rtt| over_loss(cells, *rtt)));
    plots.push(distribution(cells));
    plots.push(downloads(cells));
    Outcome {
        tables,
        plots,
        claims: claims(visited, context)
            .into_iter()
            .chain(attempts.claim())
            .collect(),
        notes: notes(cells, context)
            .into_iter()
            .chain(again::seeds(again))
            .collect(),
        ..Outcome::default()
    }
}

fn notes(cells: &[Point3], context: &Context) -> Vec<String> {
    let rounds = cells
        .iter()
        .map(|cell| cell.visits.len())
        .min()
        .unwrap_or(0);
    let unfinished: u64 = cells
        .iter()
        .flat_map(|cell| &cell.visits)
        .map(|visit| visit.unfinished)
        .sum();
    let asked: usize = cells
        .iter()
        .flat_map(|cell| &cell.visits)
        .map(|visit| visit.latencies.len())
        .sum();
    let http1 = cells
        .iter()
        .filter(|cell| cell.way == Way::Http1)
        .flat_map(|cell| &cell.visits)
        .map(|visit| visit.connections)
        .max()
        .unwrap_or(0);
    vec![
        format!(
            "{rounds} rounds; link of {} Mbit/s with a queue of {QUEUE} packets in each direction; loss in each \
             direction, by a seeded relay: in a round every way loses the same packet numbers. Seeds {} to {}.",
            RATE / 1_000_000,
            context.seed,
            context.seed + rounds.saturating_sub(1) as u64
        ),
        format!(
            "{} small requests a second of {} bytes, open loop: latency counts from the intended start. {unfinished} \
             of {asked} had no answer a second after their visit; those count with their age then, a lower bound.",
            SMALL.0, SMALL.1
        ),
        "Congestion control is cubic on both ends, by route for TCP and set in quinn for QUIC, whose cubic is quinn's \
         own; TCP keeps no metrics from visit to visit, and tcp_notsent_lowat is 128 KiB, or small answers would wait \
         behind the download in the server's own socket. HTTP/3 alone is encrypted."
            .to_owned(),
        format!(
            "HTTP/1.1 made up to {http1} connections, as many as requests overlapped. Downloads of 10 MB follow each \
             other; their time is what 10 MB take at the speed of a whole visit, a figure for each visit: of those that \
             end within it only the fast ones would count. The three round-trip times are visited side by side, on one \
             machine."
        ),
    ]
}

fn percent(loss: f64) -> String {
    format!("{} %", loss * 100.0)
}

fn losses(cells: &[Point3]) -> Vec<f64> {
    let mut losses: Vec<f64> = cells.iter().map(|cell| cell.loss).collect();
    losses.sort_by(f64::total_cmp);
    losses.dedup();
    losses
}

/// The ways, in the order that they were listed in.
fn ways(cells: &[Point3]) -> Vec<Way> {
    let mut ways = Vec::new();
    for cell in cells {
        if !ways.contains(&cell.way) {
            ways.push(cell.way);
        }
    }
    ways
}

fn find(cells: &[Point3], rtt: u64, loss: f64, way: Way) -> Option<&Point3> {
    cells
        .iter()
        .find(|cell| cell.rtt == rtt && cell.loss == loss && cell.way == way)
}

fn samples(cell: &Point3, quantile: f64) -> Vec<f64> {
    // A visit in which no small request began has none to tell of.
    let visits = cell.visits.iter().map(|visit| visit.quantile(quantile));
    visits.filter(|figure| figure.is_finite()).collect()
}

/// A quantile of the small requests, in milliseconds.
pub(super) fn measured(cell: &Point3, quantile: f64) -> Option<Measured> {
    Measured::of(&samples(cell, quantile))
}

fn quantile(cell: &Point3, attempts: &Attempts, quantile: f64) -> Cell {
    attempts.cell(&cell.name(), &samples(cell, quantile))
}

/// Seconds that a download takes at the speed of each visit. Not those of downloads that ended: how many do depends on
/// how long they take, and the slow ones would be left out.
fn downloads_of(cell: &Point3) -> Vec<f64> {
    let visits = cell.visits.iter();
    visits
        .map(|visit| DOWNLOAD as f64 * 8.0 / 1e6 / visit.goodput().max(1e-3))
        .collect()
}

fn table(
    cells: &[Point3],
    rtt: u64,
    id: &str,
    what: &str,
    read: &dyn Fn(&Point3) -> Cell,
) -> Table {
    let losses = losses(cells);
    Table {
        id: format!("{id}-{rtt}ms"),
        title: format!("{what}, over a link of {rtt} ms round trip"),
        of: "way".to_owned(),
        columns: losses
            .iter()
            .map(|loss| Column::new(&format!("{} lost", percent(*loss)), "", 1))
            .collect(),
        rows: ways(cells)
            .into_iter()
            .map(|way| {
                let cells = losses
                    .iter()
                    .map(|loss| find(cells, rtt, *loss, way).map_or(Cell::Empty, read))
                    .collect();
                Row::new(way.name(), cells)
            })
            .collect(),
    }
}

fn axis(title: &str, logarithmic: bool) -> Axis {
    Axis {
        title: title.to_owned(),
        logarithmic,
        categories: Vec::new(),
    }
}

/// p99 of a pool of HTTP/2 connections, over its size; HTTP/3 has a pool of one.
fn over_pool(cells: &[Point3], rtt: u64) -> Plot {
    let series = losses(cells)
        .into_iter()
        .map(|loss| {
            let points = cells.iter().filter_map(|cell| match cell.way {
                Way::Http2(size) if cell.rtt == rtt && cell.loss == loss => {
                    Some(Point::measured(size as f64, &measured(cell, 0.99)?))
                }
                _ => None,
            });
            Series {
                name: format!("{} lost", percent(loss)),
                points: points.collect(),
            }
        })
        .collect();
    Plot {
        id: format!("pool-{rtt}ms"),
        title: format!(
            "Small requests beside a download, over the size of the HTTP/2 pool, {rtt} ms"
        ),
        kind: PlotKind::Lines,
        x: axis("connections", true),
        y: axis("p99, ms", true),
        series,
    }
}

/// p99 of every way, over the loss.
fn over_loss(cells: &[Point3], rtt: u64) -> Plot {
    per_way(
        cells,
        rtt,
        (
            format!("loss-{rtt}ms"),
            format!("Small requests beside a download, over the loss, {rtt} ms"),
        ),
        "p99, ms",
        &|cell| measured(cell, 0.99),
    )
}

/// Time of the download of every way, over the loss.
fn downloads(cells: &[Point3]) -> Plot {
    per_way(
        cells,
        TYPICAL_RTT,
        (
            "download".to_owned(),
            format!("The download itself, over the loss, {TYPICAL_RTT} ms"),
        ),
        "s for 10 MB at the speed seen",
        &|cell| Measured::of(&downloads_of(cell)),
    )
}

fn per_way(
    cells: &[Point3],
    rtt: u64,
    (id, title): (String, String),
    y: &str,
    read: &dyn Fn(&Point3) -> Option<Measured>,
) -> Plot {
    let series = ways(cells)
        .into_iter()
        .map(|way| Series {
            name: way.name(),
            points: losses(cells)
                .into_iter()
                .filter_map(|loss| {
                    let cell = find(cells, rtt, loss, way)?;
                    Some(Point::measured(loss * 100.0, &read(cell)?))
                })
                .collect(),
        })
        .collect();
    Plot {
        id,
        title,
        kind: PlotKind::Lines,
        x: axis("packets lost, %", false),
        y: axis(y, true),
        series,
    }
}

/// All small requests of every way at the typical loss and round-trip time.
fn distribution(cells: &[Point3]) -> Plot {
    let series = ways(cells)
        .into_iter()
        .filter_map(|way| {
            let cell = find(cells, TYPICAL_RTT, TYPICAL_LOSS, way)?;
            let mut all: Vec<u64> = cell
                .visits
                .iter()
                .flat_map(|visit| visit.latencies.iter().copied())
                .collect();
            all.sort_unstable();
            let points = (1..=STEPS).filter_map(|step| {
                let at = (all.len() * step / STEPS).saturating_sub(1);
                let share = step as f64 / STEPS as f64;
                Some(Point::new(*all.get(at)? as f64 / 1e3, share))
            });
            Some(Series {
                name: way.name(),
                points: points.collect(),
            })
        })
        .collect();
    Plot {
        id: "distribution".to_owned(),
        title: format!(
            "Small requests beside a download, {TYPICAL_RTT} ms, {} lost",
            percent(TYPICAL_LOSS)
        ),
        kind: PlotKind::Cdf,
        x: axis("ms", true),
        y: axis("share of requests", false),
        series,
    }
}

#[cfg(test)]
mod tests {
    use super::{super::stage::Visit, *};

    #[test]
    fn a_download_that_outlasts_its_visit_counts_like_one_that_ended() {
        let visit = |downloaded| Visit {
            downloaded,
            seconds: 4.0,
            ..Visit::default()
        };
        let cell = Point3 {
            rtt: 10,
            loss: 0.01,
            way: Way::Http3,
            visits: vec![visit(20_000_000), visit(1_000_000)],
        };
        assert_eq!(downloads_of(&cell), [2.0, 40.0]);
    }
}
