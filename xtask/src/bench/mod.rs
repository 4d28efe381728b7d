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

mod attempts;
mod context;
mod datapath;
pub mod facts;
mod hol;
mod host;
pub mod number;
mod observe;
mod peers;
mod pinning;
mod probe;
mod protocols;
pub mod report;
pub mod result;
mod runner;
pub mod stats;
pub mod store;
mod terminal;
mod websocket;

pub use context::Context;
pub use result::Outcome;
pub use runner::run;

use anyhow::{Result, ensure};

use store::Results;

/// A scenario.
struct Scenario {
    /// What to call it on the command line.
    name: &'static str,
    /// What it answers.
    about: &'static str,
    /// Measures.
    run: fn(&Context) -> Result<Outcome>,
    /// Whether it takes `bench-peer`, which is long to build.
    bench_peer: bool,
}

/// In the order that they run in, and are reported in.
static SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "pinning",
        about: "hot factor, fairness and latency over the number of clients, by who balances: L4, L7, client, pools",
        run: pinning::run,
        bench_peer: false,
    },
    Scenario {
        name: "peers-l4",
        about: "balancing flows: evenkeel at TC and XDP, nftables, HAProxy tcp, nginx stream, no balancer",
        run: peers::run_l4,
        bench_peer: false,
    },
    Scenario {
        name: "peers-l7",
        about: "balancing streams: evenkeel, HAProxy, nginx grpc_pass, nghttpx; h2 to h2, one worker each",
        run: peers::run_l7,
        bench_peer: false,
    },
    Scenario {
        name: "datapath",
        about: "time of the XDP program per packet, by path, by size of the tables, with and without counting",
        run: datapath::run,
        bench_peer: false,
    },
    Scenario {
        name: "observe",
        about: "evenkeel observe beside somebody else's proxy: what it costs, and whether it sees what the backends count",
        run: observe::run,
        bench_peer: false,
    },
    Scenario {
        name: "hol",
        about: "small requests beside a download: HTTP/1.1, HTTP/2 in pools, HTTP/3; over loss and round-trip time",
        run: hol::run,
        bench_peer: true,
    },
    Scenario {
        name: "websocket",
        about: "WebSocket sessions that lose their backend: who finds his state again, and how level it is after",
        run: websocket::run,
        bench_peer: true,
    },
    Scenario {
        name: "protocols",
        about: "what HTTP/1.1, HTTP/2, gRPC, WebSocket and HTTP/3 trade: fairness, p99 clean and lossy, cost",
        run: protocols::run,
        bench_peer: true,
    },
    Scenario {
        name: "loadgen",
        about: "whether evenkeel load can be trusted: h2load beside it, and backends of known latency",
        run: peers::run_loadgen,
        bench_peer: false,
    },
];

/// Makes the report again from what is stored, without measuring.
pub fn report() -> Result<()> {
    let results = Results::load(names())?;
    let page = report::write(&results)?;
    println!("{}", page.display());
    let complaints = report::complaints(&results)?;
    ensure!(
        complaints.is_empty(),
        "a browser does not show it as it should:\n{}",
        complaints.join("\n")
    );
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
