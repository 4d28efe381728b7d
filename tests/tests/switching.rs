//! `evenkeel mode`: existing flows keep their path, new ones take the new one, no request fails.

use anyhow::{Result, ensure};
use evenkeel_tests::{Load, SERVICE, Setup, Stage, eventually, h2load};

fn switch(stage: &Stage, mode: &str) -> Result<()> {
    stage.cli(&["mode", SERVICE, mode])?;
    let services = stage.json(&["services"])?;
    ensure!(services["services"][0]["mode"] == mode, "{services}");
    Ok(())
}

/// What the busy client asks for: RPCs a second, and seconds. Twice as long as ten switches take, one a second.
const RATE: u64 = 5000;
const PLANNED: u64 = 20;

#[test]
fn ten_switches_under_5000_rpcs_a_second_fail_nothing() -> Result<()> {
    let stage = Setup::backends(2).start()?;
    let (rate, planned) = (RATE.to_string(), format!("{PLANNED}s"));
    let load = ["--rate", &rate, "--duration", &planned, "-c", "40"];
    // Connections live a second: new flows exist in every mode, old ones outlive every switch.
    let calls = ["-m", "20", "--grpc", "unary", "--connection-lifetime", "1s"];
    let mut busy = stage.start_load("busy", &[load, calls].concat())?;
    let mut steady = stage.start_load(
        "steady",
        &["--rate", "200", "-c", "4", "-m", "20", "--duration", "60s"],
    )?;
    busy.wait_for(1000)?;
    for round in 0..10 {
        switch(&stage, if round % 2 == 0 { "l7" } else { "l4" })?;
        // Its progress comes once a second; this fails where it has ended.
        busy.wait_for_more(1000)?;
    }
    steady.wait_for(1)?;
    let (busy, steady) = (busy.wait()?.all_ok()?, steady.finish()?.all_ok()?);
    nothing_was_lost_or_sent_away(&busy, &steady)?;

    let counts = stage.counts()?;
    let mut got = busy.per_backend.clone();
    for (name, ok) in &steady.per_backend {
        *got.entry(name.clone()).or_default() += ok;
    }
    ensure!(got == counts.served_streams(), "client {got:?}, {counts:?}");
    counts.agree_on(busy.ok + steady.ok)?;
    let services = stage.json(&["services"])?;
    let counters = &services["services"][0]["counters"];
    let (opened, local) = (
        counters["flows_opened"].as_u64(),
        counters["flows_local"].as_u64(),
    );
    ensure!(opened == Some(busy.connections + 4), "{counters}");
    ensure!(
        local > Some(0) && local < opened,
        "flows took only one of the two ways: {counters}"
    );
    Ok(())
}

fn nothing_was_lost_or_sent_away(busy: &Load, steady: &Load) -> Result<()> {
    // An open loop: every request that was planned was sent, however late, and none besides.
    ensure!(
        busy.ok == RATE * PLANNED,
        "{} were answered of {RATE} a second for {PLANNED} s: {}",
        busy.ok,
        busy.report
    );
    ensure!(
        busy.connections > 40,
        "no new flows were made: {}",
        busy.report
    );
    ensure!(
        steady.connections == 4,
        "existing flows were not kept: {}",
        steady.report
    );
    ensure!(
        busy.retried + steady.retried == 0,
        "something was sent away: {} {}",
        busy.report,
        steady.report
    );
    Ok(())
}

#[test]
fn existing_flows_stay_where_they_are_and_new_ones_take_the_new_mode() -> Result<()> {
    for hook in ["tc", "xdp"] {
        there_and_back(&Setup::backends(2).hook(hook).start()?)?;
    }
    Ok(())
}

fn there_and_back(stage: &Stage) -> Result<()> {
    let mut old = stage.start_load(
        "old",
        &["--rate", "100", "-c", "1", "-m", "5", "--duration", "60s"],
    )?;
    old.wait_for(50)?;
    switch(stage, "l7")?;
    let new = stage.load(&["-c", "1", "-n", "100"])?.all_ok()?;
    ensure!(
        new.per_backend.len() == 2,
        "a new flow is balanced by stream: {}",
        new.report
    );
    let old = old.finish()?.all_ok()?;
    ensure!(
        old.per_backend.len() == 1 && old.connections == 1,
        "an old one stays: {}",
        old.report
    );

    let mut old = stage.start_load(
        "old-l7",
        &["--rate", "100", "-c", "1", "-m", "5", "--duration", "60s"],
    )?;
    old.wait_for(50)?;
    switch(stage, "l4")?;
    let new = stage.load(&["-c", "1", "-n", "100"])?.all_ok()?;
    ensure!(
        new.per_backend.len() == 1,
        "a new flow is on one backend: {}",
        new.report
    );
    let old = old.finish()?.all_ok()?;
    ensure!(
        old.per_backend.len() == 2 && old.connections == 1,
        "an old one stays: {}",
        old.report
    );
    Ok(())
}

#[test]
fn h2load_is_counted_exactly_at_l7() -> Result<()> {
    let stage = Setup::backends(2).mode("l7").start()?;
    let requests = h2load(&stage, 10, 100, 50_000)?;
    let counts = stage.counts()?;
    counts.agree_on(requests)?;
    ensure!(counts.hot_factor() < 1.01, "{counts:?}");
    Ok(())
}

#[test]
fn flows_are_moved_back_to_l4_by_goaway_when_asked_for() -> Result<()> {
    let stage = Setup::backends(2).mode("l7").start()?;
    let mut load = stage.start_load(
        "load",
        &["--rate", "500", "-c", "2", "-m", "10", "--duration", "60s"],
    )?;
    load.wait_for(100)?;
    stage.cli(&["mode", SERVICE, "l4", "--move-existing"])?;
    load.wait_for_more(1500)?;
    let load = load.finish()?.all_ok()?;
    ensure!(
        load.connections >= 4,
        "the connections were not sent away: {}",
        load.report
    );
    Ok(())
}

#[test]
fn flows_are_moved_to_l7_by_reset_when_asked_for() -> Result<()> {
    let stage = Setup::backends(2).start()?;
    let connection = ["--rate", "500", "-c", "1", "-m", "10", "--duration", "60s"];
    let mut load = stage.start_load("load", &connection)?;
    load.wait_for(100)?;
    let moving = |deadline: &str| {
        stage.cli(&[
            "mode",
            SERVICE,
            "l7",
            "--move-existing",
            "--deadline",
            deadline,
        ])
    };
    moving("1h")?;
    load.wait_for_more(500)?;
    let served =
        |counts: &evenkeel_tests::Counts| ["b1", "b2"].map(|name| counts.served[name].streams);
    let pinned = served(&stage.counts()?);
    ensure!(
        pinned.contains(&0),
        "its flow did not stay where it was: {pinned:?}"
    );
    let said = moving("0s")?;
    ensure!(said.contains("1 flow is reset"), "{said}");
    let on_both = || {
        let now = served(&stage.counts()?);
        Ok([0, 1].map(|at| now[at] - pinned[at]))
    };
    eventually("streams on both backends", on_both, |[first, second]| {
        *first > 500 && *second > 500
    })?;
    let report = load.finish()?;
    ensure!(
        report.connections == 2,
        "one was reset, and came again: {}",
        report.report
    );
    ensure!(
        report.failed <= 10,
        "{} requests failed; in flight were 10 at most: {}",
        report.failed,
        report.report
    );
    let events = stage.json(&["status"])?["events"].clone();
    ensure!(events["pass_moved"].as_u64() > Some(0), "{events}");
    Ok(())
}

#[test]
fn auto_balances_streams_once_they_pin() -> Result<()> {
    let mut setup = Setup::backends(2).mode("auto");
    setup.more = "[auto]\ninterval = \"1s\"\nmin_streams = 20\n";
    let stage = setup.start()?;
    let mode = || Ok(stage.json(&["services"])?["services"][0]["mode"].clone());
    ensure!(mode()? == "l4", "auto begins with flows");
    let pinned = [
        "--rate",
        "1000",
        "-c",
        "1",
        "-m",
        "20",
        "--duration",
        "60s",
        "--connection-lifetime",
        "500ms",
    ];
    let mut load = stage.start_load("pinned", &pinned)?;
    eventually("mode l7", mode, |mode| mode == "l7")?;
    let before = stage.counts()?;
    let level = || {
        let now = stage.counts()?;
        Ok(["b1", "b2"].map(|name| now.served[name].streams - before.served[name].streams))
    };
    eventually("streams on both backends", level, |[first, second]| {
        *first > 200 && *second > 200
    })?;
    load.wait_for(1)?;
    load.finish()?.all_ok()?;
    Ok(())
}
