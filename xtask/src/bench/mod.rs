//! `cargo xtask bench`: figures that can be had again, each next to its rival in the same run.
//!
//! Absolute figures move from machine to machine and from minute to minute; so rivals are measured in turns, medians
//! are compared, and the ratio is what counts.
//!
//! ```text
//! scenario ──▶ Outcome ──▶ results/NAME.json ──▶ terminal, report.html, report.md, csv/, README, docs/figures.md
//! host     ──▶ Facts   ──▶ host.json         ──┘
//! ```
//!
//! To add a scenario: a module with a `run`, and a line in [`SCENARIOS`].

mod context;
mod datapath;
pub mod facts;
mod host;
mod l4;
mod l7;
pub mod number;
pub mod report;
pub mod result;
mod runner;
pub mod stats;
pub mod store;
mod terminal;

pub use context::Context;
pub use result::Outcome;
pub use runner::run;

use anyhow::Result;

use store::Results;

/// A scenario.
struct Scenario {
    /// What to call it on the command line.
    name: &'static str,
    /// What it answers.
    about: &'static str,
    /// Measures.
    run: fn(&Context) -> Result<Outcome>,
}

/// In the order that they run in, and are reported in.
static SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "datapath",
        about: "time of the XDP program per packet: established, new and unrelated flows; a million flows",
        run: datapath::run,
    },
    Scenario {
        name: "l4",
        about: "CPU of the whole host per request: evenkeel nat, nftables DNAT, no balancer",
        run: l4::run,
    },
    Scenario {
        name: "l7",
        about: "CPU of the proxy per request, and p99: evenkeel and HAProxy, h2 to h2, one core each",
        run: l7::run,
    },
];

/// Makes the report again from what is stored, without measuring.
pub fn report() -> Result<()> {
    let page = report::write(&Results::load(names())?)?;
    println!("{}", page.display());
    Ok(())
}

/// Writes the figures of README.md and docs/figures.md from what is stored.
pub fn readme() -> Result<()> {
    report::readme(&Results::load(names())?)
}

/// Names of all scenarios, in the order that they run in.
pub fn names() -> impl Iterator<Item = &'static str> {
    SCENARIOS.iter().map(|scenario| scenario.name)
}
