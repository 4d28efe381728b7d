//! Backends that do not answer are taken out, and come back.

use anyhow::{Context as _, Result, ensure};
use evenkeel_tests::{PORT, Process, SERVICE, Setup, Stage, eventually};
use serde_json::Value;
use xtask::lab::Signal;

/// So often that a test need not wait for long.
const CHECKS: &str = r#"{ interval = "200ms", timeout = "200ms", fall = 2, rise = 2 }"#;

fn checked(mode: &'static str) -> Result<Stage> {
    let mut setup = Setup::backends(3).mode(mode);
    setup.health = CHECKS;
    let stage = setup.start()?;
    until(&stage, ["active"; 3])?;
    Ok(stage)
}

fn backends(stage: &Stage) -> Result<Vec<Value>> {
    let listed = stage.json(&["backends"])?;
    listed["backends"].as_array().cloned().context("a list")
}

/// Waits until the backends are checked, and have these states.
fn until(stage: &Stage, states: [&str; 3]) -> Result<Vec<Value>> {
    eventually(
        "the states of the backends",
        || backends(stage),
        |listed| {
            let fits = |(backend, state): (&Value, &str)| {
                backend["state"] == state && backend["check"]["up"] == (state != "down")
            };
            listed.len() == 3 && listed.iter().zip(states).all(fits)
        },
    )
}

fn kill(stage: &mut Stage, index: usize) -> Result<()> {
    let backend = stage.backend(index)?;
    backend.signal(Signal::SIGKILL)?;
    backend.wait()?;
    Ok(())
}

fn back_again(stage: &Stage, index: usize) -> Result<Process> {
    stage.echo(index, &[])
}

#[test]
fn a_killed_backend_gets_nothing_new_until_it_is_back() -> Result<()> {
    for mode in ["l4", "l7"] {
        let mut stage = checked(mode)?;
        kill(&mut stage, 1)?;
        let listed = until(&stage, ["active", "down", "active"])?;
        ensure!(
            listed[1]["check"]["failure"] == "connection refused",
            "{listed:?}"
        );
        let table = stage.cli(&["backends"])?;
        ensure!(table.contains(": connection refused"), "{table}");
        let others = stage.load(&["-c", "40", "-n", "400"])?.all_ok()?;
        ensure!(
            others.per_backend.keys().eq(["b1", "b3"]),
            "{}",
            others.report
        );
        let _again = back_again(&stage, 1)?;
        until(&stage, ["active"; 3])?;
        let all = stage.load(&["-c", "90", "-n", "900"])?.all_ok()?;
        // 90 flows by hash over three backends: that one gets none has a chance of 4 in 10^16.
        ensure!(all.per_backend.len() == 3, "{}", all.report);
    }
    Ok(())
}

#[test]
fn flows_on_other_backends_do_not_notice_that_one_is_taken_out() -> Result<()> {
    let mut stage = checked("l4")?;
    let third = stage.lab.backend_address(2, PORT)?.to_string();
    // So that no flow is on the backend that dies.
    stage.cli(&["backends", "drain", SERVICE, &third])?;
    let mut load = stage.start_load(
        "load",
        &["--rate", "500", "-c", "20", "-m", "5", "--duration", "60s"],
    )?;
    load.wait_for(200)?;
    stage.cli(&["backends", "undrain", SERVICE, &third])?;
    kill(&mut stage, 2)?;
    until(&stage, ["active", "active", "down"])?;
    load.wait_for_more(500)?;
    let load = load.finish()?.all_ok()?;
    ensure!(
        load.connections == 20 && load.retried == 0,
        "{}",
        load.report
    );
    Ok(())
}

#[test]
fn checks_are_no_flows_of_their_backends() -> Result<()> {
    for mode in ["l4", "l7"] {
        let stage = checked(mode)?;
        eventually(
            "several checks",
            || backends(&stage),
            |listed| {
                let mut times = listed.iter().map(|b| b["check"]["for_seconds"].as_f64());
                times.all(|time| time > Some(1.0))
            },
        )?;
        let quiet = stage.counts()?;
        ensure!(
            quiet.flows_opened.values().all(|flows| *flows == 0),
            "{quiet:?}"
        );
        let load = stage.load(&["-c", "10", "-n", "500"])?.all_ok()?;
        let counts = stage.counts()?;
        counts.agree_on(load.ok)?;
        let opened: u64 = counts.flows_opened.values().sum();
        let connections: u64 = counts
            .served
            .values()
            .map(|served| served.connections)
            .sum();
        ensure!(opened == connections, "{mode}: {counts:?}");
    }
    Ok(())
}

#[test]
fn where_all_backends_are_down_all_are_used_and_status_warns() -> Result<()> {
    let mut stage = checked("l4")?;
    for index in 0..3 {
        kill(&mut stage, index)?;
    }
    until(&stage, ["down"; 3])?;
    let status = eventually(
        "a warning",
        || stage.json(&["status"]),
        |status| status["warnings"].to_string().contains("fail their checks"),
    )?;
    ensure!(status["warnings"].to_string().contains(SERVICE), "{status}");
    let refused = stage.load(&["-c", "5", "-n", "5", "--timeout", "2s"])?;
    ensure!(refused.ok == 0, "{}", refused.report);
    let status = stage.json(&["status"])?;
    ensure!(
        status["events"]["drop_no_backend"].as_u64().unwrap_or(0) == 0,
        "not refused by a backend: {status}"
    );
    let _again = back_again(&stage, 0)?;
    until(&stage, ["active", "down", "down"])?;
    let load = stage.load(&["-c", "10", "-n", "100"])?.all_ok()?;
    ensure!(load.per_backend.keys().eq(["b1"]), "{}", load.report);
    Ok(())
}
