//! The command line: one file a command, each thin: parse, call, print.
//!
//! To add a command: a module with an `Args` (clap) and `pub fn run(args: &Args, global: &Global) -> anyhow::Result<()>`,
//! a variant in [`Command`] whose doc comment is its help text, and a line in [`dispatch`].
//!
//! Exit status: 0 done, 1 failed (one sentence on stderr), 2 wrong usage (clap says what is allowed).

mod completions;
mod echo;
mod load;
mod local_runtime;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Where the daemon listens if nothing else is configured.
pub const DEFAULT_SOCKET: &str = "/run/evenkeel/control.sock";

/// A load balancer that measures what connection-level balancing does to multiplexed protocols, and fixes it.
#[derive(Debug, Parser)]
#[command(
    name = "evenkeel",
    version,
    propagate_version = true,
    after_help = "Exit status: 0 done, 1 failed (one sentence on stderr says why), 2 wrong usage."
)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options that every command takes.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// Control socket of the daemon.
    #[arg(long, global = true, env = "EVENKEEL_SOCKET", default_value = DEFAULT_SOCKET, value_name = "PATH")]
    pub socket: PathBuf,
    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    pub json: bool,
    /// When to use colour; `auto` is: on a terminal, unless NO_COLOR is set.
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub color: Color,
}

/// When to use colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// What to do.
#[derive(Debug, Subcommand)]
enum Command {
    /// Print a completion script for a shell.
    Completions(completions::Args),
    /// Serve as a demo backend: HTTP/2, gRPC echo and HTTP/1.1 on one port, with exact counts.
    Echo(echo::Args),
    /// Send requests and check every answer: HTTP/2, gRPC or HTTP/1.1, closed or open loop.
    Load(load::Args),
}

fn dispatch(command: &Command, global: &Global) -> anyhow::Result<()> {
    match command {
        Command::Completions(args) => completions::run(args, global),
        Command::Echo(args) => echo::run(args, global),
        Command::Load(args) => load::run(args, global),
    }
}

/// Parses the command line, does what it says and returns the exit status.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(&cli.command, &cli.global) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("evenkeel: {error:#}");
            ExitCode::FAILURE
        }
    }
}
