//! The table, the plots and the claims of the sessions.

use super::{
    Case,
    stage::{BACKENDS, CHECKS, COOKIE, SESSIONS, Seen, names},
};
use crate::bench::{
    Outcome,
    attempts::Attempts,
    result::{Axis, Cell, Claim, Column, Measured, Plot, PlotKind, Point, Row, Series, Table},
};

/// What the cells of a hash that evenkeel does not know wait for.
const WANTS: &str = "cookies";

type Read = fn(&Seen) -> f64;

/// What is read off a run.
static METRICS: [(&str, &str, usize, Read); 8] = [
    ("find their state after a blip", "%", 1, |seen| {
        seen.found * 100.0
    }),
    ("lose backend and state", "%", 1, |seen| {
        seen.lost * 100.0 / f64::from(SESSIONS)
    }),
    ("others disturbed", "", 0, |seen| seen.disturbed),
    ("time to rebalance", "s", 2, |seen| seen.rebalanced),
    ("hot factor without it", "", 2, |seen| seen.away),
    ("hot factor once it is back", "", 2, |seen| seen.back),
    ("find their state after the next blip", "%", 1, |seen| {
        seen.found_again * 100.0
    }),
    ("hot factor then", "", 2, |seen| seen.again),
];

pub(super) fn outcome(cases: &[Case], attempts: &Attempts) -> Outcome {
    Outcome {
        tables: vec![table(cases, attempts)],
        plots: vec![found(cases), left_behind(cases)],
        claims: claims(cases).into_iter().chain(attempts.claim()).collect(),
        notes: vec![
            format!(
                "{SESSIONS} sessions from as many addresses over {BACKENDS} backends; state is found if the very \
                 process that had it answers. Clients come back at once, and after a refusal 20 to 320 ms later."
            ),
            format!(
                "A killed backend is found by checks (`[service.health]`, `{CHECKS}`). Until then source-ip leads its \
                 clients to it again and again, while with the 5-tuple the next port may lead elsewhere."
            ),
            "Clients that share an address (behind one NAT) share a backend with source-ip; here none do. Which \
             address goes where follows from a seed drawn when evenkeel starts, so with source-ip all rounds of a run \
             show the same spread; another run shows another."
                .to_owned(),
        ],
        ..Outcome::default()
    }
}

fn samples(case: &Case, read: Read) -> Vec<f64> {
    case.seen.iter().map(read).collect()
}

fn table(cases: &[Case], attempts: &Attempts) -> Table {
    let cell = |case: &Case, read: Read| match attempts.cell(&case.name(), &samples(case, read)) {
        Cell::Empty => Cell::NotYet {
            wants: WANTS.to_owned(),
        },
        cell => cell,
    };
    let rows = cases
        .iter()
        .map(|case| {
            let cells = METRICS.iter().map(|(.., read)| cell(case, *read));
            Row::new(case.name(), cells.collect())
        })
        .collect();
    Table {
        id: "sessions".to_owned(),
        title: "Sessions that lose their connection, or their backend".to_owned(),
        of: "hash, event".to_owned(),
        columns: METRICS
            .iter()
            .map(|(title, unit, digits, _)| Column::new(title, unit, *digits))
            .collect(),
        rows,
    }
}

fn categories(title: &str, names: Vec<String>) -> Axis {
    Axis {
        title: title.to_owned(),
        logarithmic: false,
        categories: names,
    }
}

fn vertical(title: &str) -> Axis {
    Axis {
        title: title.to_owned(),
        ..Axis::default()
    }
}

/// Those of which there is something to draw.
fn measured(cases: &[Case]) -> impl Iterator<Item = &Case> {
    cases.iter().filter(|case| !case.seen.is_empty())
}

/// Share of sessions that find their state, before and after the event.
fn found(cases: &[Case]) -> Plot {
    let moments: [(&str, Read); 2] = [
        ("all lose their connection", |seen| seen.found * 100.0),
        ("again, after the backend's return", |seen| {
            seen.found_again * 100.0
        }),
    ];
    Plot {
        id: "found".to_owned(),
        title: "Sessions that find their state when they come back".to_owned(),
        kind: PlotKind::Bars,
        x: categories("", moments.map(|(name, _)| name.to_owned()).to_vec()),
        y: vertical("% of sessions"),
        series: measured(cases)
            .map(|case| Series {
                name: case.name(),
                points: (0..)
                    .zip(moments)
                    .filter_map(|(at, (_, read))| {
                        let measured = Measured::of(&samples(case, read))?;
                        Some(Point::measured(f64::from(at), &measured))
                    })
                    .collect(),
            })
            .collect(),
    }
}

/// Sessions on each backend once the one that was away is back.
fn left_behind(cases: &[Case]) -> Plot {
    Plot {
        id: "left-behind".to_owned(),
        title: "What a drained or killed backend leaves behind: sessions once it is back"
            .to_owned(),
        kind: PlotKind::Bars,
        x: categories("backend", names()),
        y: vertical("sessions"),
        series: measured(cases)
            .map(|case| Series {
                name: case.name(),
                points: (0..BACKENDS)
                    .filter_map(|at| {
                        let here: Vec<f64> = case
                            .seen
                            .iter()
                            .filter_map(|seen| seen.sessions.get(at).copied())
                            .collect();
                        Some(Point::measured(at as f64, &Measured::of(&here)?))
                    })
                    .collect(),
            })
            .collect(),
    }
}

fn claims(cases: &[Case]) -> Vec<Claim> {
    let cookie = shares(cases, COOKIE.name);
    // Whether evenkeel has it shows in whether it was tried.
    let with_cookie = (!cookie.is_empty()).then(|| all_find("a cookie", &cookie));
    let others = [
        all_find("source-ip", &shares(cases, "source-ip")),
        by_chance(&shares(cases, "5-tuple")),
        undisturbed(cases),
    ];
    others.into_iter().chain(with_cookie).collect()
}

/// Shares of sessions that found their state, of every visit: none did in a visit that failed.
fn shares(cases: &[Case], hash: &str) -> Vec<f64> {
    let cases = cases.iter().filter(|case| case.hash.name == hash);
    cases
        .flat_map(|case| {
            let failed = std::iter::repeat_n(0.0, case.failed);
            samples(case, |seen| seen.found).into_iter().chain(failed)
        })
        .collect()
}

fn all_find(with: &str, shares: &[f64]) -> Claim {
    let least = shares.iter().copied().reduce(f64::min);
    Claim::new(
        format!("With {with} every session that comes back finds its state (100 %)"),
        least.map_or_else(not_measured, |least| {
            format!("{:.1} % at worst", least * 100.0)
        }),
        least == Some(1.0),
    )
}

fn by_chance(shares: &[f64]) -> Claim {
    let expected = 1.0 / BACKENDS as f64;
    let text = format!(
        "Without it, as many as chance has it: {:.0} %, within four standard deviations",
        expected * 100.0
    );
    if shares.is_empty() {
        return Claim::new(text, not_measured(), false);
    }
    let mean = shares.iter().sum::<f64>() / shares.len() as f64;
    let drawn = shares.len() as f64 * f64::from(SESSIONS);
    let slack = 4.0 * (expected * (1.0 - expected) / drawn).sqrt();
    Claim::new(
        text,
        format!("{:.1} %, give or take {:.1}", mean * 100.0, slack * 100.0),
        (mean - expected).abs() <= slack,
    )
}

fn undisturbed(cases: &[Case]) -> Claim {
    let disturbed = cases
        .iter()
        .flat_map(|case| samples(case, |seen| seen.disturbed))
        .reduce(|sum, more| sum + more);
    Claim::new(
        "A backend that is drained or killed costs the sessions of others nothing (0 connections)",
        disturbed.map_or_else(not_measured, |sum| format!("{sum:.0} connections")),
        disturbed == Some(0.0),
    )
}

fn not_measured() -> String {
    "not measured".to_owned()
}

#[cfg(test)]
mod tests {
    use super::{
        super::stage::{Event, HASHES},
        *,
    };

    fn case(hash: usize, found: &[f64], failed: usize) -> Case {
        let seen = found.iter().map(|found| Seen {
            found: *found,
            ..Seen::default()
        });
        Case {
            hash: HASHES[hash],
            event: Event::Kill,
            seen: seen.collect(),
            failed,
        }
    }

    fn hold(cases: &[Case]) -> Vec<bool> {
        claims(cases).iter().map(|claim| claim.holds).collect()
    }

    #[test]
    fn what_was_not_measured_does_not_hold() {
        assert_eq!(hold(&[]), [false; 3]);
        let none = [case(0, &[], 0), case(1, &[], 0), case(2, &[], 0)];
        assert_eq!(hold(&none), [false; 3], "a cookie is not tried yet");
    }

    #[test]
    fn a_visit_that_failed_found_nothing() {
        let found = [case(0, &[0.25], 0), case(1, &[1.0], 0), case(2, &[1.0], 0)];
        assert_eq!(hold(&found), [true; 4]);
        let failed = [case(0, &[0.25], 0), case(1, &[1.0], 1), case(2, &[], 1)];
        assert_eq!(hold(&failed), [false, true, true, false]);
        assert_eq!(claims(&failed)[0].seen, "0.0 % at worst");
    }
}
