//! `cargo xtask bench`: figures that can be had again, each next to its rival in the same run.
//!
//! Absolute figures move from machine to machine and from minute to minute; so rivals are measured in turns, medians
//! are compared, and the ratio is what counts.
//!
//! To add a benchmark: a module with a `run`, and a line in [`BENCHES`].

mod datapath;
mod host;
mod l4;
mod l7;

use anyhow::{Result, bail, ensure};

use crate::{
    build,
    lab::{self, Leftovers},
    setup::{self, Route},
    term::{Colour, paint},
    workspace,
};

/// A benchmark.
struct Bench {
    /// What to call it on the command line.
    name: &'static str,
    /// What it answers.
    about: &'static str,
    /// Measures and prints.
    run: fn() -> Result<()>,
}

static BENCHES: &[Bench] = &[
    Bench {
        name: "datapath",
        about: "time of the XDP program per packet: established, new and unrelated flows; a million flows",
        run: datapath::run,
    },
    Bench {
        name: "l4",
        about: "CPU of the whole host per request: evenkeel nat, nftables DNAT, no balancer",
        run: l4::run,
    },
    Bench {
        name: "l7",
        about: "CPU of the proxy per request, and p99: evenkeel and HAProxy, h2 to h2, one core each",
        run: l7::run,
    },
];

/// Runs the benchmarks called `names`, or all.
pub fn run(names: &[String]) -> Result<()> {
    let known: Vec<&str> = BENCHES.iter().map(|bench| bench.name).collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        bail!(
            "there is no benchmark {unknown}; there are: {}",
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
    for bench in BENCHES {
        if names.is_empty() || names.iter().any(|name| name == bench.name) {
            println!("\n{}  {}", paint(Colour::Bold, bench.name), bench.about);
            (bench.run)()?;
        }
    }
    Ok(())
}
