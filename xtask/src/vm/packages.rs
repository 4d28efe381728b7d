//! Kernels from the distribution: found, downloaded and unpacked, never installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::version::{self, Kernel};
use crate::{setup, shell, workspace};

/// What booting a kernel takes, and the Debian packages that bring it.
const PACKAGES: &[&str] = &[
    "qemu-system-x86",
    "busybox-static",
    "cpio",
    "xz-utils",
    "binutils",
    "iproute2",
    "ethtool",
];

/// Programs that nothing works without, whoever brought them.
const PROGRAMS: &[&str] = &["apt-cache", "apt-get", "dpkg-deb"];

/// Installs what is missing, or says in one sentence what cannot be had here.
pub(super) fn provide() -> Result<()> {
    ensure!(
        cfg!(target_arch = "x86_64"),
        "kernels are booted on x86-64 only, as they are packaged for it"
    );
    if let Some(missing) = PROGRAMS.iter().find(|it| workspace::which(it).is_none()) {
        bail!("kernels are taken from Debian packages, and there is no {missing} here");
    }
    setup::install_packages(PACKAGES)
}

/// The kernels that `wanted` means, each the newest of its kind.
pub(super) fn choose(wanted: &[String]) -> Result<Vec<Kernel>> {
    let list = shell::capture(Command::new("apt-cache").args([
        "search",
        "--names-only",
        "^linux-image-[0-9].*-cloud-amd64$",
    ]))?;
    let known = version::kernels(&list);
    let mut chosen = Vec::new();
    for wanted in wanted {
        let Some(kernel) = version::newest(&known, wanted) else {
            let known: Vec<&str> = known.iter().map(|it| it.release.as_str()).collect();
            bail!(
                "no packaged kernel is a {wanted}; `apt-get update` reads the lists again; they have: {}",
                if known.is_empty() {
                    "none".to_owned()
                } else {
                    known.join(", ")
                }
            );
        };
        if !chosen.contains(kernel) {
            chosen.push(kernel.clone());
        }
    }
    Ok(chosen)
}

/// The directory that `kernel` is unpacked in, below `cache`; downloaded the first time.
pub(super) fn unpacked(kernel: &Kernel, cache: &Path) -> Result<PathBuf> {
    let directory = cache.join("kernels").join(&kernel.release);
    if directory.is_dir() {
        return Ok(directory);
    }
    // Unpacked beside its place and renamed: what is in its place is whole.
    let partial = cache.join("partial").join(&kernel.release);
    if partial.exists() {
        fs::remove_dir_all(&partial)?;
    }
    fs::create_dir_all(&partial)?;
    shell::quietly(
        &format!("downloading Linux {}", kernel.release),
        Command::new("apt-get")
            .args(["-q", "-o", "Acquire::Retries=3", "download"])
            .arg(kernel.package())
            .current_dir(&partial),
    )
    .context("if the package is gone, `apt-get update` finds the one that replaced it")?;
    let package = only_file(&partial, "deb")?;
    let content = partial.join("content");
    shell::quietly(
        &format!("unpacking Linux {}", kernel.release),
        Command::new("dpkg-deb")
            .arg("--extract")
            .args([&package, &content]),
    )?;
    fs::create_dir_all(cache.join("kernels"))?;
    fs::rename(&content, &directory)?;
    fs::remove_dir_all(&partial)?;
    Ok(directory)
}

fn only_file(directory: &Path, extension: &str) -> Result<PathBuf> {
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == extension) {
            return Ok(path);
        }
    }
    bail!("no .{extension} file in {}", directory.display())
}
