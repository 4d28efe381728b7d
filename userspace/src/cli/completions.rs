//! `evenkeel completions SHELL`: a completion script on stdout.

use clap::CommandFactory;

use super::{Cli, Global};

/// Arguments of `evenkeel completions`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Shell to write for.
    shell: clap_complete::Shell,
}

pub(super) fn run(args: &Args, _global: &Global) -> anyhow::Result<()> {
    clap_complete::generate(
        args.shell,
        &mut Cli::command(),
        "evenkeel",
        &mut std::io::stdout(),
    );
    Ok(())
}
