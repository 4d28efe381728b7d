//! What should hold of head-of-line blocking, and whether it did.

use super::{Cell, RTTS, figures::measured, stage::Way};
use crate::bench::result::Claim;

/// A pool is better or worse than another only if it is so by more than this share.
const CLEAR: f64 = 1.1;

pub(super) fn claims(cells: &[Cell]) -> Vec<Claim> {
    vec![pool(cells), http3(cells), losses(cells), failures(cells)]
}

/// p99 over the pool's size, for one loss and round-trip time, smallest pool first.
fn pools(cells: &[Cell], rtt: u64, loss: f64) -> Vec<(usize, f64)> {
    let mut pools: Vec<(usize, f64)> = cells
        .iter()
        .filter(|cell| cell.rtt == rtt && cell.loss == loss)
        .filter_map(|cell| match cell.way {
            Way::Http2(size) => Some((size, measured(cell, 0.99)?.median)),
            Way::Http1 | Way::Http3 => None,
        })
        .collect();
    pools.sort_by_key(|(size, _)| *size);
    pools
}

/// Where p99 falls and then rises again: the first, the best and the worst after it.
fn turn(pools: &[(usize, f64)]) -> Option<[(usize, f64); 3]> {
    let first = *pools.first()?;
    let (at, best) = pools
        .iter()
        .copied()
        .enumerate()
        .min_by(|(_, a), (_, b)| a.1.total_cmp(&b.1))?;
    let after = pools[at + 1..]
        .iter()
        .copied()
        .max_by(|a, b| a.1.total_cmp(&b.1))?;
    (first.1 > best.1 * CLEAR && after.1 > best.1 * CLEAR).then_some([first, best, after])
}

fn pool(cells: &[Cell]) -> Claim {
    let mut lossy: Vec<f64> = cells.iter().map(|cell| cell.loss).collect();
    lossy.sort_by(f64::total_cmp);
    lossy.dedup();
    // What happens without loss is the queue's doing.
    lossy.retain(|loss| *loss > 0.0);
    let mut seen = Vec::new();
    for rtt in RTTS {
        for loss in &lossy {
            if let Some(points) = turn(&pools(cells, rtt, *loss)) {
                let points = points.map(|(size, p99)| format!("x{size} {p99:.0} ms"));
                seen.push(format!(
                    "{} %, {rtt} ms: {}",
                    loss * 100.0,
                    points.join(", ")
                ));
            }
        }
    }
    let holds = !seen.is_empty();
    Claim::new(
        "More connections are not always better: p99 falls with the size of the HTTP/2 pool and rises again, for at \
         least one loss and round-trip time",
        if holds {
            seen.join("; ")
        } else {
            "it rose again nowhere".to_owned()
        },
        holds,
    )
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
        !ratios.is_empty() && ratios.iter().all(|(_, ratio)| *ratio < 1.0),
    )
}

/// The relay lost what its schedules say, packet by packet.
fn losses(cells: &[Cell]) -> Claim {
    let visits = || cells.iter().flat_map(|cell| &cell.visits);
    let passed = || visits().flat_map(|visit| visit.passed);
    let packets: u64 = passed().map(|passed| passed.packets).sum();
    let lost: u64 = passed().map(|passed| passed.lost).sum();
    let scheduled: u64 = visits().map(|visit| visit.scheduled).sum();
    Claim::new(
        "The relay lost the packets that the seed says, and no others",
        format!("{lost} of {packets} lost by chance, {scheduled} by the seed"),
        lost == scheduled,
    )
}

fn failures(cells: &[Cell]) -> Claim {
    let failed: u64 = cells
        .iter()
        .flat_map(|cell| &cell.visits)
        .map(|visit| visit.failed)
        .sum();
    Claim::new(
        "No request fails, however many packets are lost",
        format!("{failed} failed"),
        failed == 0,
    )
}

#[cfg(test)]
mod tests {
    use super::turn;

    #[test]
    fn a_pool_turns_where_p99_falls_and_rises_again() {
        let found = turn(&[(1, 300.0), (5, 100.0), (10, 120.0), (25, 400.0)]);
        assert_eq!(found, Some([(1, 300.0), (5, 100.0), (25, 400.0)]));
        assert_eq!(turn(&[(1, 300.0), (5, 200.0), (25, 100.0)]), None);
        assert_eq!(turn(&[(1, 100.0), (5, 200.0)]), None);
        assert_eq!(turn(&[(1, 105.0), (5, 100.0), (25, 105.0)]), None);
        assert_eq!(turn(&[]), None);
    }
}
