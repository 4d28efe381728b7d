//! What one packet costs in the data path: each XDP program run on one packet at a time by the kernel
//! (`BPF_PROG_TEST_RUN`), without a network. `evenkeel bench-datapath` measures; here are the namespace that its
//! routes need, and the goals.
//!
//! All times are above those of a program that passes everything, taken in the same turns: the timing itself costs
//! something.

mod counting;
mod katran;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::{
    Context, Outcome,
    result::{Axis, Cell, Claim, Column, Measured, Plot, PlotKind, Point, Row, Series, Table},
};
use crate::{
    lab::{Lab, Spec},
    shell,
    term::Progress,
    workspace,
};

/// Most nanoseconds, by case: what Katran's program took on the machine that the goals were set on.
const GOALS: [(&str, f64); 3] = [
    ("established", 140.0),
    ("opening", 340.0),
    ("unrelated", 50.0),
];
/// Most that a million flows may cost, as a multiple of a thousand.
const GOAL_RATIO: f64 = 2.0;

/// Names of sweeps.
const FLOWS: &str = "flows";
const UPLOAD: &str = "upload";

/// What `evenkeel bench-datapath --json` prints.
#[derive(Deserialize)]
struct Report {
    packets: u32,
    pass: f64,
    cases: Vec<Case>,
    sweeps: Vec<Sweep>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    about: String,
    rounds: Vec<f64>,
}

#[derive(Deserialize)]
struct Sweep {
    name: String,
    about: String,
    points: Vec<Size>,
}

/// Times of one size, one of each round.
#[derive(Deserialize)]
struct Size {
    size: u32,
    pass: Vec<f64>,
    counted: Vec<f64>,
    uncounted: Vec<f64>,
    opening: Vec<f64>,
}

pub(super) fn run(context: &Context) -> Result<Outcome> {
    let lab = Lab::new(&Spec {
        backends: 1,
        ..Spec::default()
    })?;
    let backend = lab.backend_address(0, 1)?.ip().to_string();
    lab.balancer().ip(&[&format!(
        "neigh replace {backend} lladdr 02:00:00:00:00:01 dev b1 nud permanent"
    )])?;
    let packets = context.choose("100000", "12000");
    // More rounds would open more flows than the table has room for.
    let rounds = "5";
    let katran = katran::object(context)?;
    let progress = Progress::start("packets of every kind in turns, one at a time");
    let mut bench = lab.balancer().command(workspace::evenkeel()?);
    bench.args(["bench-datapath", "--json", "--sweeps"]);
    bench.args([
        "--backend",
        &backend,
        "--packets",
        packets,
        "--rounds",
        rounds,
    ]);
    if let Some(object) = &katran {
        bench.arg("--katran").arg(object);
    }
    let printed = shell::capture(&mut bench)?;
    progress.done();
    let report = serde_json::from_str(&printed).context("what bench-datapath printed")?;
    outcome(&report).with_context(|| format!("bench-datapath printed:\n{printed}"))
}

fn outcome(report: &Report) -> Result<Outcome> {
    let mut outcome = Outcome {
        tables: vec![cases(report), katran::table(report)],
        claims: claims(report)?,
        notes: vec![
            format!(
                "{} packets of each kind in each round; above a program that passes everything, {:.1} ns.",
                report.packets, report.pass
            ),
            "`*_floor`: a program on the same table that makes the entry or looks it up, and does nothing else; what it takes \
             no balancer on this table can save."
                .to_owned(),
            "Counting: the same packet with `count_streams` on and off, on the same flows, in turns.".to_owned(),
            katran::note(),
        ],
        ..Outcome::default()
    };
    for sweep in &report.sweeps {
        outcome.tables.push(sizes(sweep));
        if sweep.points.len() > 1 {
            outcome.plots.push(plot(sweep));
        }
    }
    Ok(outcome)
}

impl Report {
    fn case(&self, name: &str) -> Option<&Case> {
        self.cases.iter().find(|case| case.name == name)
    }
}

impl Case {
    fn above(&self, pass: f64) -> Vec<f64> {
        self.rounds.iter().map(|round| round - pass).collect()
    }
}

/// Round by round.
fn less(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}

impl Size {
    fn opening(&self) -> Vec<f64> {
        less(&self.opening, &self.pass)
    }

    fn counted(&self) -> Vec<f64> {
        less(&self.counted, &self.pass)
    }

    fn uncounted(&self) -> Vec<f64> {
        less(&self.uncounted, &self.pass)
    }

    fn counting(&self) -> Vec<f64> {
        less(&self.counted, &self.uncounted)
    }
}

fn cases(report: &Report) -> Table {
    let ours = report.cases.iter().filter(|case| !katran::measured(case));
    let rows = ours.map(|case| {
        let goal = GOALS.iter().find(|(name, _)| *name == case.name);
        let goal = goal.map_or(Cell::Empty, |(_, most)| Cell::text(format!("{most:.0} ns")));
        let cells = vec![
            Cell::figure(&case.above(report.pass)),
            goal,
            Cell::text(&case.about),
        ];
        Row::new(&case.name, cells)
    });
    Table {
        id: "paths".to_owned(),
        title: "One packet, by path".to_owned(),
        of: "packet".to_owned(),
        columns: vec![
            Column::new("time", "ns", 1),
            Column::new("goal", "", 0),
            Column::new("what it is", "", 0),
        ],
        rows: rows.collect(),
    }
}

fn sizes(sweep: &Sweep) -> Table {
    let rows = sweep.points.iter().map(|point| {
        let figures = [
            point.uncounted(),
            point.counted(),
            point.counting(),
            point.opening(),
        ];
        let cells = figures.iter().map(|samples| Cell::figure(samples));
        Row::new(point.size.to_string(), cells.collect())
    });
    Table {
        id: sweep.name.clone(),
        title: match sweep.name.as_str() {
            UPLOAD => format!("Uploads: {}", sweep.about),
            name => format!("By number of {name}: {}", sweep.about),
        },
        of: unit(sweep).to_owned(),
        columns: vec![
            Column::new("not counting", "ns", 1),
            Column::new("counting streams", "ns", 1),
            Column::new("counting adds", "ns", 1),
            Column::new("SYN", "ns", 0),
        ],
        rows: rows.collect(),
    }
}

/// What the sizes of a sweep are numbers of.
fn unit(sweep: &Sweep) -> &str {
    match sweep.name.as_str() {
        UPLOAD => FLOWS,
        name => name,
    }
}

fn plot(sweep: &Sweep) -> Plot {
    let series = |name: &str, figure: fn(&Size) -> Vec<f64>| {
        let points = sweep.points.iter().filter_map(|point| {
            let measured = Measured::of(&figure(point))?;
            Some(Point::measured(point.size.into(), &measured))
        });
        Series {
            name: name.to_owned(),
            points: points.collect(),
        }
    };
    let mut all = vec![
        series("counting streams", Size::counted),
        series("not counting", Size::uncounted),
        series("SYN", Size::opening),
    ];
    all.retain(|series| !series.points.is_empty());
    Plot {
        id: format!("time-by-{}", sweep.name),
        title: format!("Time of a packet by number of {}", sweep.name),
        kind: PlotKind::Lines,
        x: Axis {
            title: sweep.name.clone(),
            logarithmic: true,
            ..Axis::default()
        },
        y: Axis {
            title: "time above a passing program (ns)".to_owned(),
            ..Axis::default()
        },
        series: all,
    }
}

/// What a million flows cost: when every packet is of another one, which none of the processor's caches has, and when
/// they are in the table but a thousand of them carry the traffic.
fn million<'a>(report: &Report, case: &impl Fn(&str) -> Result<&'a Case>) -> Result<Vec<Claim>> {
    let few = case("flows_1k")?.above(report.pass);
    let claim = |name: &str, what: &str| -> Result<Claim> {
        let many = case(name)?.above(report.pass);
        let ratios: Vec<f64> = many.iter().zip(&few).map(|(a, b)| a / b).collect();
        let text =
            format!("A packet of one of {what}: at most {GOAL_RATIO:.0} x one of a thousand");
        Ok(at_most(text, &ratios, GOAL_RATIO, "x"))
    };
    Ok(vec![
        claim("flows_1m", "a million flows")?,
        claim(
            "flows_1k_of_1m",
            "a thousand flows with a million in the table",
        )?,
    ])
}

fn claims(report: &Report) -> Result<Vec<Claim>> {
    let case = |name: &str| report.case(name).with_context(|| format!("no case {name}"));
    let mut claims = Vec::new();
    for (name, most) in GOALS {
        let case = case(name)?;
        claims.push(at_most(
            format!("{}: at most {most:.0} ns", case.about),
            &case.above(report.pass),
            most,
            "ns",
        ));
    }
    claims.extend(million(report, &case)?);
    claims.extend(katran::claims(report));
    claims.extend(counting::claims(report));
    Ok(claims)
}

/// That the median of `samples` is not above `most`.
fn at_most(text: String, samples: &[f64], most: f64, unit: &str) -> Claim {
    let Some(Measured {
        median, low, high, ..
    }) = Measured::of(samples)
    else {
        return Claim::new(text, "not measured", false);
    };
    let digits = if unit == "x" { 2 } else { 1 };
    let seen = format!("{median:.digits$} {unit} ({low:.digits$} to {high:.digits$})");
    Claim::new(text, seen, median <= most)
}
