//! `cargo xtask fuzz`: fuzzing, guided by coverage, of the logic that hostile bytes reach first.
//!
//! The targets are in `fuzz/targets`, each with the promises that it checks. They are built by the nightly that builds the
//! BPF programs. Inputs that reached new code are kept in `target/fuzz/corpus`, so that the next run goes on from there; one
//! that breaks a promise is left in `fuzz/artifacts`, and what libFuzzer says of it is printed.

use std::{fs, process::Command, time::Duration};

use anyhow::{Context as _, Result, bail};

use crate::{
    setup::{self, FuzzTools},
    shell,
    term::{Progress, thousands},
    workspace,
};

/// The targets.
const TARGETS: [&str; 3] = ["packet", "walker", "exchange"];
/// Bytes of the longest input: some full segments.
const LONGEST: u32 = 8192;
/// What libFuzzer prints before the number of inputs that it has tried.
const TRIED: &str = "stat::number_of_executed_units:";
/// Lines of its output that are worth showing: the promise that was broken, and the input.
const SHOWN_LINES: usize = 60;

/// Fuzzes each of `targets` (all, if none is named) for so long.
pub fn run(targets: &[String], time: Duration) -> Result<()> {
    if let Some(unknown) = targets
        .iter()
        .find(|name| !TARGETS.contains(&name.as_str()))
    {
        let known = TARGETS.join(", ");
        bail!("no fuzz target {unknown:?}; there are: {known}");
    }
    let tools = setup::fuzz_tools()?;
    let wanted = |target: &&str| targets.is_empty() || targets.iter().any(|name| name == target);
    for target in TARGETS.into_iter().filter(wanted) {
        fuzz(&tools, target, time)?;
    }
    Ok(())
}

fn fuzz(tools: &FuzzTools, target: &str, time: Duration) -> Result<()> {
    let directory = workspace::target()?.join("fuzz");
    let corpus = directory.join("corpus").join(target);
    fs::create_dir_all(&corpus)?;
    let command = |action: &str| {
        let mut command = tools.command();
        command
            .current_dir(workspace::root())
            .env("CARGO_TARGET_DIR", &directory)
            // The targets are safe code: there is no error of memory to look for.
            .args([action, "--sanitizer", "none", target]);
        command
    };
    let title = format!("building fuzz target {target}");
    shell::quietly(&title, &mut command("build"))?;
    let mut run = command("run");
    run.arg(&corpus)
        .arg("--")
        .arg(format!("-max_total_time={}", time.as_secs().max(1)))
        .arg(format!("-max_len={LONGEST}"))
        .arg("-print_final_stats=1");
    let progress = Progress::start(&format!(
        "{target}, for {}",
        humantime::format_duration(time)
    ));
    let tried = tried(&mut run)?;
    progress.done();
    println!(
        "{target:<10} {:>14} inputs, no promise broken",
        thousands(tried)
    );
    Ok(())
}

/// Runs libFuzzer; says how many inputs it tried.
fn tried(run: &mut Command) -> Result<u64> {
    let line = shell::describe(run);
    let output = run
        .output()
        .with_context(|| format!("cannot run: {line}"))?;
    let printed = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let lines: Vec<&str> = printed.trim_end().lines().collect();
        let shown = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
        bail!("{}: {line}\n{shown}", output.status);
    }
    let stat = printed.lines().find_map(|line| line.strip_prefix(TRIED));
    stat.and_then(|number| number.trim().parse().ok())
        .with_context(|| format!("libFuzzer printed no {TRIED}"))
}
