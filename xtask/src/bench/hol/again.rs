//! Where a larger pool looks worse again: visited anew.
//!
//! Of many points that only scatter some look like a turn ([`turn`]), and a test of all of them must allow for that until six rounds can
//! show hardly anything. So the first visits only say where to look, once for each round-trip time, and what is there is told by
//! new visits alone, with seeds of their own: few tests, and more rounds for each. Where earlier runs found a turn ([`KNOWN`]) that is
//! where to look, whatever the first visits of this one say: six rounds missed it in one run of four.

use anyhow::Result;

use super::{
    Cell, ROUNDS, VISIT,
    claims::pools,
    stage::{Stage, Way},
    turn,
};
use crate::bench::{
    Context,
    attempts::Attempts,
    result::{Cell as Figure, Column, Row, Table},
};

/// Rounds, full and quick: 16 tell a rise of a sixth from nothing where rounds differ by a quarter.
const AGAIN: (usize, usize) = (16, 0);

/// Round-trip time in ms, share lost, and sizes of pools, between which three full runs found a turn: 1.22 to 1.29 times the p99 of the
/// one in the middle with the smallest, 1.12 to 1.19 with the largest.
const KNOWN: (u64, f64, [usize; 3]) = (10, 0.01, [1, 10, 25]);

/// Whether anything is visited again.
pub(super) fn is_planned(context: &Context) -> bool {
    context.choose(AGAIN.0, AGAIN.1) > 0
}

/// Visits the known place of this round-trip time, or that which `grid` points at, if it points at any; `note` is told how far it is.
pub(super) fn visit(
    stage: &Stage,
    context: &Context,
    grid: &[Cell],
    attempts: &mut Attempts,
    note: impl Fn(String),
) -> Result<Vec<Cell>> {
    let Some((loss, sizes)) = place(stage.rtt, grid).filter(|_| is_planned(context)) else {
        return Ok(Vec::new());
    };
    let mut cells: Vec<Cell> = sizes
        .iter()
        .map(|size| Cell {
            rtt: stage.rtt,
            loss,
            way: Way::Http2(*size),
            visits: Vec::new(),
        })
        .collect();
    let (rounds, count) = (context.choose(AGAIN.0, AGAIN.1), cells.len());
    for round in 0..rounds {
        note(format!("once more, round {} of {rounds}", round + 1));
        // Seeds that the grid did not have.
        let seed = context.seed.wrapping_add((ROUNDS.0 + round) as u64);
        for turn in 0..count {
            let cell = &mut cells[(turn + round) % count];
            let visit = stage.visit(cell.way, cell.loss, seed, context.choose(VISIT.0, VISIT.1));
            cell.visits.extend(attempts.keep(&cell.name(), visit)?);
        }
    }
    Ok(cells)
}

/// What is to be visited of this round-trip time: share lost, and sizes.
fn place(rtt: u64, grid: &[Cell]) -> Option<(f64, [usize; 3])> {
    let (known, loss, sizes) = KNOWN;
    if rtt == known {
        return Some((loss, sizes));
    }
    turn::nearest(&pools(grid)).map(|(place, sizes)| (place.loss, sizes))
}

/// Where the losses of the new visits came from; `None` if there were none.
pub(super) fn seeds(cells: &[Cell]) -> Option<String> {
    let seeds = || cells.iter().flat_map(|cell| &cell.visits).map(|it| it.seed);
    let (first, last) = (seeds().min()?, seeds().max()?);
    Some(format!(
        "Where a larger pool looked worse again, or did in earlier runs, three pools were visited anew, with seeds {first} to {last}; only those visits are claimed."
    ))
}

/// What was seen there; `None` if there was nothing to see.
pub(super) fn table(cells: &[Cell]) -> Option<Table> {
    let rows: Vec<Row> = pools(cells)
        .iter()
        .flat_map(|pools| {
            let best = pools.sizes.get(1);
            pools.sizes.iter().map(move |(size, rounds)| {
                let times = best
                    .filter(|(best, _)| best != size)
                    .map(|(_, best)| turn::ratios(rounds, best));
                let times: Vec<f64> = times.into_iter().flatten().map(f64::exp).collect();
                let p99: Vec<f64> = rounds.values().copied().collect();
                Row::new(
                    format!("{}, x{size}", pools.name()),
                    vec![Figure::figure(&p99), Figure::figure(&times)],
                )
            })
        })
        .collect();
    (!rows.is_empty()).then(|| Table {
        id: "again".to_owned(),
        title: "Where the first visits, or earlier runs, looked as if a larger pool were worse again: new visits, new seeds".to_owned(),
        of: "lost, round trip, pool".to_owned(),
        columns: vec![
            Column::new("p99", "ms", 1),
            Column::new("times the one in the middle, by round", "", 2),
        ],
        rows,
    })
}

#[cfg(test)]
mod tests {
    use super::{super::stage::Visit, *};

    fn pool(size: usize, p99: [u64; 2]) -> Cell {
        let visit = |(seed, p99)| Visit {
            seed,
            latencies: vec![p99 * 1000],
            ..Visit::default()
        };
        Cell {
            rtt: 10,
            loss: 0.01,
            way: Way::Http2(size),
            visits: [7, 8].into_iter().zip(p99).map(visit).collect(),
        }
    }

    #[test]
    fn pools_visited_anew_are_told_with_their_seeds_and_beside_the_one_in_the_middle() {
        let cells = [
            pool(25, [150, 300]),
            pool(1, [200, 400]),
            pool(10, [100, 200]),
        ];
        let table = table(&cells).expect("a table");
        let samples = |figure: &Figure| match figure {
            Figure::Figure(measured) => measured.samples.clone(),
            _ => Vec::new(),
        };
        let seen: Vec<(&str, Vec<Vec<f64>>)> = table
            .rows
            .iter()
            .map(|row| (row.label.as_str(), row.cells.iter().map(samples).collect()))
            .collect();
        let rounded = seen.into_iter().map(|(label, figures)| {
            let round = |it: &f64| (it * 1e6).round() / 1e6;
            let figures: Vec<Vec<f64>> = figures
                .iter()
                .map(|figure| figure.iter().map(round).collect())
                .collect();
            (label, figures)
        });
        assert_eq!(
            rounded.collect::<Vec<_>>(),
            [
                ("1 %, 10 ms, x1", vec![vec![200.0, 400.0], vec![2.0, 2.0]]),
                ("1 %, 10 ms, x10", vec![vec![100.0, 200.0], vec![]]),
                ("1 %, 10 ms, x25", vec![vec![150.0, 300.0], vec![1.5, 1.5]]),
            ]
        );
        let seeds = seeds(&cells).expect("seeds");
        assert!(seeds.contains("seeds 7 to 8"), "{seeds}");
    }

    #[test]
    fn where_a_turn_is_known_it_is_looked_for_whatever_the_first_visits_say() {
        assert_eq!(place(10, &[]), Some((0.01, [1, 10, 25])));
        let worse_again = [
            pool(1, [200, 400]),
            pool(2, [100, 201]),
            pool(5, [150, 299]),
        ];
        assert_eq!(place(10, &worse_again), Some((0.01, [1, 10, 25])));
    }

    #[test]
    fn elsewhere_the_first_visits_say_where_to_look() {
        assert_eq!(place(50, &[]), None);
        let elsewhere = |cell: Cell| Cell { rtt: 50, ..cell };
        let worse_again = [
            pool(1, [200, 401]),
            pool(2, [100, 200]),
            pool(5, [150, 299]),
        ];
        assert_eq!(
            place(50, &worse_again.map(elsewhere)),
            Some((0.01, [1, 2, 5]))
        );
    }

    #[test]
    fn where_nothing_was_visited_anew_nothing_is_told() {
        assert!(table(&[]).is_none() && seeds(&[]).is_none());
    }
}
