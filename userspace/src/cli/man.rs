//! `evenkeel man`: the manual page, in roff.

use clap::CommandFactory;

use super::{Cli, Global};

/// Arguments of `evenkeel man`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args, _global: &Global) -> anyhow::Result<()> {
    Ok(clap_mangen::Man::new(Cli::command()).render(&mut std::io::stdout())?)
}
