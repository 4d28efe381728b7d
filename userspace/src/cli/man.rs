//! `evenkeel man`: the manual page, or that of a command, in roff.

use anyhow::Context;
use clap::CommandFactory;

use super::{Cli, Global};

/// Arguments of `evenkeel man`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Of this command, `observe` for example.
    #[arg(value_name = "COMMAND")]
    of: Option<String>,
}

pub(super) fn run(args: &Args, _global: &Global) -> anyhow::Result<()> {
    let mut all = Cli::command();
    // Names of commands are whole only then: `evenkeel-observe`.
    all.build();
    let page = match &args.of {
        None => all,
        Some(name) => all
            .find_subcommand(name)
            .cloned()
            .with_context(|| format!("there is no command {name:?}"))?,
    };
    Ok(clap_mangen::Man::new(page).render(&mut std::io::stdout())?)
}
