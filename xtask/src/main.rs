//! `cargo xtask`: developer commands.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::{
    build,
    setup::{self, Route},
};

/// Developer commands of evenkeel.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Commands,
}

#[derive(Clone, Copy, Subcommand)]
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
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Commands) -> Result<()> {
    match command {
        Commands::Setup { tests, route } => setup::run(route, tests),
        Commands::Build { bpf: true, route } => {
            println!("{}", build::bpf(route)?.display());
            Ok(())
        }
        Commands::Build { bpf: false, route } => {
            println!("{}", build::run(route)?.display());
            Ok(())
        }
    }
}
