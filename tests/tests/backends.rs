//! Backends come and go: a draining one lives its flows out, a new one gets its share of the new flows.

use anyhow::{Result, ensure};
use evenkeel_tests::{PORT, SERVICE, Setup, eventually};

#[test]
fn a_draining_backend_keeps_its_flows_and_gets_no_new_ones() -> Result<()> {
    let stage = Setup::backends(2).start()?;
    let mut old = stage.start_load(
        "old",
        &["--rate", "400", "-c", "20", "-m", "5", "--duration", "60s"],
    )?;
    old.wait_for(400)?;
    let first = stage.lab.backend_address(0, PORT)?.to_string();
    stage.cli(&["backends", "drain", SERVICE, &first])?;
    let listed = stage.json(&["backends"])?;
    ensure!(listed["backends"][0]["state"] == "draining", "{listed}");
    let before = stage.counts()?;
    let new = stage.load(&["-c", "20", "-n", "200"])?.all_ok()?;
    ensure!(new.per_backend.keys().eq(["b2"]), "{}", new.report);
    let after = stage.counts()?;
    ensure!(
        after.flows_opened["b1"] == before.flows_opened["b1"],
        "{before:?} {after:?}"
    );
    old.wait_for_more(800)?;
    let still = stage.counts()?;
    ensure!(
        still.served["b1"].streams > before.served["b1"].streams,
        "old flows live on: {still:?}"
    );
    let old = old.finish()?.all_ok()?;
    ensure!(old.connections == 20 && old.retried == 0, "{}", old.report);
    ensure!(old.per_backend.len() == 2, "{}", old.report);
    Ok(())
}

#[test]
fn an_added_backend_gets_its_share_of_new_flows_and_of_no_old_ones() -> Result<()> {
    let setup = Setup::backends(2);
    let stage = setup.start()?;
    let second = stage.lab.backend_address(1, PORT)?.to_string();
    stage.cli(&["backends", "remove", SERVICE, &second])?;
    let mut old = stage.start_load(
        "old",
        &["--rate", "200", "-c", "10", "-m", "5", "--duration", "60s"],
    )?;
    old.wait_for(200)?;
    stage.cli(&["backends", "add", SERVICE, &second])?;
    let new = stage.load(&["-c", "100", "-n", "1000"])?.all_ok()?;
    let to_second = new.per_backend.get("b2").copied().unwrap_or(0);
    // 100 flows by hash over two equal backends; 20 or fewer has a chance of 1 in 1e9.
    ensure!(to_second > 200 && to_second < 800, "{}", new.report);
    let old = old.finish()?.all_ok()?;
    ensure!(
        old.per_backend.keys().eq(["b1"]) && old.connections == 10,
        "{}",
        old.report
    );
    Ok(())
}

#[test]
fn weights_decide_the_share_of_new_flows() -> Result<()> {
    let stage = Setup::backends(2).start()?;
    let first = stage.lab.backend_address(0, PORT)?.to_string();
    stage.cli(&["backends", "weight", SERVICE, &first, "9"])?;
    let load = stage.load(&["-c", "200", "-n", "2000"])?.all_ok()?;
    let to_first = load.per_backend["b1"];
    // 200 flows with probability 0.9: mean 180, standard deviation 4.2.
    ensure!(to_first > 1500 && to_first < 2000, "{}", load.report);
    Ok(())
}

#[test]
fn at_l7_drain_and_add_move_streams_without_a_failure() -> Result<()> {
    let stage = Setup::backends(3).mode("l7").start()?;
    let third = stage.lab.backend_address(2, PORT)?.to_string();
    let mut load = stage.start_load(
        "load",
        &["--rate", "1000", "-c", "2", "-m", "20", "--duration", "60s"],
    )?;
    load.wait_for(300)?;
    stage.cli(&["backends", "drain", SERVICE, &third])?;
    let drained = eventually(
        "the drained backend got nothing new between two looks",
        || {
            let before = stage.counts()?;
            std::thread::sleep(std::time::Duration::from_millis(200));
            Ok((before, stage.counts()?))
        },
        |(before, after)| {
            before.served["b3"] == after.served["b3"] && before.served["b1"] != after.served["b1"]
        },
    )?;
    stage.cli(&["backends", "undrain", SERVICE, &third])?;
    eventually(
        "new streams",
        || stage.counts(),
        |now| now.served["b3"].streams > drained.1.served["b3"].streams,
    )?;
    let load = load.finish()?.all_ok()?;
    stage.counts()?.agree_on(load.ok)
}
