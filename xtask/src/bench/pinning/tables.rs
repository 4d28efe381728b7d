//! Every metric over ways and numbers of clients, and what was measured beside what was simulated.

use super::{
    expected::Expected,
    figures::{Gaps, METRICS, Metric, SAME, Visited, capital, find, samples},
    ways::{Placement, WAYS, Way, Weights, spell},
};
use crate::bench::result::{Cell, Column, Measured, Row, Table};

/// One metric, ways down and numbers of clients across.
pub(super) fn table(
    metric: &Metric,
    visited: &[Visited],
    weights: Weights,
    clients: &[u32],
    gaps: &Gaps<'_>,
) -> Table {
    let cell =
        |way: &Way, clients: u32| match (find(visited, way.name, weights, clients), gaps.missing) {
            (Some((point, visits)), _) => {
                gaps.attempts.cell(&point.name(), &samples(metric, visits))
            }
            (None, Some(what)) => Cell::Missing {
                what: what.to_owned(),
            },
            (None, None) => Cell::Empty,
        };
    let row = |way: &Way| {
        Row::new(
            way.name,
            clients.iter().map(|clients| cell(way, *clients)).collect(),
        )
    };
    Table {
        id: format!("{}-{}", metric.id, weights.name()),
        title: format!("{}, {}", capital(metric.title), weights.about()),
        of: "who balances".to_owned(),
        columns: clients
            .iter()
            .map(|clients| Column::new(&spell(*clients), metric.unit, metric.digits))
            .collect(),
        rows: WAYS.iter().map(row).collect(),
    }
}

/// Measured beside simulated, point by point.
pub(super) fn agreement(visited: &[Visited], expected: &[Option<Expected>]) -> Table {
    let rows = visited
        .iter()
        .zip(expected)
        .filter_map(|((point, visits), expected)| {
            let expected = expected.as_ref()?;
            let simulated = Cell::Figure(Measured {
                median: expected.median,
                low: expected.low,
                high: expected.high,
                // Not measured: shown with the interval that the claim is judged by.
                samples: Vec::new(),
            });
            let measured = samples(&METRICS[0], visits);
            // Streams dealt out in turn are not bound by what whole connections allow.
            let whole = |bounds: &[f64]| match point.way.placement {
                Placement::InTurn => Cell::Empty,
                _ => Cell::figure(bounds),
            };
            let verdict = if agrees(&measured, expected) {
                "agrees"
            } else {
                "does not agree"
            };
            Some(Row::new(
                point.name(),
                vec![
                    Cell::figure(&measured),
                    simulated,
                    whole(&expected.lower),
                    whole(&expected.achievable),
                    Cell::text(verdict),
                ],
            ))
        });
    Table {
        id: "agreement".to_owned(),
        title: "Hot factor, measured and simulated (the interval of the simulation holds all points at once)"
            .to_owned(),
        of: "point".to_owned(),
        columns: vec![
            Column::new("measured", "", 2),
            Column::new("simulated", "", 2),
            Column::new("bound", "", 2),
            Column::new("best known", "", 2),
            Column::new("verdict", "", 0),
        ],
        rows: rows.collect(),
    }
}

/// Whether the measured median lies within the simulated interval.
pub(super) fn agrees(measured: &[f64], expected: &Expected) -> bool {
    Measured::of(measured).is_some_and(|measured| {
        (expected.low - SAME..=expected.high + SAME).contains(&measured.median)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::attempts::Attempts;

    #[test]
    fn a_way_that_is_missing_says_why_in_every_cell() {
        let gaps = Gaps {
            missing: Some("no nft here"),
            attempts: Attempts::default(),
        };
        let table = table(&METRICS[0], &[], Weights::Equal, &[1, 30], &gaps);
        let cells = table.rows.iter().flat_map(|row| &row.cells);
        let missing =
            cells.filter(|cell| matches!(cell, Cell::Missing { what } if what == "no nft here"));
        assert_eq!(missing.count(), 2 * WAYS.len());
    }

    #[test]
    fn agreement_is_judged_by_the_median_and_the_simulated_interval() {
        let expected = Expected {
            median: 2.0,
            low: 1.5,
            high: 2.6,
            lower: vec![1.0],
            achievable: vec![1.0],
        };
        assert!(agrees(&[1.4, 2.6, 9.0], &expected));
        assert!(!agrees(&[1.4, 2.7, 9.0], &expected));
    }
}
