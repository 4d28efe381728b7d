//! What a report shows of the load generator.

use super::super::super::{
    Outcome,
    result::{Axis, Cell, Claim, Column, Measured, Plot, PlotKind, Point, Row, Series, Table},
};
use super::{BEYOND, Known, Race};

pub(super) fn outcome(races: &[Race], known: &[Known]) -> Outcome {
    let mut claims: Vec<Claim> = races.iter().map(Race::claim).collect();
    claims.extend(known.iter().flat_map(Known::claims));
    Outcome {
        tables: vec![throughput(races), latency(known)],
        plots: vec![ratios(races)],
        claims,
        notes: vec![
            "One thread each for client and server, each on a CPU of its own. Where the client is the slower of the two, the figures compare \
             clients; where the server is, they must be the same."
                .to_owned(),
            "Latency above the delay, which the backend counts from the arrival of the request, holds two passes through the \
             loopback, both programs, and how late the backend's timer is; h2load's own wakeup for the answer is in its figures, \
             evenkeel load's is not, because it takes the kernel's word for when the answer came. Beyond what the backend says it \
             took, from the arrival of the request to the answer begun, its timer is not in it, either."
                .to_owned(),
        ],
        ..Outcome::default()
    }
}

fn throughput(races: &[Race]) -> Table {
    let row = |race: &Race| {
        let [ours, theirs] = &race.clients;
        Row::new(
            race.label,
            vec![ours.cell(0), theirs.cell(0), ours.ratio_cell(theirs, 0)],
        )
    };
    Table {
        id: "throughput".to_owned(),
        title: "Closed loop: requests per second, as each client says".to_owned(),
        of: "server, connections x streams".to_owned(),
        columns: vec![
            Column::new("evenkeel load", "1/s", 0),
            Column::new("h2load", "1/s", 0),
            Column::new("evenkeel load / h2load", "", 3),
        ],
        rows: races.iter().map(row).collect(),
    }
}

fn latency(known: &[Known]) -> Table {
    let rows = known.iter().flat_map(|backend| {
        backend.clients.iter().map(|client| {
            let above = |index| match client.cell(index) {
                Cell::Figure(_) => Cell::figure(&backend.above(client, index)),
                other => other,
            };
            let beyond = match client.samples(BEYOND).as_slice() {
                [] => Cell::Empty,
                samples => Cell::figure(samples),
            };
            Row::new(
                format!("{}, {}", backend.name(), client.label),
                vec![above(0), above(1), beyond],
            )
        })
    });
    Table {
        id: "latency".to_owned(),
        title: "A backend that answers after a known time: what clients measure above it"
            .to_owned(),
        of: "delay, client".to_owned(),
        columns: vec![
            Column::new("p50", "us", 0),
            Column::new("p99", "us", 0),
            Column::new("p50 beyond what the backend says it took", "us", 0),
        ],
        rows: rows.collect(),
    }
}

fn ratios(races: &[Race]) -> Plot {
    let points = races.iter().enumerate().filter_map(|(index, race)| {
        let [ours, theirs] = &race.clients;
        let ratio = Measured::of(&ours.ratios(theirs, 0))?;
        Some(Point::measured(index as f64, &ratio))
    });
    Plot {
        id: "ratio".to_owned(),
        title: "Throughput that evenkeel load sees, as a multiple of what h2load sees".to_owned(),
        kind: PlotKind::Bars,
        x: Axis {
            title: "server, connections x streams".to_owned(),
            categories: races.iter().map(|race| race.label.to_owned()).collect(),
            ..Axis::default()
        },
        y: Axis {
            title: "evenkeel load / h2load".to_owned(),
            ..Axis::default()
        },
        series: vec![Series {
            name: "evenkeel load / h2load".to_owned(),
            points: points.collect(),
        }],
    }
}
