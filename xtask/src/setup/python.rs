//! The Python environment of the tests: grpcio, whose gRPC is as independent of ours as can be.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::debian;
use crate::{shell, workspace};

/// What the environment holds; changing it makes a new one.
const REQUIREMENTS: &[&str] = &["grpcio", "grpcio-tools"];

fn home() -> PathBuf {
    workspace::cache().join("python")
}

fn stamp() -> PathBuf {
    home().join("evenkeel-requirements")
}

fn ready() -> bool {
    fs::read_to_string(stamp()).is_ok_and(|have| have == REQUIREMENTS.join(" "))
        && home().join("bin/python").exists()
}

/// The interpreter that has [`REQUIREMENTS`].
pub fn interpreter() -> Result<PathBuf> {
    if !ready() {
        bail!("the tests' Python environment is missing: run `cargo xtask setup --tests`");
    }
    Ok(home().join("bin/python"))
}

/// Finds or makes the environment.
pub(super) fn provide() -> Result<()> {
    if ready() {
        return Ok(());
    }
    let _lock = super::exclusive()?;
    if ready() {
        return Ok(());
    }
    // Debian's own python3 first: others that precede it on PATH often come without venv.
    let base = Path::new("/usr/bin/python3");
    if debian::is_debian() {
        debian::install(&["python3-venv"])?;
    }
    let base = if base.exists() {
        base.to_owned()
    } else {
        workspace::which("python3").context("the tests need python3 with venv")?
    };
    shell::quietly(
        "making the tests' Python environment",
        Command::new(base)
            .args(["-m", "venv", "--clear"])
            .arg(home()),
    )?;
    shell::quietly(
        &format!("pip install {}", REQUIREMENTS.join(" ")),
        Command::new(home().join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--no-input"])
            .args(REQUIREMENTS),
    )?;
    fs::write(stamp(), REQUIREMENTS.join(" "))?;
    Ok(())
}
