//! The command line: one file a command, each thin: parse, call, print.
//!
//! To add a command: a module with an `Args` (clap) and `pub fn run(args: &Args, global: &Global) -> anyhow::Result<()>`,
//! a variant in [`Command`] whose doc comment is its help text, and a line in [`dispatch`].
//!
//! Exit status: 0 done, 1 failed (one sentence on stderr), 2 wrong usage (clap says what is allowed).

mod backends;
mod bench_datapath;
mod bench_pinning;
mod check;
mod completions;
mod echo;
mod explain;
mod flows;
mod load;
mod local_runtime;
mod man;
mod mode;
mod observe;
mod output;
mod pinning;
mod proxy;
mod reload;
mod run;
mod services;
mod status;
mod units;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::api::client::Client;
use crate::config::DEFAULT_SOCKET;

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
#[command(next_help_heading = "Global options")]
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

impl Global {
    /// A client of the daemon.
    fn client(&self) -> anyhow::Result<Client> {
        Ok(Client::new(&self.socket)?)
    }

    /// Whether to use colour on stdout.
    fn coloured(&self) -> bool {
        match self.color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => {
                let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
                !refused && std::io::stdout().is_terminal()
            }
        }
    }
}

/// What goes before a text that replaces the one before it: on a terminal a clean page, whatever the colours; in a file
/// or a pipe nothing.
fn new_page() -> &'static str {
    if std::io::stdout().is_terminal() {
        output::CLEAR
    } else {
        ""
    }
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
    /// Run the daemon in the foreground.
    Run(run::Args),
    /// Check this host, and the configuration if one is given; changes nothing.
    Check(check::Args),
    /// Show the daemon: what is attached where, flows, drops by reason.
    Status(status::Args),
    /// List services.
    Services(services::Args),
    /// List, add, drain, weigh or remove backends.
    Backends(backends::Args),
    /// List flows, those with most streams first.
    Flows(flows::Args),
    /// Show how unevenly streams land on backends, and which connections carry them.
    Pinning(pinning::Args),
    /// Watch an interface of any host, without balancing anything: are its RPCs pinned?
    #[command(long_about = observe::ABOUT)]
    Observe(observe::Args),
    /// Choose what a service balances: flows (l4), streams (l7), or let evenkeel choose (auto).
    Mode(mode::Args),
    /// Show where a flow goes, and why.
    Explain(explain::Args),
    /// Take the configuration file in again; a mistake in it changes nothing.
    Reload(reload::Args),
    /// Print a completion script for a shell.
    Completions(completions::Args),
    /// Serve as a demo backend: HTTP/2, gRPC echo and HTTP/1.1 on one port, with exact counts.
    Echo(echo::Args),
    /// Send requests and check every answer: HTTP/2, gRPC or HTTP/1.1, closed or open loop.
    Load(Box<load::Args>),
    /// Forward streams without eBPF and without root: only the L7 path, on addresses of this host.
    Proxy(proxy::Args),
    /// Print the manual page, or that of a command.
    #[command(hide = true)]
    Man(man::Args),
    /// Measure what a packet costs in the data path; `cargo xtask bench datapath` calls it.
    #[command(hide = true)]
    BenchDatapath(bench_datapath::Args),
    /// Simulate how hot connections placed by chance make a backend; `cargo xtask bench pinning` calls it.
    #[command(hide = true)]
    BenchPinning(bench_pinning::Args),
}

fn dispatch(command: &Command, global: &Global) -> anyhow::Result<()> {
    match command {
        Command::Run(args) => run::run(args, global),
        Command::Check(args) => check::run(args, global),
        Command::Status(args) => status::run(args, global),
        Command::Services(args) => services::run(args, global),
        Command::Backends(args) => backends::run(args, global),
        Command::Flows(args) => flows::run(args, global),
        Command::Pinning(args) => pinning::run(args, global),
        Command::Observe(args) => observe::run(args, global),
        Command::Mode(args) => mode::run(args, global),
        Command::Explain(args) => explain::run(args, global),
        Command::Reload(args) => reload::run(args, global),
        Command::Man(args) => man::run(args, global),
        Command::BenchDatapath(args) => bench_datapath::run(args, global),
        Command::BenchPinning(args) => bench_pinning::run(args, global),
        Command::Completions(args) => completions::run(args, global),
        Command::Echo(args) => echo::run(args, global),
        Command::Load(args) => load::run(args, global),
        Command::Proxy(args) => proxy::run(args, global),
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
