//! bpf-linker: links LLVM bitcode to a BPF object. It reads bitcode up to its own LLVM's version and no newer.

use std::{env, fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use super::debian;
use crate::{shell, workspace};

/// The version that is built where none is found.
const VERSION: &str = "0.13.0";
/// The LLVM that it is built with: the newest that the toolchains of [`super::toolchain`] may have.
pub(super) const LLVM: u32 = 22;

/// Where rustup says which toolchain runs us. Here it must stay the same: without it, rustup would ask the
/// rust-toolchain.toml of every crate that is compiled, and update the user's toolchain to give one what it wants there.
const TOOLCHAIN: &str = "RUSTUP_TOOLCHAIN";

/// A bpf-linker that is there: on PATH, or built by an earlier setup of any clone.
pub(super) fn find() -> Option<PathBuf> {
    if let Some(path) = workspace::which("bpf-linker") {
        return Some(path);
    }
    let built = home().join("bin/bpf-linker");
    built.is_file().then_some(built)
}

fn home() -> PathBuf {
    workspace::cache().join(format!("bpf-linker-{VERSION}"))
}

/// Finds or builds bpf-linker.
pub(super) fn provide() -> Result<PathBuf> {
    if let Some(found) = find() {
        return Ok(found);
    }
    let prefix = PathBuf::from(format!("/usr/lib/llvm-{LLVM}"));
    let mut command = Command::new(workspace::cargo());
    shell::forget_outer_build(&mut command);
    if let Some(toolchain) = env::var_os(TOOLCHAIN) {
        command.env(TOOLCHAIN, toolchain);
    }
    command
        .current_dir(env::temp_dir())
        .env("LLVM_PREFIX", &prefix)
        // All its work is done inside LLVM, which is compiled already: optimising the rest triples the build.
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "0")
        .env("CARGO_PROFILE_RELEASE_DEBUG", "0")
        .args(["install", "bpf-linker", "--version", VERSION, "--locked"])
        .args(["--no-default-features", "--features"])
        .arg(format!("llvm-{LLVM}"))
        .arg("--root")
        .arg(home());
    if !prefix.join("bin/llvm-config").is_file() || !polly(&prefix) {
        let packages = [format!("llvm-{LLVM}-dev"), format!("libpolly-{LLVM}-dev")];
        debian::install(&packages.each_ref().map(String::as_str)).with_context(|| {
            format!(
                "bpf-linker needs LLVM {LLVM}; after that: {}",
                shell::describe(&command)
            )
        })?;
    }
    fs::create_dir_all(workspace::cache())?;
    shell::quietly("building bpf-linker (once per user)", &mut command)
        .context("bpf-linker does not build")?;
    find().context("cargo installed no bpf-linker")
}

/// LLVM's own list of libraries names Polly, which Debian keeps in a package of its own.
fn polly(prefix: &std::path::Path) -> bool {
    prefix.join("lib/libPolly.a").is_file()
}
