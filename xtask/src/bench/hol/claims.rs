//! What should hold of head-of-line blocking, and whether it did.

use super::{
    Cell, RTTS, Visited, again,
    figures::measured,
    stage::{Visit, Way},
    turn::{self, Pools},
};
use crate::bench::{Context, result::Claim};

pub(super) fn claims(visited: &Visited, context: &Context) -> Vec<Claim> {
    let turn = if again::is_planned(context) {
        &visited.again
    } else {
        &visited.grid
    };
    vec![
        turn::claim(&pools(turn)),
        http3(&visited.grid),
        losses(visited),
        failures(visited),
    ]
}

/// p99 over the pool's size, wherever packets are lost: what happens without loss is the queue's doing.
pub(super) fn pools(cells: &[Cell]) -> Vec<Pools> {
    let mut all: Vec<Pools> = Vec::new();
    for cell in cells.iter().filter(|cell| cell.loss > 0.0) {
        let Way::Http2(size) = cell.way else { continue };
        let (rtt, loss) = (cell.rtt, cell.loss);
        let rounds = cell.visits.iter();
        let rounds = rounds.map(|visit| (visit.seed, visit.quantile(0.99)));
        let rounds = rounds.filter(|(_, p99)| p99.is_finite()).collect();
        let known = |pools: &&mut Pools| pools.rtt == rtt && pools.loss == loss;
        match all.iter_mut().find(known) {
            Some(pools) => pools.sizes.push((size, rounds)),
            None => all.push(Pools {
                rtt,
                loss,
                sizes: vec![(size, rounds)],
            }),
        }
    }
    for pools in &mut all {
        pools.sizes.sort_by_key(|(size, _)| *size);
    }
    all
}

fn http3(cells: &[Cell]) -> Claim {
    let p99 = |rtt, loss, way| {
        let cell = cells
            .iter()
            .find(|cell| cell.rtt == rtt && cell.loss == loss && cell.way == way)?;
        Some(measured(cell, 0.99)?.median)
    };
    let ratios: Vec<(u64, f64)> = RTTS
        .iter()
        .filter_map(|rtt| {
            let one = p99(*rtt, 0.01, Way::Http2(1))?;
            Some((*rtt, p99(*rtt, 0.01, Way::Http3)? / one))
        })
        .collect();
    let seen: Vec<String> = ratios
        .iter()
        .map(|(rtt, ratio)| format!("{rtt} ms: {ratio:.2}"))
        .collect();
    Claim::new(
        "Where 1 % of packets are lost, the p99 of HTTP/3 is below that of one HTTP/2 connection (ratio below 1)",
        seen.join(", "),
        ratios.len() == RTTS.len() && ratios.iter().all(|(_, ratio)| *ratio < 1.0),
    )
}

/// Those of the grid, and those after it.
fn visits(visited: &Visited) -> impl Iterator<Item = &Visit> {
    let cells = visited.grid.iter().chain(&visited.again);
    cells.flat_map(|cell| &cell.visits)
}

/// The relay lost what its schedules say, packet by packet.
fn losses(visited: &Visited) -> Claim {
    let visits = || visits(visited);
    let passed = || visits().flat_map(|visit| visit.passed);
    let packets: u64 = passed().map(|passed| passed.packets).sum();
    let lost: u64 = passed().map(|passed| passed.lost).sum();
    let scheduled: u64 = visits().map(|visit| visit.scheduled).sum();
    Claim::new(
        "The relay lost the packets that the seed says, and no others",
        format!("{lost} of {packets} lost by chance, {scheduled} by the seed"),
        packets > 0 && lost == scheduled,
    )
}

fn failures(visited: &Visited) -> Claim {
    let visits = || visits(visited);
    let failed: u64 = visits().map(|visit| visit.failed).sum();
    let asked: usize = visits().map(|visit| visit.latencies.len()).sum();
    Claim::new(
        "No request fails, however many packets are lost",
        format!("{failed} of {asked} failed"),
        asked > 0 && failed == 0,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_measured_does_not_hold() {
        for quick in [false, true] {
            let context = Context {
                quick,
                seed: 1,
                katran: None,
            };
            let claims = claims(&Visited::default(), &context);
            assert!(claims.iter().all(|claim| !claim.holds));
        }
    }

    #[test]
    fn only_http2_pools_that_lose_packets_are_compared_smallest_first() {
        let cell = |way, loss| Cell {
            rtt: 10,
            loss,
            way,
            visits: [7, 8]
                .map(|seed| Visit {
                    seed,
                    latencies: vec![2000],
                    ..Visit::default()
                })
                .to_vec(),
        };
        let cells = [
            cell(Way::Http2(5), 0.01),
            cell(Way::Http2(1), 0.01),
            cell(Way::Http2(1), 0.0),
            cell(Way::Http3, 0.01),
        ];
        let pools = pools(&cells);
        let [pools] = pools.as_slice() else {
            panic!("{} places", pools.len());
        };
        assert_eq!(pools.name(), "1 %, 10 ms");
        let rounds = [(7, 2.0), (8, 2.0)].into();
        let five = [(7, 2.0), (8, 2.0)].into();
        assert_eq!(pools.sizes, [(1, rounds), (5, five)]);
    }
}
