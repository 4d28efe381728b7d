//! cargo-fuzz: builds fuzz targets with the instrumentation that libFuzzer needs, and runs them.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};

use super::{Route, Toolchain, exclusive, toolchain};
use crate::{shell, workspace};

/// The version that is built where none is found.
const VERSION: &str = "0.13.2";

/// What fuzzing takes.
#[derive(Debug)]
pub struct FuzzTools {
    program: PathBuf,
    /// The nightly, as rustup calls it: instrumentation is an unstable flag of rustc.
    toolchain: String,
}

impl FuzzTools {
    /// cargo-fuzz with that toolchain; the caller adds what it is to do.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        shell::forget_outer_build(&mut command)
            .env("RUSTUP_TOOLCHAIN", &self.toolchain)
            .arg("fuzz");
        command
    }
}

/// Finds or installs cargo-fuzz and a nightly.
pub fn fuzz_tools() -> Result<FuzzTools> {
    let _lock = exclusive()?;
    let nightly = toolchain::provide(Route::Rustup)?;
    let Some(Toolchain::Rustup { name, .. }) = nightly.first() else {
        bail!("fuzzing needs a nightly of rustup");
    };
    Ok(FuzzTools {
        program: program()?,
        toolchain: name.clone(),
    })
}

fn program() -> Result<PathBuf> {
    if let Some(found) = workspace::which("cargo-fuzz") {
        return Ok(found);
    }
    let home = workspace::cache().join(format!("cargo-fuzz-{VERSION}"));
    let built = home.join("bin/cargo-fuzz");
    if !built.is_file() {
        let mut install = Command::new(workspace::cargo());
        shell::forget_outer_build(&mut install)
            .current_dir(std::env::temp_dir())
            .args(["install", "cargo-fuzz", "--version", VERSION, "--locked"])
            .arg("--root")
            .arg(&home);
        shell::quietly("building cargo-fuzz (once per user)", &mut install)
            .context("cargo-fuzz does not build")?;
    }
    Ok(built)
}
