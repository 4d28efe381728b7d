//! Installing Debian packages, or saying which.

use std::{path::Path, process::Command, sync::Mutex};

use anyhow::{Context as _, Result, bail};

use crate::{shell, workspace};

/// Whether packages come from apt here.
pub(super) fn is_debian() -> bool {
    Path::new("/etc/debian_version").exists() && workspace::which("apt-get").is_some()
}

/// Installs those of `packages` that are missing; an error says the command to run where we may not.
pub fn install(packages: &[&str]) -> Result<()> {
    /// Whether the package lists are fresh; also keeps our own threads from meeting at dpkg's lock.
    static UPDATED: Mutex<bool> = Mutex::new(false);

    let missing: Vec<&str> = packages
        .iter()
        .copied()
        .filter(|package| !installed(package))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !is_debian() {
        bail!("please install what Debian calls: {list}");
    }
    if !workspace::is_root() {
        bail!("please run: sudo apt-get update && sudo apt-get install -y {list}");
    }
    let mut updated = UPDATED
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if !*updated {
        // A list that cannot be refreshed (one of several mirrors down) may still be good enough to install from.
        if let Err(error) = shell::quietly("apt-get update", apt().arg("update")) {
            eprintln!("  {error:#}");
        }
        *updated = true;
    }
    shell::quietly(
        &format!("apt-get install {list}"),
        apt()
            .args(["install", "-y", "--no-install-recommends"])
            .args(&missing),
    )
    .with_context(|| format!("cannot install {list}"))
}

fn apt() -> Command {
    let mut command = Command::new("apt-get");
    command.env("DEBIAN_FRONTEND", "noninteractive").args([
        "-q",
        "-o",
        "DPkg::Lock::Timeout=300",
        "-o",
        "Acquire::Retries=3",
    ]);
    command
}

fn installed(package: &str) -> bool {
    shell::capture(Command::new("dpkg-query").args(["-W", "-f=${db:Status-Status}", package]))
        .is_ok_and(|status| status == "installed")
}
