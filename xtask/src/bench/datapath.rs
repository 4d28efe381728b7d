//! What one packet costs in the data path: each XDP program run on one packet at a time by the kernel
//! (`BPF_PROG_TEST_RUN`), without a network. `evenkeel bench-datapath` measures; here are the namespace that its
//! routes need, and the goals.

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::host::idle;
use super::{Context, Outcome};
use crate::{
    lab::{Lab, Spec},
    shell,
    term::{Colour, Progress, paint},
    workspace,
};

/// Most nanoseconds above a program that passes everything, by case. The first three are what Katran's program took
/// on the machine that the goals were set on.
const GOALS: [(&str, f64); 3] = [
    ("established", 140.0),
    ("opening", 340.0),
    ("unrelated", 50.0),
];
/// Most that a million flows may cost, against a thousand.
const GOAL_RATIO: f64 = 2.0;
/// CPUs that a quiet host may spend on its own.
const QUIET: f64 = 0.05;

pub(super) fn run(_context: &Context) -> Result<Outcome> {
    let lab = Lab::new(&Spec {
        backends: 1,
        ..Spec::default()
    })?;
    let backend = lab.backend_address(0, 1)?.ip().to_string();
    lab.balancer().ip(&[&format!(
        "neigh replace {backend} lladdr 02:00:00:00:00:01 dev b1 nud permanent"
    )])?;
    let idle = idle()?;
    if idle > QUIET {
        println!(
            "  note: other programs keep {idle:.2} CPUs of this host busy; the figures will be rough"
        );
    }
    let progress = Progress::start("six kinds of packet in turns, 100,000 each, five rounds");
    let mut bench = lab.balancer().command(workspace::evenkeel()?);
    let printed = shell::capture(bench.args(["bench-datapath", "--json", "--backend", &backend]))?;
    progress.done();
    let report: Value = serde_json::from_str(&printed).context("what bench-datapath printed")?;
    print(&report).with_context(|| format!("bench-datapath printed:\n{printed}"))?;
    Ok(Outcome::default())
}

fn print(report: &Value) -> Result<()> {
    let number = |value: &Value, key: &str| value[key].as_f64().with_context(|| key.to_owned());
    println!("  packet                  total    above pass       goal");
    println!("  {:<16} {:>9.1} ns", "pass", number(report, "pass")?);
    let cases = report["cases"].as_array().context("cases")?;
    for case in cases {
        let name = case["name"].as_str().context("name")?;
        let above = number(case, "above_pass")?;
        let goal = GOALS.iter().find(|(goal, _)| *goal == name);
        let verdict = goal.map_or(String::new(), |(_, most)| {
            format!("{most:>6.0} ns  {}", judge(above <= *most))
        });
        println!(
            "  {name:<16} {:>9.1} ns {above:>9.1} ns  {verdict:<20}  {}",
            number(case, "nanoseconds")?,
            case["about"].as_str().context("about")?
        );
    }
    let total = |name: &str| {
        let case = cases.iter().find(|case| case["name"] == name);
        number(case.context("case")?, "nanoseconds")
    };
    let ratio = total("flows_1m")? / total("flows_1k")?;
    println!(
        "  a million flows cost {ratio:.2} x a thousand; goal {GOAL_RATIO:.1} x  {}",
        judge(ratio <= GOAL_RATIO)
    );
    Ok(())
}

fn judge(reached: bool) -> String {
    if reached {
        paint(Colour::Green, "pass")
    } else {
        paint(Colour::Red, "miss")
    }
}
