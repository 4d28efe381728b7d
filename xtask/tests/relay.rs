//! The relay on real packets: it delays what it should, and loses exactly what its schedule says. Needs root.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use xtask::{
    lab::{Lab, RelaySpec, Spec},
    shell,
};

const IDEAL: RelaySpec = RelaySpec {
    loss: 0.0,
    delay: Duration::ZERO,
    rate: None,
    queue: 1000,
    seed: 42,
};

fn lab(relay: RelaySpec) -> Result<Lab> {
    Lab::new(&Spec {
        backends: 1,
        relay: Some(relay),
        ..Spec::default()
    })
}

/// Pings the router `count` times; what `ping` printed, answered or not.
fn ping(lab: &Lab, count: u32, interval: &str) -> Result<String> {
    let mut ping = lab.client().command("ping");
    ping.args(["-n", "-c", &count.to_string(), "-i", interval, "-W", "2"]);
    let output = ping.arg("10.78.0.1").output().context("ping")?;
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn twice_25_ms_make_a_round_trip_of_50_ms_for_every_packet() -> Result<()> {
    let lab = lab(RelaySpec {
        delay: Duration::from_millis(25),
        ..IDEAL
    })?;
    let printed = ping(&lab, 20, "0.05")?;
    let times: Vec<f64> = printed
        .lines()
        .filter_map(|line| line.split("time=").nth(1)?.split(' ').next()?.parse().ok())
        .collect();
    ensure!(times.len() == 20, "{printed}");
    ensure!(times.iter().all(|time| *time >= 50.0), "{printed}");
    Ok(())
}

#[test]
fn exactly_the_packets_of_the_schedule_are_lost() -> Result<()> {
    const COUNT: u32 = 500;
    let spec = RelaySpec { loss: 0.1, ..IDEAL };
    let lab = lab(spec)?;
    let printed = ping(&lab, COUNT, "0.002")?;
    let [there, back] = spec.schedules();
    // Request n is packet n there; the answers that it gets are numbered anew on the way back.
    let asked = (0..COUNT.into())
        .filter(|number| !there.loses(*number))
        .count() as u64;
    let answered = (0..asked).filter(|number| !back.loses(*number)).count();
    ensure!(
        printed.contains(&format!(" {answered} received")),
        "not {answered}: {printed}"
    );
    let passed = lab.relay()?.passed();
    ensure!(passed[0].packets == u64::from(COUNT) && passed[0].lost == u64::from(COUNT) - asked);
    ensure!(passed[1].packets == asked && passed[1].lost == asked - answered as u64);
    // The same seed again: the same packets.
    lab.relay()?.reshape(&spec);
    ensure!(ping(&lab, COUNT, "0.002")?.contains(&format!(" {answered} received")));
    ensure!(lab.relay()?.passed() == passed);
    Ok(())
}

#[test]
fn the_queue_is_bounded_and_what_it_drops_is_counted() -> Result<()> {
    let lab = lab(RelaySpec {
        rate: Some(1_000_000),
        queue: 10,
        ..IDEAL
    })?;
    // A flood of large pings, ten times the rate.
    let mut ping = lab.client().command("ping");
    ping.args([
        "-n",
        "-q",
        "-s",
        "1400",
        "-c",
        "300",
        "-i",
        "0.001",
        "-W",
        "1",
        "10.78.0.1",
    ]);
    let printed = String::from_utf8(ping.output()?.stdout)?;
    let [there, _] = lab.relay()?.passed();
    ensure!(there.packets == 300 && there.lost == 0, "{there:?}");
    ensure!(there.overflowed > 0, "{there:?}");
    let through = there.packets - there.overflowed;
    ensure!(
        printed.contains(&format!(" {through} received")),
        "{through}: {printed}"
    );
    Ok(())
}

#[test]
fn the_services_are_reached_through_a_relay() -> Result<()> {
    let lab = lab(IDEAL)?;
    let mut ping = lab.client().command("ping");
    shell::capture(ping.args(["-c", "1", "-W", "2", &lab.service(1).ip().to_string()]))?;
    Ok(())
}
