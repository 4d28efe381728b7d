//! What every scenario is told about its run.

use std::{fs, path::PathBuf};

use anyhow::Result;

use crate::workspace;

/// A run of `cargo xtask bench`.
#[derive(Clone, Debug)]
pub struct Context {
    /// A scenario then keeps to its share of five minutes for all, with fewer rounds and fewer points, and leaves out
    /// no table or plot.
    pub quick: bool,
    /// Where every random choice comes from, so that a run can be repeated.
    pub seed: u64,
    /// A checkout of Katran, whose program the data path is then compared with.
    pub katran: Option<PathBuf>,
}

impl Context {
    /// `full`, or `quick` in a quick run.
    #[must_use]
    pub fn choose<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// A directory for the files of scenario `name` (what peers log, their configuration); made if need be.
    pub fn scratch(&self, name: &str) -> Result<PathBuf> {
        let directory = workspace::target()?
            .join("bench")
            .join("scratch")
            .join(name);
        fs::create_dir_all(&directory)?;
        Ok(directory)
    }
}
