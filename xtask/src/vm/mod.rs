//! `cargo xtask vm`: boots other kernels and proves that evenkeel works on them.
//!
//! What a verifier takes, and what maps it makes, differs from kernel to kernel: one kernel is not a test. So the kernels
//! of the distribution are downloaded, booted one after the other in an emulated machine that has nothing but evenkeel
//! in it, and given real requests, on both hooks and in both modes. [`judge`] says what must hold.
//!
//! It needs no root and no KVM, but a minute or three for each kernel; it is no part of `cargo xtask test`.

mod boot;
mod console;
mod initramfs;
mod judge;
mod packages;
mod table;
mod version;

use std::{
    env, fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use serde::Serialize;

use crate::{build, setup::Route, term::Progress, workspace};
use judge::{Verdict, judge};
use version::Kernel;

/// The kernels that are tried if none is named: those of Debian 12, before tcx came, and of Debian 13.
const DEFAULT: [&str; 2] = ["6.1", "6.12"];

/// What to try.
#[derive(Clone, Debug)]
pub struct Options {
    /// Beginnings of versions; empty for the default.
    pub kernels: Vec<String>,
    /// How long one guest may take.
    pub timeout: Duration,
    /// Print one JSON document instead of a table.
    pub json: bool,
    /// Try what is there without building first.
    pub no_build: bool,
}

#[derive(Serialize)]
struct Report {
    passed: bool,
    kernels: Vec<Verdict>,
}

/// Boots every kernel, judges, tells; fails if one kernel failed, after all were tried.
pub fn run(options: &Options) -> Result<()> {
    packages::provide()?;
    let wanted = match options.kernels.as_slice() {
        [] => DEFAULT.map(str::to_owned).to_vec(),
        named => named.to_vec(),
    };
    let kernels = packages::choose(&wanted)?;
    let evenkeel = binary(options.no_build)?;
    let cache = workspace::target()?.join("vm");
    fs::create_dir_all(&cache)?;
    let _lock = exclusive(&cache)?;
    let mut verdicts = Vec::new();
    for kernel in &kernels {
        verdicts.push(try_kernel(kernel, &evenkeel, &cache, options.timeout)?);
    }
    let report = Report {
        passed: verdicts.iter().all(|it| it.passed),
        kernels: verdicts,
    };
    if options.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        table::print(&report.kernels);
    }
    let failed = report.kernels.iter().filter(|it| !it.passed);
    let logs: Vec<&str> = failed.map(|it| it.log.as_str()).collect();
    ensure!(
        report.passed,
        "evenkeel does not work on {} of {} kernels; their consoles: {}",
        logs.len(),
        report.kernels.len(),
        logs.join(", ")
    );
    Ok(())
}

/// Two runs at once would use the same files (a guest's system, its console), and take each other the processor that the
/// timeout counts on.
fn exclusive(cache: &Path) -> Result<fs::File> {
    let lock = fs::File::create(cache.join("lock"))?;
    let progress = Progress::start("waiting for another run to end");
    lock.lock()?;
    progress.done();
    Ok(lock)
}

/// `EVENKEEL_BIN` as it is, else the release build, made if it is not up to date.
fn binary(no_build: bool) -> Result<PathBuf> {
    if !no_build && env::var_os("EVENKEEL_BIN").is_none() {
        return build::run(Route::Any);
    }
    let binary = workspace::evenkeel()?;
    ensure!(
        binary.is_file(),
        "{} is missing: run `cargo xtask build`",
        binary.display()
    );
    Ok(binary)
}

/// One kernel. An error is one of this host; whatever the guest does is in the verdict.
fn try_kernel(
    kernel: &Kernel,
    evenkeel: &Path,
    cache: &Path,
    timeout: Duration,
) -> Result<Verdict> {
    let unpacked = packages::unpacked(kernel, cache)?;
    let initramfs = initramfs::make(kernel, &unpacked, evenkeel, cache)?;
    let log = cache.join(format!("{}.log", kernel.release));
    // What an earlier run left would be judged if this one died at once.
    fs::write(&log, "")?;
    let begun = Instant::now();
    let ending = boot::run(kernel, &unpacked, &initramfs, &log, timeout);
    let seconds = begun.elapsed().as_secs_f64();
    fs::remove_file(&initramfs)?;
    let ending = ending.err().map(|error| format!("{error:#}"));
    Ok(Verdict {
        seconds,
        log: log.display().to_string(),
        ..judge(kernel, &boot::read(&log)?, ending)
    })
}
