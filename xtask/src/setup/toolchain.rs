//! A Rust that compiles for `bpfel-unknown-none`, by one of two routes:
//!
//! 1. a nightly of rustup with rust-src, which compiles `core` along with the program (`-Z build-std`);
//! 2. a rustc whose sysroot has a compiled `core` for the target, as Debian's `rustc-web` with
//!    `libstd-rust-web-dev-bpf`; `RUSTC_BOOTSTRAP=1` lets it take the unstable features that aya-ebpf asks for.
//!
//! Its LLVM must not be newer than bpf-linker's, which is why the nightly has a date: a newer one fails in the
//! linker with `Invalid record`.

use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, bail};

use super::{Route, debian, linker};
use crate::{shell, workspace};

/// The nightly that is installed where none is found: LLVM 22.1.
const NIGHTLY: &str = "nightly-2026-07-15";
/// Oldest minor version of Rust 1.x that compiles the workspace; its `rust-version`.
const OLDEST: u32 = 95;
/// What brings a rustc with `core` for BPF on Debian.
const PACKAGES: &[&str] = &["rustc-web", "libstd-rust-web-dev-bpf"];
/// The target: BPF, little endian.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

/// A Rust that can compile BPF programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// A nightly of rustup, by name, and its sysroot.
    Rustup {
        /// As `rustup toolchain list` prints it.
        name: String,
        /// Where its sources of `core` are.
        sysroot: PathBuf,
    },
    /// A compiler that has `core` for BPF.
    Compiler {
        /// The compiler.
        rustc: PathBuf,
        /// Where it says its sources were when it was built, if it brings them.
        sysroot: PathBuf,
    },
}

impl fmt::Display for Toolchain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rustup { name, .. } => write!(formatter, "{name} (rustup)"),
            Self::Compiler { rustc, .. } => write!(formatter, "{}", rustc.display()),
        }
    }
}

impl Toolchain {
    /// `cargo build` with this toolchain for the BPF target; the caller adds what to build.
    #[must_use]
    pub fn cargo_build(&self) -> Command {
        let mut command = match self {
            Self::Rustup { name, .. } => rustup(&["run", name, "cargo"]),
            Self::Compiler { .. } => {
                let mut cargo = Command::new(workspace::cargo());
                shell::forget_outer_build(&mut cargo);
                cargo
            }
        };
        command.args(["build", "--release", "--locked", "--target", TARGET]);
        match self {
            Self::Rustup { .. } => command.args(["-Z", "build-std=core"]),
            Self::Compiler { rustc, .. } => command.env("RUSTC", rustc).env("RUSTC_BOOTSTRAP", "1"),
        };
        command
    }

    /// Where the compiler lives; part of the paths that debug information would mention.
    #[must_use]
    pub fn sysroot(&self) -> &Path {
        match self {
            Self::Rustup { sysroot, .. } | Self::Compiler { sysroot, .. } => sysroot,
        }
    }
}

/// What is usable as it stands.
pub(super) fn ready(route: Route) -> Vec<Toolchain> {
    let mut found = Vec::new();
    if route != Route::Distribution {
        found.extend(
            nightlies()
                .into_iter()
                .filter(has_sources)
                .map(|n| n.toolchain),
        );
        // One is enough, and each costs a line of `setup`.
        found.truncate(1);
    }
    if route != Route::Rustup {
        found.extend(compiler());
    }
    found
}

/// Finds or installs a toolchain; the distribution's is the second choice because it may be older.
pub(super) fn provide(route: Route) -> Result<Vec<Toolchain>> {
    let found = ready(route);
    if !found.is_empty() {
        return Ok(found);
    }
    let ways: &[fn() -> Result<()>] = match route {
        Route::Any => &[by_rustup, by_packages],
        Route::Rustup => &[by_rustup],
        Route::Distribution => &[by_packages],
    };
    let mut failures = Vec::new();
    for way in ways {
        if let Err(error) = way() {
            failures.push(format!("{error:#}"));
        }
        let found = ready(route);
        if !found.is_empty() {
            return Ok(found);
        }
    }
    bail!("no Rust for {TARGET}:\n  {}", failures.join("\n  or: "));
}

fn by_packages() -> Result<()> {
    debian::install(PACKAGES)
}

/// Installs the dated nightly, or only adds rust-src to one that is there.
fn by_rustup() -> Result<()> {
    if workspace::which("rustup").is_none() {
        bail!(
            "install rustup, then: rustup toolchain install {NIGHTLY} --profile minimal -c rust-src"
        );
    }
    if let Some(nightly) = nightlies().first() {
        let mut add = rustup(&["component", "add", "rust-src", "--toolchain", &nightly.name]);
        if shell::quietly(&format!("rust-src for {}", nightly.name), &mut add).is_ok() {
            return Ok(());
        }
    }
    let mut install = rustup(&["toolchain", "install", NIGHTLY]);
    install.args(["--profile", "minimal", "-c", "rust-src", "--no-self-update"]);
    shell::quietly(&format!("rustup toolchain install {NIGHTLY}"), &mut install)
}

struct Nightly {
    name: String,
    toolchain: Toolchain,
}

fn has_sources(nightly: &Nightly) -> bool {
    let core = "lib/rustlib/src/rust/library/core/src/lib.rs";
    nightly.toolchain.sysroot().join(core).is_file()
}

/// Installed nightlies that would do (rust-src aside), the dated one first.
fn nightlies() -> Vec<Nightly> {
    let Ok(list) = shell::capture(&mut rustup(&["toolchain", "list", "--quiet"])) else {
        return Vec::new();
    };
    let mut names: Vec<&str> = list
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| name.starts_with("nightly"))
        .collect();
    names.sort_by_key(|name| !name.starts_with(NIGHTLY));
    names
        .into_iter()
        .filter_map(|name| {
            let rustc = ["run", name, "rustc"];
            suits(&shell::capture(rustup(&rustc).arg("-vV")).ok()?).then_some(())?;
            let sysroot = shell::capture(rustup(&rustc).args(["--print", "sysroot"])).ok()?;
            Some(Nightly {
                name: name.to_owned(),
                toolchain: Toolchain::Rustup {
                    name: name.to_owned(),
                    sysroot: sysroot.trim_end().into(),
                },
            })
        })
        .collect()
}

/// A rustc with `core` for BPF in its sysroot.
fn compiler() -> Option<Toolchain> {
    [workspace::which("rustc"), Some("/usr/bin/rustc".into())]
        .into_iter()
        .flatten()
        .find_map(|rustc| {
            let ask = |arguments: &[&str]| {
                let mut command = Command::new(&rustc);
                shell::capture(shell::forget_outer_build(&mut command).args(arguments)).ok()
            };
            suits(&ask(&["-vV"])?).then_some(())?;
            let libraries = ask(&["--print", "target-libdir", "--target", TARGET])?;
            Path::new(libraries.trim_end()).is_dir().then_some(())?;
            let sysroot = ask(&["--print", "sysroot"])?.trim_end().into();
            Some(Toolchain::Compiler { rustc, sysroot })
        })
}

/// Whether `rustc -vV` tells of a compiler that is new enough for us and old enough for bpf-linker.
fn suits(version: &str) -> bool {
    let number = |key: &str, index: usize| -> Option<u32> {
        let line = version.lines().find_map(|line| line.strip_prefix(key))?;
        line.trim().split(['.', '-']).nth(index)?.parse().ok()
    };
    number("release:", 1).is_some_and(|minor| minor >= OLDEST)
        && number("LLVM version:", 0).is_some_and(|llvm| llvm <= linker::LLVM)
}

fn rustup(arguments: &[&str]) -> Command {
    let mut command = Command::new("rustup");
    shell::forget_outer_build(&mut command).args(arguments);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_suits_if_new_enough_for_us_and_old_enough_for_the_linker() {
        let version = |release: &str, llvm: &str| {
            format!("rustc\nbinary: rustc\nrelease: {release}\nLLVM version: {llvm}\n")
        };
        assert!(suits(&version("1.99.0-nightly", "22.1.8")));
        assert!(suits(&version("1.95.0", "22.1")));
        assert!(!suits(&version("1.94.0", "21.1.0")));
        assert!(!suits(&version("1.101.0-nightly", "23.0.0")));
        assert!(!suits("no version at all"));
    }
}
