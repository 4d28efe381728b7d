//! `cargo xtask test` and `cargo xtask ci`.
//!
//! Tests that need root or a peer never pass by being skipped: everything they need is provided first, or the run
//! fails with one sentence. The last thing printed is the test runner's summary.

mod interrupt;
mod names;

use std::process::{Command, Stdio};

use anyhow::{Result, bail, ensure};

use crate::{
    build,
    lab::{self, Leftovers},
    setup, shell, workspace,
};

/// Packages whose tests have the machine to themselves.
const SERIAL: &str = "evenkeel-tests";
/// Where the fuzz targets are.
const FUZZ: &str = "fuzz/Cargo.toml";

/// Unit and property tests, packet tests in the kernel, end-to-end tests; all, or those that `filter` names. Options of
/// the test runner go to it as they are.
pub fn run(filter: &[String]) -> Result<()> {
    ensure!(
        workspace::is_root(),
        "the tests load BPF programs and make network namespaces: run them as root"
    );
    setup::lab_tools()?;
    setup::test_tools()?;
    build::quick()?;
    sweep()?;
    let outcome = if has("nextest") {
        // What matches nothing is a mistake in the name, and proves nothing.
        let mut nextest = cargo(&["nextest", "run", "--workspace", "--no-tests=fail"]);
        interrupt::run(nextest.args(names::for_nextest(filter)))
    } else {
        without_nextest(&names::for_cargo(filter)?)
    };
    if interrupt::happened() {
        // The tests ended as they could; nobody is left to look after what they made.
        sweep()?;
        bail!("interrupted");
    }
    outcome
}

/// Takes away what tests and labs left behind whose process is gone.
fn sweep() -> Result<()> {
    for id in lab::clean(Leftovers::Abandoned, &[])? {
        eprintln!("  removed {id}, left behind by a run that was killed");
    }
    Ok(())
}

/// The tests that need the machine for themselves come last, one at a time.
fn without_nextest(filter: &[String]) -> Result<()> {
    let others = || {
        let mut others = cargo(&["test", "--workspace", "--no-fail-fast", "--exclude", SERIAL]);
        others.args(["--exclude", "xtask"]).args(filter);
        others
    };
    let serial = || {
        let mut serial = cargo(&["test", "--no-fail-fast", "--package", SERIAL]);
        serial.args(["--package", "xtask"]).args(filter);
        serial
    };
    if !filter.is_empty() {
        let mut listed = shell::capture(others().args(["--", "--list"]))?;
        listed += &shell::capture(serial().args(["--", "--list"]))?;
        ensure!(
            listed.lines().any(|line| line.ends_with(": test")),
            "no test matches: {}",
            filter.join(" ")
        );
    }
    let done = interrupt::run(&mut others());
    if interrupt::happened() {
        return done;
    }
    done.and(interrupt::run(serial().args(["--", "--test-threads=1"])))
}

/// Formatting, lints, tests: all of them, so that one run tells all that is wrong.
pub fn ci() -> Result<()> {
    for component in ["fmt", "clippy"] {
        if !has(component) {
            let name = if component == "fmt" {
                "rustfmt"
            } else {
                component
            };
            shell::quietly(
                &format!("rustup component add {name}"),
                Command::new("rustup").args(["component", "add", name]),
            )?;
        }
    }
    let mut failures = Vec::new();
    let mut step = |title: &str, outcome: Result<()>| {
        if let Err(error) = outcome {
            eprintln!("error: {error:#}");
            failures.push(title.to_owned());
        }
    };
    step(
        "formatting",
        shell::run(&mut cargo(&["fmt", "--all", "--check"])),
    );
    let mut fmt = cargo(&["fmt", "--manifest-path", FUZZ, "--check"]);
    step("formatting of the fuzz targets", shell::run(&mut fmt));
    let mut clippy = cargo(&["clippy", "--workspace", "--all-targets", "--locked"]);
    step(
        "lints",
        shell::run(clippy.args(["--", "--deny", "warnings"])),
    );
    step("lints of the fuzz targets", fuzz_targets());
    step("tests", run(&[]));
    if failures.is_empty() {
        Ok(())
    } else {
        bail!("failed: {}", failures.join(", "))
    }
}

/// The fuzz targets are a workspace of their own, which nothing else compiles until somebody fuzzes.
fn fuzz_targets() -> Result<()> {
    let mut clippy = cargo(&["clippy", "--manifest-path", FUZZ, "--locked"]);
    clippy
        .env("CARGO_TARGET_DIR", workspace::target()?.join("fuzz"))
        // libFuzzer itself, which is C++, is needed for linking only; with a path to one it is not compiled.
        .env("CUSTOM_LIBFUZZER_PATH", "/nonexistent/libfuzzer.a");
    shell::run(clippy.args(["--", "--deny", "warnings"]))
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(workspace::cargo());
    command.current_dir(workspace::root()).args(arguments);
    if let Ok(binary) = workspace::evenkeel() {
        // Tests look for what was built for them.
        command.env(workspace::BINARY, binary);
    }
    command
}

/// Whether cargo has the subcommand.
fn has(subcommand: &str) -> bool {
    cargo(&[subcommand, "--version"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
