//! Start, signals, end.

use std::path::PathBuf;

/// How to run the daemon.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration file.
    pub config: PathBuf,
    /// On a clean stop leave the data path attached.
    pub keep_datapath: bool,
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// The configuration or this host is not as it must be.
pub fn run(_options: &Options) -> anyhow::Result<()> {
    anyhow::bail!("not wired")
}
