//! What a report shows of observing, and what should hold of it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{GOAL_SHARE, GOAL_SKEW, Seen, Turn};
use crate::bench::{
    Outcome,
    result::{Cell, Claim, Column, Row, Table},
    stats::median,
};

/// How far the share of a backend is from its own count, of the one that is furthest off, percent.
pub(super) fn furthest(peers: &[Value], served: &BTreeMap<String, u64>) -> Result<f64> {
    let mut observed: BTreeMap<&str, f64> = BTreeMap::new();
    for peer in peers {
        let address = peer["address"].as_str().context("address")?;
        observed.insert(address, peer["streams"].as_f64().context("streams")?);
    }
    let whole: f64 = observed.values().sum();
    let all = served.values().sum::<u64>() as f64;
    ensure!(whole > 0.0 && all > 0.0, "no stream was observed");
    let off = served.iter().map(|(address, served)| {
        let share = observed.get(address.as_str()).unwrap_or(&0.0) / whole;
        let own = *served as f64 / all;
        match own {
            // Of one that served nothing, nothing may be seen.
            0.0 => share * 100.0,
            own => (share / own - 1.0).abs() * 100.0,
        }
    });
    Ok(off.fold(0.0, f64::max))
}

pub(super) fn outcome(seen: &[(Turn, Seen)]) -> Outcome {
    let unobserved: &[f64] = seen.first().map_or(&[], |(_, seen)| &seen.host);
    let rows = seen.iter().map(|(turn, seen)| {
        let more: Vec<f64> = seen
            .host
            .iter()
            .zip(unobserved)
            .map(|(a, b)| a - b)
            .collect();
        let more = if *turn == Turn::Nothing {
            Cell::Empty
        } else {
            Cell::figure(&more)
        };
        Row::new(
            turn.label(),
            vec![
                Cell::figure(&seen.rate),
                Cell::figure(&seen.programs),
                Cell::figure(&seen.process),
                Cell::figure(&seen.share),
                Cell::figure(&seen.host),
                more,
                Cell::figure(&seen.skew),
                Cell::figure(&seen.furthest),
                Cell::figure(&seen.timed),
            ],
        )
    });
    Outcome {
        tables: vec![Table {
            id: "cost".to_owned(),
            title: "Observing a host on which HAProxy balances flows".to_owned(),
            of: "observed".to_owned(),
            columns: vec![
                Column::new("requests", "1/s", 0),
                Column::new("programs, a request", "ns", 0),
                Column::new("process", "ms/s", 2),
                Column::new("of one core at 50,000/s", "%", 2),
                Column::new("whole host, a request", "us", 2),
                Column::new("more than not observed", "us", 2),
                Column::new("hot factor off by", "%", 3),
                Column::new("share of a backend off by at most", "%", 3),
                Column::new("streams timed", "%", 2),
            ],
            rows: rows.collect(),
        }],
        claims: claims(seen),
        notes: vec![
            "Programs: as the kernel times them (BPF_ENABLE_STATS), which counts interrupts that came meanwhile. Process: \
             after it was attached, reading the tables once a second and at the end."
                .to_owned(),
            "The whole host's difference holds the kernel's timing of the programs as well, and is of the size of its \
             own scatter."
                .to_owned(),
        ],
        ..Outcome::default()
    }
}

fn claims(seen: &[(Turn, Seen)]) -> Vec<Claim> {
    let Some((_, seen)) = seen.iter().find(|(turn, _)| *turn == Turn::Backends) else {
        return Vec::new();
    };
    let worst = |figures: &[f64]| figures.iter().copied().reduce(f64::max);
    let (skew, furthest) = (worst(&seen.skew), worst(&seen.furthest));
    let not_measured = || "not measured".to_owned();
    let within = |off: Option<f64>| off.is_some_and(|off| off <= GOAL_SKEW);
    let share = median(&seen.share);
    vec![
        Claim::new(
            format!(
                "observing 50,000 requests a second costs at most {GOAL_SHARE:.0} % of one core"
            ),
            format!("{share:.2} %"),
            share <= GOAL_SHARE && !seen.share.is_empty(),
        ),
        Claim::new(
            format!(
                "the proxy's skew is seen within {GOAL_SKEW:.0} % of the backends' own counts, in every round"
            ),
            skew.map_or_else(not_measured, |off| {
                format!("hot factor off by {off:.3} % in the worst")
            }),
            within(skew),
        ),
        Claim::new(
            format!(
                "so is the share of every single backend, within {GOAL_SKEW:.0} % of its own count, in every round"
            ),
            furthest.map_or_else(not_measured, |off| {
                format!("off by {off:.3} % at most in the worst")
            }),
            within(furthest),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn one_backend_that_is_seen_wrongly_is_noticed_whichever_it_is() -> Result<()> {
        let served = BTreeMap::from([("a".to_owned(), 600), ("b".to_owned(), 400)]);
        let off = |a: u64, b: u64| {
            let peers = [("a", a), ("b", b)]
                .map(|(address, streams)| json!({ "address": address, "streams": streams }));
            furthest(&peers, &served)
        };
        // What is seen of all is another question.
        assert!(off(300, 200)? < 1e-9);
        assert!((off(640, 360)? - 10.0).abs() < 1e-9);
        assert!(off(0, 0).is_err());
        let unseen = [json!({ "address": "a", "streams": 600 })];
        assert_eq!(furthest(&unseen, &served)?, 100.0);
        Ok(())
    }

    #[test]
    fn the_worst_round_counts_and_nothing_measured_is_no_success() {
        let hold = |skew: &[f64], furthest: &[f64]| {
            let seen = Seen {
                share: vec![1.0; skew.len()],
                skew: skew.to_vec(),
                furthest: furthest.to_vec(),
                ..Seen::default()
            };
            let claims = claims(&[(Turn::Backends, seen)]);
            claims.iter().map(|claim| claim.holds).collect::<Vec<_>>()
        };
        assert_eq!(hold(&[0.1, 0.2], &[0.3, 0.4]), [true, true, true]);
        assert_eq!(
            hold(&[0.1, 0.1, 1.1], &[0.1, 0.1, 1.2]),
            [true, false, false]
        );
        assert_eq!(hold(&[], &[]), [false; 3]);
    }
}
