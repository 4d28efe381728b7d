//! `evenkeel run`: the daemon.

use std::path::PathBuf;

use super::Global;
use crate::daemon;

/// Arguments of `evenkeel run`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The configuration file.
    #[arg(
        long,
        short,
        default_value = "/etc/evenkeel/evenkeel.toml",
        value_name = "FILE"
    )]
    config: PathBuf,
    /// On SIGTERM leave the data path attached, so that flows of mode l4 carry on and the next start adopts them.
    #[arg(long)]
    keep_datapath: bool,
}

pub(super) fn run(args: &Args, _global: &Global) -> anyhow::Result<()> {
    daemon::run(&daemon::Options {
        config: args.config.clone(),
        keep_datapath: args.keep_datapath,
    })
}
