//! `cargo xtask bench`: figures that can be had again, each next to its rival in the same run.
//!
//! Absolute figures move from machine to machine and from minute to minute; so rivals are measured in turns, medians
//! are compared, and the ratio is what counts.
//!
//! To add a scenario: a module with a `run`, and a line in [`SCENARIOS`].

mod context;
mod datapath;
mod host;
mod l4;
mod l7;
pub mod result;
pub mod stats;

pub use context::Context;
pub use result::Outcome;

use anyhow::{Result, bail, ensure};

use crate::{
    build,
    lab::{self, Leftovers},
    setup::{self, Route},
    term::{Colour, paint},
    workspace,
};

/// A scenario.
struct Scenario {
    /// What to call it on the command line.
    name: &'static str,
    /// What it answers.
    about: &'static str,
    /// Measures.
    run: fn(&Context) -> Result<Outcome>,
}

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

/// Runs the scenarios called `names`, or all.
pub fn run(names: &[String], context: &Context) -> Result<()> {
    let known: Vec<&str> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        bail!(
            "there is no scenario {unknown}; there are: {}",
            known.join(", ")
        );
    }
    ensure!(
        workspace::is_root(),
        "the benchmarks load BPF programs and make network namespaces: run them as root"
    );
    setup::lab_tools()?;
    setup::test_tools()?;
    build::run(Route::Any)?;
    lab::clean(Leftovers::Abandoned)?;
    for scenario in SCENARIOS {
        if names.is_empty() || names.iter().any(|name| name == scenario.name) {
            println!(
                "\n{}  {}",
                paint(Colour::Bold, scenario.name),
                scenario.about
            );
            (scenario.run)(context)?;
        }
    }
    Ok(())
}
