//! The daemon dies, the data path does not.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use evenkeel_tests::{Counts, Setup, Stage, eventually};

#[test]
fn flows_carry_on_without_the_daemon_and_a_restart_picks_every_one_up() -> Result<()> {
    for setup in [
        Setup::backends(2),
        Setup::backends(2).dnat(),
        Setup::backends(2).hook("xdp"),
    ] {
        flows_carry_on(setup.start()?)?;
    }
    Ok(())
}

fn flows_carry_on(mut stage: Stage) -> Result<()> {
    let load = ["--rate", "1000", "-c", "8", "-m", "20", "--duration", "60s"];
    let mut steady = stage.start_load("steady", &load)?;
    let lifetime = ["--connection-lifetime", "500ms"];
    let mut renewed = stage.start_load("renewed", &[&load[..], &lifetime].concat())?;
    steady.wait_for(500)?;
    renewed.wait_for(500)?;
    let flows = stage.json(&["flows", "--top", "100000"])?;
    let before = stage.counts()?;

    stage.kill_daemon()?;
    thread::sleep(Duration::from_secs(1));
    stage.restart_daemon()?;

    none_went_backwards(&before, &stage.counts()?)?;
    let status = stage.json(&["status"])?;
    ensure!(status["adopted"] == true, "{status}");
    steady.wait_for_more(2000)?;
    let still = stage.json(&["flows", "--top", "100000"])?;
    let (steady, renewed) = (steady.finish()?.all_ok()?, renewed.finish()?.all_ok()?);
    ensure!(
        steady.connections == 8 && steady.retried == 0,
        "a flow was lost: {}",
        steady.report
    );
    let kept = same_place(&flows, &still);
    ensure!(
        kept >= 8,
        "only {kept} flows are where they were: {flows} {still}"
    );

    let counts = stage.counts()?;
    counts.agree_on(steady.ok + renewed.ok)?;
    let opened: u64 = counts.flows_opened.values().sum();
    ensure!(
        opened == steady.connections + renewed.connections,
        "{counts:?}"
    );
    ensure!(
        adopted(&stage.json(&["backends"])?) == 0,
        "a flow was not known any more"
    );
    Ok(())
}

fn none_went_backwards(before: &Counts, after: &Counts) -> Result<()> {
    ensure!(
        after.service >= before.service,
        "a counter went backwards: {before:?} {after:?}"
    );
    for (name, streams) in &before.kernel {
        ensure!(
            after.kernel[name] >= *streams,
            "a counter went backwards: {before:?} {after:?}"
        );
    }
    Ok(())
}

/// How many flows are in both lists with the same backend.
fn same_place(before: &serde_json::Value, after: &serde_json::Value) -> usize {
    let places = |flows: &serde_json::Value| -> Vec<(String, String)> {
        let flows = flows["flows"].as_array().cloned().unwrap_or_default();
        flows
            .iter()
            .map(|flow| (flow["client"].to_string(), flow["backend"].to_string()))
            .collect()
    };
    let after = places(after);
    places(before)
        .iter()
        .filter(|place| after.contains(place))
        .count()
}

fn adopted(backends: &serde_json::Value) -> u64 {
    let all = backends["backends"].as_array().into_iter().flatten();
    all.filter_map(|backend| backend["counters"]["flows_adopted"].as_u64())
        .sum()
}

#[test]
fn a_mode_and_a_drained_backend_survive_a_kill() -> Result<()> {
    let mut stage = Setup::backends(2).start()?;
    let second = stage
        .lab
        .backend_address(1, evenkeel_tests::PORT)?
        .to_string();
    stage.cli(&["mode", evenkeel_tests::SERVICE, "l7"])?;
    stage.cli(&["backends", "drain", evenkeel_tests::SERVICE, &second])?;
    stage.kill_daemon()?;
    stage.restart_daemon()?;
    let services = stage.json(&["services"])?;
    ensure!(services["services"][0]["mode"] == "l7", "{services}");
    let backends = stage.json(&["backends"])?;
    ensure!(backends["backends"][1]["state"] == "draining", "{backends}");
    // The restarted proxy must be steered to, or this hangs.
    let load = eventually(
        "an answer at l7",
        || stage.load(&["-n", "10", "--timeout", "2s"]),
        |load| load.failed == 0,
    )?;
    ensure!(load.per_backend.keys().eq(["b1"]), "{}", load.report);
    Ok(())
}
