//! `cargo xtask`: developer commands.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::{
    bench, build, demo,
    lab::{self, Lab, Leftovers, Spec},
    setup::{self, Route},
    test,
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
        /// Leave the lab and the daemon running at the end.
        #[arg(long)]
        keep: bool,
        /// Show what is there without building first.
        #[arg(long)]
        no_build: bool,
    },
    /// Run all tests: unit, property, packet and end-to-end tests. Builds first; needs root.
    Test {
        /// Passed to the test runner, e.g. part of a test's name.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        filter: Vec<String>,
    },
    /// What must hold before a change is merged: formatting, lints, all tests.
    Ci,
    /// Measure, in turns with rivals, and print medians and ratios. Builds first; needs root.
    Bench {
        /// Which scenarios; all if none is named.
        names: Vec<String>,
        /// Fewer rounds and fewer points: everything in less than five minutes.
        #[arg(long)]
        quick: bool,
        /// Where every random choice comes from.
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
    /// The network-namespace lab by itself.
    Lab {
        #[command(subcommand)]
        command: LabCommands,
    },
}

#[derive(Clone, Copy, Subcommand)]
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
    Clean,
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
        Commands::Setup { tests, route } => setup::run(*route, *tests),
        Commands::Build { bpf: true, route } => {
            println!("{}", build::bpf(*route)?.display());
            Ok(())
        }
        Commands::Build { bpf: false, route } => {
            println!("{}", build::run(*route)?.display());
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
        Commands::Bench { names, quick, seed } => bench::run(
            names,
            &bench::Context {
                quick: *quick,
                seed: *seed,
            },
        ),
        Commands::Lab { command } => lab(*command),
    }
}

fn lab(command: LabCommands) -> Result<()> {
    match command {
        LabCommands::New { backends, gateway } => {
            let spec = Spec {
                backends,
                gateway,
                ..Spec::default()
            };
            let mut lab = Lab::new(&spec)?;
            lab.keep()?;
            println!("{}", lab.describe());
        }
        LabCommands::Clean => {
            for id in lab::clean(Leftovers::AlsoKept)? {
                println!("removed {id}");
            }
        }
    }
    Ok(())
}
