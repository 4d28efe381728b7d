//! The relay on real packets: it delays what it should, and loses exactly what its schedule says. Needs root.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use xtask::{
    lab::{Lab, Passed, RelaySpec, Spec},
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

/// Answers that the client's kernel was given so far: `ping` itself leaves when the last few are late.
fn answers(lab: &Lab) -> Result<u64> {
    let counts = shell::capture(lab.client().command("cat").arg("/proc/self/net/snmp"))?;
    let mut lines = counts.lines().filter(|line| line.starts_with("Icmp: "));
    let (names, values) = lines.next().zip(lines.next()).context("Icmp")?;
    let mut pairs = names.split(' ').zip(values.split(' '));
    let (_, answers) = pairs
        .find(|(name, _)| *name == "InEchoReps")
        .context("InEchoReps")?;
    Ok(answers.parse()?)
}

/// Waits until the relay passed what it should and the client was given as many answers in all as `wanted` then says.
fn settle(lab: &Lab, wanted: impl Fn([Passed; 2]) -> Option<u64>) -> Result<[Passed; 2]> {
    const PATIENCE: Duration = Duration::from_secs(20);
    let begun = Instant::now();
    loop {
        let (passed, answers) = (lab.relay()?.passed(), answers(lab)?);
        if wanted(passed) == Some(answers) {
            return Ok(passed);
        }
        if begun.elapsed() > PATIENCE {
            bail!("{answers} answers of {passed:?}");
        }
        thread::sleep(Duration::from_millis(10));
    }
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
    ping(&lab, COUNT, "0.002")?;
    let [there, back] = spec.schedules();
    // Request n is packet n there; the answers that it gets are numbered anew on the way back.
    let asked = (0..COUNT.into())
        .filter(|number| !there.loses(*number))
        .count() as u64;
    let answered = (0..asked).filter(|number| !back.loses(*number)).count() as u64;
    let lost = [u64::from(COUNT) - asked, asked - answered];
    let as_scheduled = |passed: [Passed; 2]| {
        passed.map(|passed| passed.packets) == [COUNT.into(), asked]
            && passed.map(|passed| passed.lost) == lost
    };
    settle(&lab, |passed| as_scheduled(passed).then_some(answered))?;
    // The same seed again: the same packets.
    lab.relay()?.reshape(&spec);
    ping(&lab, COUNT, "0.002")?;
    settle(&lab, |passed| as_scheduled(passed).then_some(2 * answered)).map(drop)
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
    ping.output()?;
    // The answers are as large: what came through once comes through again, at the same rate.
    let through = |there: Passed| there.packets - there.overflowed - there.lost;
    let [there, _] = settle(&lab, |[there, _]| {
        (there.packets == 300).then(|| through(there))
    })?;
    ensure!(there.lost == 0 && there.overflowed > 0, "{there:?}");
    Ok(())
}

#[test]
fn the_services_are_reached_through_a_relay() -> Result<()> {
    let lab = lab(IDEAL)?;
    let mut ping = lab.client().command("ping");
    shell::capture(ping.args(["-c", "1", "-W", "2", &lab.service(1).ip().to_string()]))?;
    Ok(())
}
