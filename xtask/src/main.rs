//! `cargo xtask`: developer commands.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use xtask::{
    bench, build, demo, fuzz,
    lab::{self, Lab, Leftovers, Spec},
    setup::{self, Route},
    test, vm,
};

/// Developer commands of evenkeel.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Commands,
}

#[derive(Subcommand)]
enum Commands {
    /// Find what building needs and install what is missing (as root on Debian; elsewhere say the commands).
    Setup {
        /// Also what the tests, the demo and the benchmarks need.
        #[arg(long)]
        tests: bool,
        /// Also the rivals that the benchmarks compare with: nftables, HAProxy, nginx, nghttpx.
        #[arg(long)]
        peers: bool,
        /// Where a Rust for BPF may come from.
        #[arg(long, value_enum, default_value_t)]
        route: Route,
    },
    /// Build the BPF object and the release binary.
    Build {
        /// Only the BPF object.
        #[arg(long)]
        bpf: bool,
        /// Where a Rust for BPF may come from.
        #[arg(long, value_enum, default_value_t)]
        route: Route,
    },
    /// Show pinning and its cure with real traffic in a lab of network namespaces. Builds first.
    Demo {
        /// Only this scene; may be given several times.
        #[arg(long = "scene", value_name = "N")]
        scenes: Vec<usize>,
        /// Print one JSON document instead of the story.
        #[arg(long)]
        json: bool,
        /// Leave the lab running at the end, with the daemon, all services and their backends.
        #[arg(long)]
        keep: bool,
        /// Show what is there without building first.
        #[arg(long)]
        no_build: bool,
    },
    /// Run all tests: unit, property, packet and end-to-end tests. Builds first; needs root.
    Test {
        /// Parts of tests' names, also as FILE::NAME; or whatever the test runner takes, from its first option on.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        filter: Vec<String>,
    },
    /// What must hold before a change is merged: formatting, lints, all tests.
    Ci,
    /// Measure, in turns with rivals: medians, intervals, a report with plots. Builds first; needs root.
    #[command(args_conflicts_with_subcommands = true)]
    Bench {
        /// Which scenarios; all if none is named.
        names: Vec<String>,
        #[command(flatten)]
        extent: Extent,
        /// Where every random choice comes from.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// A checkout of facebookincubator/katran: `datapath` then compiles its program and measures it, too.
        #[arg(long, value_name = "DIR")]
        katran: Option<PathBuf>,
        #[command(subcommand)]
        command: Option<BenchCommands>,
    },
    /// Fuzz the logic that hostile bytes reach first: packets, the stream counter, what measures latency.
    #[command(
        long_about = "Fuzz the logic that hostile bytes reach first, guided by coverage: packets, the stream counter, what \
measures latency. What reached new code is kept in target/fuzz/corpus, and the next run goes on from there. An input that \
breaks a promise is left in fuzz/artifacts. Builds first; needs rustup, but not root."
    )]
    Fuzz {
        /// Which targets: packet, walker, exchange; all if none is named.
        targets: Vec<String>,
        /// How long each of them.
        #[arg(long = "for", value_name = "DURATION", default_value = "1m", value_parser = humantime::parse_duration)]
        time: Duration,
    },
    /// Boot other kernels and prove that evenkeel works on them. Builds first; needs apt, but neither root nor KVM.
    #[command(
        long_about = "Boot other kernels and prove that evenkeel works on them. Kernels are downloaded from the \
distribution (Debian), never installed, and booted in qemu with an emulated processor: a minute or three for each, \
which is why this is no part of `cargo xtask test`. Needs apt, but neither root (once qemu is there) nor KVM.

In each: all of `evenkeel check`, then requests through evenkeel on the tc and on the xdp hook, in mode l4 and in mode \
l7, and seen by `evenkeel observe`; what the kernel counted must be what the client got, to the stream. The serial \
console of each is kept in target/vm/KERNEL.log."
    )]
    Vm {
        /// Beginning of a version, e.g. 6.1: the newest kernel of those is taken; may be given several times
        /// [default: 6.1 and 6.12].
        #[arg(long = "kernel", value_name = "VERSION")]
        kernels: Vec<String>,
        /// How long one kernel may take, e.g. `20m`.
        #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = humantime::parse_duration)]
        timeout: Duration,
        /// Print one JSON document instead of the table.
        #[arg(long)]
        json: bool,
        /// Try what is there without building first.
        #[arg(long)]
        no_build: bool,
    },
    /// The network-namespace lab by itself.
    Lab {
        #[command(subcommand)]
        command: LabCommands,
    },
}

#[derive(Clone, Copy, clap::Args)]
#[group(multiple = false)]
struct Extent {
    /// Fewer rounds and fewer points: everything in less than five minutes.
    #[arg(long)]
    quick: bool,
    /// Every round and every point, which takes up to an hour (the default).
    #[arg(long)]
    full: bool,
}

#[derive(Clone, Copy, Subcommand)]
enum BenchCommands {
    /// Make report.html, report.md and csv/ again from the stored results, without measuring.
    Report,
    /// Write the figures of README.md and docs/figures.md from the stored results.
    Readme,
}

#[derive(Subcommand)]
enum LabCommands {
    /// Make a lab and leave it for you to look around in.
    New {
        /// Number of backends.
        #[arg(long, default_value_t = 2)]
        backends: usize,
        /// The balancer is the backends' gateway, as forwarding dnat needs.
        #[arg(long)]
        gateway: bool,
    },
    /// Remove what dead runs left behind, and labs that were kept.
    Clean {
        /// Only these, such as ek4711x0; all if none is named.
        labs: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(&Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Commands) -> Result<()> {
    match command {
        Commands::Setup {
            tests,
            peers,
            route,
        } => setup::run(*route, *tests, *peers),
        Commands::Build { bpf, route } => {
            let built = if *bpf { build::bpf } else { build::run };
            println!("{}", built(*route)?.display());
            Ok(())
        }
        Commands::Demo {
            scenes,
            json,
            keep,
            no_build,
        } => demo::run(&demo::Options {
            scenes: scenes.clone(),
            json: *json,
            keep: *keep,
            no_build: *no_build,
        }),
        Commands::Test { filter } => test::run(filter),
        Commands::Ci => test::ci(),
        Commands::Bench {
            command: Some(BenchCommands::Report),
            ..
        } => bench::report(),
        Commands::Bench {
            command: Some(BenchCommands::Readme),
            ..
        } => bench::readme(),
        Commands::Bench {
            names,
            extent,
            seed,
            katran,
            command: None,
        } => {
            let context = bench::Context {
                quick: extent.quick,
                seed: *seed,
                katran: katran.clone(),
            };
            measure(names, &context)
        }
        Commands::Fuzz { targets, time } => fuzz::run(targets, *time),
        Commands::Vm {
            kernels,
            timeout,
            json,
            no_build,
        } => vm::run(&vm::Options {
            kernels: kernels.clone(),
            timeout: *timeout,
            json: *json,
            no_build: *no_build,
        }),
        Commands::Lab { command } => lab(command),
    }
}

fn measure(names: &[String], context: &bench::Context) -> Result<()> {
    // What a killed run left behind may still run, and take the processor from what is measured.
    lab::clean(Leftovers::Abandoned, &[])?;
    bench::run(names, context)
}

fn lab(command: &LabCommands) -> Result<()> {
    match command {
        LabCommands::New { backends, gateway } => {
            let spec = Spec {
                backends: *backends,
                gateway: *gateway,
                ..Spec::default()
            };
            let mut lab = Lab::new(&spec)?;
            lab.keep()?;
            println!("{}", lab.describe());
        }
        LabCommands::Clean { labs } => {
            let removed = lab::clean(Leftovers::AlsoKept, labs)?;
            for id in &removed {
                println!("removed {id}");
            }
            if let Some(other) = labs.iter().find(|id| !removed.contains(id)) {
                bail!("{other} is no lab that was kept or left behind");
            }
        }
    }
    Ok(())
}
