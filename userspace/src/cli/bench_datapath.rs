//! `evenkeel bench-datapath`: what a packet costs in the data path. For `cargo xtask bench datapath`, which makes the
//! network namespace that it needs.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use super::Global;
use crate::datapath::bench;

/// Arguments of `evenkeel bench-datapath`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// An address with a route and a resolved neighbour.
    #[arg(long, value_name = "ADDRESS")]
    backend: Ipv4Addr,
    /// Packets of each case in each round.
    #[arg(long, default_value_t = 100_000, value_name = "N")]
    packets: u32,
    /// Rounds.
    #[arg(long, default_value_t = 5, value_name = "N")]
    rounds: usize,
    /// Also on tables of other sizes (flows, backends, services), with and without counting streams.
    #[arg(long)]
    sweeps: bool,
    /// Katran's object file, to be measured beside ours.
    #[arg(long, value_name = "FILE")]
    katran: Option<PathBuf>,
}

pub(super) fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let report = bench::run(&bench::Plan {
        backend: args.backend,
        packets: args.packets,
        rounds: args.rounds,
        sweeps: args.sweeps,
        katran: args.katran.clone(),
    })?;
    if global.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
        return Ok(());
    }
    println!("pass {:.1} ns", report.pass);
    for case in report.cases {
        println!(
            "{:<16} {:>7.1} ns {:>7.1} ns above pass  {}",
            case.name, case.nanoseconds, case.above_pass, case.about
        );
    }
    Ok(())
}
