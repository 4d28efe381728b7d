//! The trade-off table, and what is drawn and claimed of it.

use super::{
    Place, Protocol, Seen, Share,
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
    let pinned = multiplexed(all, |seen| &seen.l4);
    let pinned = pinned.and_then(|shares| shares.into_iter().reduce(f64::max));
    let level = multiplexed(all, |seen| &seen.l7);
    let level = level.and_then(|shares| shares.into_iter().reduce(f64::min));
    let not_measured = || "not measured".to_owned();
    vec![
        Claim::new(
            "One client's HTTP/2 and gRPC requests are pinned at l4 (fairness 1/4)",
            pinned.map_or_else(not_measured, |most| format!("{most:.2} at most")),
            pinned.is_some_and(|most| most < 0.2501),
        ),
        Claim::new(
            "The same requests are level at l7 (fairness 0.99 or more)",
            level.map_or_else(not_measured, |least| format!("{least:.3} at least")),
            level.is_some_and(|least| least >= 0.99),
        ),
    ]
}

/// Fairness of the protocols whose requests are streams of one connection, which L4 cannot part; `None` where one of them
/// was not measured.
fn multiplexed(all: &[Seen], read: fn(&Seen) -> &Vec<Share>) -> Option<Vec<f64>> {
    let each = [Protocol::Http2, Protocol::Grpc].map(|protocol| {
        let shares = read(all.iter().find(|seen| seen.protocol == protocol)?);
        (!shares.is_empty()).then(|| middle(shares, |share| share.fairness))
    });
    each.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_does_not_hold() {
        let share = |fairness| Share {
            connections: 1.0,
            requests: 1.0,
            fairness,
            cost: 1.0,
        };
        let seen = |protocol| Seen {
            protocol,
            l4: vec![share(0.25)],
            l7: vec![share(1.0)],
            clean: Vec::new(),
            lossy: Vec::new(),
        };
        let hold = |all: &[Seen]| {
            claims(all)
                .iter()
                .map(|claim| claim.holds)
                .collect::<Vec<_>>()
        };
        let mut all = [seen(Protocol::Http2), seen(Protocol::Grpc)];
        assert_eq!(hold(&all), [true, true]);
        assert_eq!(hold(&all[..1]), [false, false]);
        all[0].l4.clear();
        assert_eq!(hold(&all), [false, true]);
        all[1].l7.clear();
        assert_eq!(hold(&all), [false, false]);
    }
}
