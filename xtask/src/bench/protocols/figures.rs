//! The trade-off table, and what is drawn and claimed of it.

use super::{
    Place, Seen, Share,
    balanced::{CONNECTIONS, QUIC_RATE, middle},
    link::{LOSS, RATE, RTT},
};
use crate::bench::{
    Outcome,
    attempts::Attempts,
    result::{Axis, Cell, Claim, Column, Measured, Plot, PlotKind, Point, Row, Series, Table},
};

/// What the cells of a protocol that runs over UDP wait for.
const WANTS: &str = "UDP services";

/// What is drawn of a protocol.
type Read = fn(&Seen) -> Vec<f64>;

pub(super) fn outcome(all: &[Seen], attempts: &Attempts) -> Outcome {
    Outcome {
        tables: vec![table(all, attempts)],
        plots: vec![fairness(all), latency(all)],
        claims: claims(all).into_iter().chain(attempts.claim()).collect(),
        notes: vec![
            format!(
                "Connections, fairness and cost: one client behind evenkeel, four backends, in a closed loop of \
                 {CONNECTIONS} requests at once (HTTP/1.1 and WebSocket: as many connections, each with the next \
                 request when the last is answered; a WebSocket message of 1 KB and its echo are a request; HTTP/3: \
                 {QUIC_RATE} requests a second). Cost is the CPU of evenkeel's own process at l7; at l4 it has no \
                 part in a request, and what the kernel spends is in peers-l4."
            ),
            format!(
                "p99: no balancer, {RATE} requests a second of 1 KB, open loop, {RTT} ms round trip; lossy: {} % of \
                 packets in each direction, by seed; cubic everywhere. HTTP/3 alone is encrypted.",
                LOSS * 100.0
            ),
        ],
        ..Outcome::default()
    }
}

/// The figures; why they are missing; or that evenkeel cannot do it yet.
fn shares(place: Place, seen: &Seen, attempts: &Attempts, read: fn(&Share) -> f64) -> Cell {
    let shares = match place {
        Place::L4 => &seen.l4,
        Place::L7 | Place::Clean | Place::Lossy => &seen.l7,
    };
    let samples: Vec<f64> = shares.iter().map(read).collect();
    match attempts.cell(&place.of(seen.protocol), &samples) {
        Cell::Empty => Cell::NotYet {
            wants: WANTS.to_owned(),
        },
        cell => cell,
    }
}

/// How many connections one client made, for how many requests.
fn model(seen: &Seen, attempts: &Attempts) -> Cell {
    if seen.l4.is_empty() {
        return shares(Place::L4, seen, attempts, |share| share.connections);
    }
    let connections = middle(&seen.l4, |share| share.connections);
    let requests = middle(&seen.l4, |share| share.requests);
    let noun = if connections == 1.0 {
        "connection"
    } else {
        "connections"
    };
    Cell::text(format!(
        "{connections:.0} {noun} for {requests:.0} requests"
    ))
}

fn table(all: &[Seen], attempts: &Attempts) -> Table {
    Table {
        id: "trade-offs".to_owned(),
        title: "What each protocol trades".to_owned(),
        of: "protocol".to_owned(),
        columns: vec![
            Column::new("connection model", "", 0),
            Column::new("fairness at l4", "", 2),
            Column::new("fairness at l7", "", 2),
            Column::new("p99 clean", "ms", 1),
            Column::new("p99 lossy", "ms", 1),
            Column::new("cost per request at l7", "us", 1),
        ],
        rows: all
            .iter()
            .map(|seen| {
                let cells = vec![
                    model(seen, attempts),
                    shares(Place::L4, seen, attempts, |share| share.fairness),
                    shares(Place::L7, seen, attempts, |share| share.fairness),
                    attempts.cell(&Place::Clean.of(seen.protocol), &seen.clean),
                    attempts.cell(&Place::Lossy.of(seen.protocol), &seen.lossy),
                    shares(Place::L7, seen, attempts, |share| share.cost),
                ];
                Row::new(seen.protocol.name(), cells)
            })
            .collect(),
    }
}

fn names(all: &[Seen]) -> Axis {
    Axis {
        title: "protocol".to_owned(),
        logarithmic: false,
        categories: all
            .iter()
            .map(|seen| seen.protocol.name().to_owned())
            .collect(),
    }
}

fn bars(all: &[Seen], (id, title, y): (&str, &str, &str), what: [(&str, Read); 2]) -> Plot {
    Plot {
        id: id.to_owned(),
        title: title.to_owned(),
        kind: PlotKind::Bars,
        x: names(all),
        y: Axis {
            title: y.to_owned(),
            ..Axis::default()
        },
        series: what
            .into_iter()
            .map(|(name, read)| Series {
                name: name.to_owned(),
                points: all
                    .iter()
                    .enumerate()
                    .filter_map(|(at, seen)| {
                        Some(Point::measured(at as f64, &Measured::of(&read(seen))?))
                    })
                    .collect(),
            })
            .collect(),
    }
}

fn fairness(all: &[Seen]) -> Plot {
    bars(
        all,
        (
            "fairness",
            "Requests of one client over four backends",
            "fairness",
        ),
        [
            ("l4", |seen| {
                seen.l4.iter().map(|share| share.fairness).collect()
            }),
            ("l7", |seen| {
                seen.l7.iter().map(|share| share.fairness).collect()
            }),
        ],
    )
}

fn latency(all: &[Seen]) -> Plot {
    bars(
        all,
        (
            "latency",
            "The slowest requests, on a clean link and on a lossy one",
            "p99, ms",
        ),
        [
            ("clean", |seen| seen.clean.clone()),
            ("lossy", |seen| seen.lossy.clone()),
        ],
    )
}

fn claims(all: &[Seen]) -> Vec<Claim> {
    // Requests of these are streams of one connection, which L4 cannot part.
    let multiplexed = || {
        all.iter().filter(|seen| {
            matches!(
                seen.protocol,
                super::Protocol::Http2 | super::Protocol::Grpc
            )
        })
    };
    let pinned = multiplexed().map(|seen| middle(&seen.l4, |share| share.fairness));
    let level = multiplexed().map(|seen| middle(&seen.l7, |share| share.fairness));
    let (pinned, level) = (pinned.fold(0.0, f64::max), level.fold(1.0, f64::min));
    vec![
        Claim::new(
            "One client's HTTP/2 and gRPC requests are pinned at l4 (fairness 1/4)",
            format!("{pinned:.2} at most"),
            pinned < 0.2501,
        ),
        Claim::new(
            "The same requests are level at l7 (fairness 0.99 or more)",
            format!("{level:.3} at least"),
            level >= 0.99,
        ),
    ]
}
