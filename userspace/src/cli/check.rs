//! `evenkeel check`: can this host do it, and is the configuration right? Changes nothing.

use std::path::PathBuf;

use anyhow::bail;

use super::Global;
use crate::config::{self, Config};

/// Arguments of `evenkeel check`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Check this configuration file, too.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(args: &Args, _global: &Global) -> anyhow::Result<()> {
    if let Some(path) = &args.config {
        let checked = Config::load(path).and_then(|config| {
            config::host::check(&config)?;
            Ok(config)
        });
        if let Err(errors) = checked {
            eprintln!("{errors}");
            let count = errors.errors().len();
            bail!(
                "{} has {count} mistake{}",
                path.display(),
                if count == 1 { "" } else { "s" }
            );
        }
    }
    Ok(())
}
