//! Results with everything in them that a report can hold: every kind of plot, axis and cell, names that are too long,
//! names that would run if they were not escaped, a failed scenario, one that was never run.

use xtask::bench::{
    facts::{Fact, Facts, Host},
    result::{
        Axis, Cell, Claim, Column, Measured, Outcome, Plot, PlotKind, Point, Row, Series, Table,
    },
    store::{Record, Results},
};

/// Would run, load, or end an attribute, a comment, a style or a table.
pub(crate) const HOSTILE: &str = "<script>console.error('ran')</script>\"'><img src=x onerror=alert(1)>--></style></title>|`=1+1`";

/// The results.
pub(crate) fn results() -> Results {
    let record = |outcome, failure: Option<&str>| Record {
        outcome,
        date: "2026-01-02T03:04:05Z".to_owned(),
        commit: HOSTILE.to_owned(),
        host: Host {
            kernel: HOSTILE.to_owned(),
            notes: vec![HOSTILE.to_owned()],
            ..Host::default()
        },
        failure: failure.map(str::to_owned),
    };
    Results {
        records: vec![
            record(outcome(), None),
            record(
                Outcome {
                    name: "failed".to_owned(),
                    about: HOSTILE.to_owned(),
                    ..Outcome::default()
                },
                Some(HOSTILE),
            ),
        ],
        missing: vec!["never-run".to_owned()],
        facts: Facts {
            date: "2026-01-02T03:04:05Z".to_owned(),
            commit: "0123456789ab+".to_owned(),
            facts: vec![Fact {
                name: "CPU".to_owned(),
                value: format!("a long line of words {HOSTILE} ").repeat(5),
            }],
            notes: vec![HOSTILE.to_owned()],
        },
    }
}

fn outcome() -> Outcome {
    Outcome {
        name: "everything".to_owned(),
        about: "Whether the report shows all that it can hold.".to_owned(),
        commands: vec![format!("cargo xtask bench everything # {HOSTILE}")],
        seed: 7,
        quick: true,
        seconds: 1234.5,
        tables: vec![table()],
        plots: plots(),
        claims: vec![
            Claim::new("one that holds", "1.00", true),
            Claim::new(HOSTILE, HOSTILE, false),
        ],
        notes: vec![HOSTILE.to_owned()],
    }
}

fn table() -> Table {
    Table {
        id: "cells".to_owned(),
        title: HOSTILE.to_owned(),
        of: HOSTILE.to_owned(),
        columns: vec![
            Column::new("p99", "ms", 2),
            Column::new(HOSTILE, HOSTILE, 0),
        ],
        rows: vec![
            Row::new(
                "figures",
                vec![Cell::figure(&[1.0, 2.0, 3.0]), Cell::figure(&[1e6])],
            ),
            Row::new("words", vec![Cell::text(HOSTILE), Cell::Empty]),
            Row::new(
                HOSTILE,
                vec![
                    Cell::NotYet {
                        wants: "UDP services".to_owned(),
                    },
                    Cell::Missing {
                        what: "wrk: run cargo xtask setup --peers".to_owned(),
                    },
                ],
            ),
        ],
    }
}

fn axis(title: &str, logarithmic: bool, categories: &[&str]) -> Axis {
    Axis {
        title: title.to_owned(),
        logarithmic,
        categories: categories.iter().map(ToString::to_string).collect(),
    }
}

/// A series of `name`; each point with an interval of a tenth below and a fifth above.
fn series(name: &str, points: &[(f64, f64)]) -> Series {
    let points = points.iter().map(|(x, y)| {
        let measured = Measured {
            median: *y,
            low: y * 0.9,
            high: y * 1.2,
            samples: vec![*y],
        };
        Point::measured(*x, &measured)
    });
    Series {
        name: name.to_owned(),
        points: points.collect(),
    }
}

/// A series whose every sample was the same.
fn exact(name: &str, points: &[(f64, f64)]) -> Series {
    let mut series = series(name, points);
    for point in &mut series.points {
        (point.low, point.high) = (point.y, point.y);
    }
    series
}

fn plot(id: &str, kind: PlotKind, x: Axis, y: Axis, series: Vec<Series>) -> Plot {
    Plot {
        id: id.to_owned(),
        title: format!("{id}: what a reader should take away"),
        kind,
        x,
        y,
        series,
    }
}

fn plots() -> Vec<Plot> {
    let mut plots = bars();
    plots.extend(lines());
    plots.push(cdf());
    plots
}

fn bars() -> Vec<Plot> {
    let backends = ["b1", "b2", "b3", "b4"];
    let long = [
        "a category whose name is far too long to be shown",
        HOSTILE,
        "c",
        "d",
        "e",
        "f",
        "g",
        "h",
        "i",
        "j",
    ];
    let bars = |factor: f64, count: i32| -> Vec<(f64, f64)> {
        (0..count)
            .map(|n| (f64::from(n), factor * f64::from(n * n)))
            .collect()
    };
    vec![
        plot(
            "bars",
            PlotKind::Bars,
            axis("backend", false, &backends),
            axis("streams per second", false, &[]),
            vec![
                series("L4", &bars(100.0, 4)),
                series(HOSTILE, &bars(40.0, 4)),
            ],
        ),
        // With figures above bars that are as high as the axis.
        plot(
            "bars-full",
            PlotKind::Bars,
            axis("backend", false, &backends),
            axis("share (%)", false, &[]),
            vec![exact("all of it", &[(0.0, 100.0), (1.0, 100.0)])],
        ),
        plot(
            "bars-long-names",
            PlotKind::Bars,
            axis(HOSTILE, false, &long),
            axis("p99 (ms)", true, &[]),
            vec![
                series("one", &bars(0.03, 10)),
                series("two", &bars(2000.0, 10)),
            ],
        ),
    ]
}

fn lines() -> Vec<Plot> {
    let curve = |factor: f64| -> Vec<(f64, f64)> {
        [1.0, 10.0, 30.0, 100.0, 1000.0]
            .map(|x: f64| (x, factor * (1.0 + 9.0 / x)))
            .to_vec()
    };
    let many: Vec<Series> = (1..=12)
        .map(|n| series(&format!("policy {n}"), &curve(f64::from(n))))
        .collect();
    vec![
        plot(
            "lines-many",
            PlotKind::Lines,
            axis("connections", true, &[]),
            axis("hot factor", false, &[]),
            many,
        ),
        plot(
            "lines-log",
            PlotKind::Lines,
            axis("connections", false, &[]),
            axis("p99 (ms)", true, &[]),
            vec![
                series("with a zero", &[(1.0, 0.0), (2.0, 0.5), (3.0, 7000.0)]),
                series("one point", &[(2.0, 3.0)]),
            ],
        ),
        plot(
            "lines-flat",
            PlotKind::Lines,
            axis("loss (%)", false, &["0", "0.1", "1", "5"]),
            axis("fairness", false, &[]),
            vec![Series {
                name: "flat".to_owned(),
                points: (0..4).map(|x| Point::new(f64::from(x), 1.0)).collect(),
            }],
        ),
        plot(
            "lines-large",
            PlotKind::Lines,
            axis("flows", true, &[]),
            axis("packets per second", false, &[]),
            vec![series("at the edges", &[(1.0, 3e6), (1e5, 2.5e7)])],
        ),
    ]
}

fn cdf() -> Plot {
    let steps = |scale: f64| -> Vec<(f64, f64)> {
        (1..=200)
            .map(|n| (scale * f64::from(n * n), f64::from(n) / 200.0))
            .collect()
    };
    plot(
        "cdf",
        PlotKind::Cdf,
        axis("latency (us)", true, &[]),
        axis("share of requests", false, &[]),
        vec![series("fast", &steps(0.1)), series("slow", &steps(10.0))],
    )
}
