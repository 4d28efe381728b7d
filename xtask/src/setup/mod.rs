//! `cargo xtask setup`: finds what building and testing need, and installs what is missing where it can: as root on
//! Debian and its children, or by rustup and cargo as anybody. Elsewhere it prints the exact commands.
//!
//! Everything is looked at afresh each time (well under a second), so nothing is done twice and nothing that went
//! away since is believed to be there.

mod debian;
mod fuzz;
mod linker;
pub mod peers;
mod python;
mod toolchain;

use std::{fs, path::PathBuf, thread};

use anyhow::{Result, bail};
use clap::ValueEnum;

pub use debian::install as install_packages;
pub use fuzz::{FuzzTools, fuzz_tools};
pub use python::interpreter as python;
pub use toolchain::Toolchain;

use crate::{term::Progress, workspace};

/// Programs that the lab itself is made with, and the Debian packages that bring them.
pub const LAB_PROGRAMS: &[(&str, &str)] = &[
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
    ("curl", "curl"),
];

/// Programs that end-to-end tests and benchmarks use as clients and servers.
pub const TEST_PROGRAMS: &[(&str, &str)] = &[
    ("h2load", "nghttp2-client"),
    ("nghttpd", "nghttp2-server"),
    ("nghttpx", "nghttp2-proxy"),
    ("openssl", "openssl"),
    ("nft", "nftables"),
    ("haproxy", "haproxy"),
    ("ethtool", "ethtool"),
    ("bpftool", "bpftool"),
    ("iperf3", "iperf3"),
    ("ping", "iputils-ping"),
    // What the report of the benchmarks is looked at with.
    ("chromium", "chromium"),
];

/// Where a BPF-capable Rust may come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Route {
    /// rustup if possible, else the distribution.
    #[default]
    Any,
    /// A nightly of rustup with rust-src; `core` is compiled with the program.
    Rustup,
    /// A rustc that brings `core` for bpfel-unknown-none, as Debian's `rustc-web` does.
    Distribution,
}

/// What builds BPF programs.
#[derive(Debug)]
pub struct BpfTools {
    /// Usable toolchains, the preferred one first.
    pub toolchains: Vec<Toolchain>,
    /// `bpf-linker`.
    pub linker: PathBuf,
}

/// Finds or installs what `cargo xtask build` needs.
pub fn bpf_tools(route: Route) -> Result<BpfTools> {
    if let (found @ [_, ..], Some(linker)) = (&*toolchain::ready(route), linker::find()) {
        return Ok(BpfTools {
            toolchains: found.to_vec(),
            linker,
        });
    }
    // Two runs on a fresh machine would otherwise install the same things into the same places.
    let _lock = exclusive()?;
    // The toolchain is a download by rustup, the linker mostly apt and then a compilation: side by side.
    let (toolchains, linker) = thread::scope(|scope| {
        let toolchains = scope.spawn(|| toolchain::provide(route));
        let linker = linker::provide();
        let toolchains = toolchains
            .join()
            .unwrap_or_else(|_| bail!("looking for a toolchain failed"));
        (toolchains, linker)
    });
    collect(
        "cannot provide the BPF tools",
        [toolchains.as_ref().err(), linker.as_ref().err()],
    )?;
    Ok(BpfTools {
        toolchains: toolchains?,
        linker: linker?,
    })
}

/// Finds or installs the programs of the lab.
pub fn lab_tools() -> Result<()> {
    programs(LAB_PROGRAMS)
}

/// Finds or installs what tests use besides, and benchmarks measure with.
pub fn test_tools() -> Result<()> {
    let packages = programs(TEST_PROGRAMS);
    let python = python::provide();
    collect(
        "cannot provide the peers of the tests",
        [packages.as_ref().err(), python.as_ref().err()],
    )
}

fn programs(wanted: &[(&str, &str)]) -> Result<()> {
    let missing: Vec<&str> = wanted
        .iter()
        .filter(|(program, _)| workspace::which(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    debian::install(&missing)
}

/// The whole of `cargo xtask setup`.
pub fn run(route: Route, tests: bool, peers: bool) -> Result<()> {
    let tools = bpf_tools(route);
    let lab = lab_tools();
    let others = if tests { test_tools() } else { Ok(()) };
    let peers = if peers { peers::provide() } else { Ok(()) };
    if let Ok(tools) = &tools {
        for toolchain in &tools.toolchains {
            println!("BPF toolchain  {toolchain}");
        }
        println!("bpf-linker     {}", tools.linker.display());
    }
    if tests && let Ok(python) = python::interpreter() {
        println!("Python         {}", python.display());
    }
    collect(
        "setup is not complete",
        [
            tools.err().as_ref(),
            lab.err().as_ref(),
            others.err().as_ref(),
            peers.err().as_ref(),
        ],
    )
}

/// One error out of all that happened, so that one run tells everything that is missing.
fn collect<const N: usize>(what: &str, errors: [Option<&anyhow::Error>; N]) -> Result<()> {
    let errors: Vec<String> = errors
        .into_iter()
        .flatten()
        .map(|error| format!("- {error:#}"))
        .collect();
    if errors.is_empty() {
        Ok(())
    } else {
        bail!("{what}:\n{}", errors.join("\n"))
    }
}

/// Holds other runs of the same user off while something is installed.
fn exclusive() -> Result<fs::File> {
    let cache = workspace::cache();
    fs::create_dir_all(&cache)?;
    let lock = fs::File::create(cache.join("setup.lock"))?;
    let progress = Progress::start("waiting for another setup to end");
    lock.lock()?;
    progress.done();
    Ok(lock)
}
