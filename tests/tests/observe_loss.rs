//! `evenkeel observe` where packets are lost before they come to it.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use evenkeel_tests::{Loss, Observer, Offloads, PORT, Setup, event};

#[test]
fn streams_whose_end_was_lost_are_not_in_flight_for_sure() -> Result<()> {
    let mut setup = Setup::backends(1);
    setup.spec.gateway = true;
    setup.spec.loss = Some(Loss::OneIn(50));
    // One packet dropped must be one segment lost.
    setup.spec.offloads = Offloads::None;
    let stage = setup.without_backends()?;
    let _echo = stage.echo(0, &[])?;
    let observer = Observer::start(&stage, stage.lab.client(), &["eth0"])?;
    let target = format!("http://{}/", stage.lab.backend_address(0, PORT)?);
    // Answers of several segments: one that is lost is followed by others at once, and the stream's end may be in those.
    // Connections stay when all is answered, with one request a second.
    let mut arguments = vec!["-c", "4", "--response-size", "20000"];
    arguments.extend(["--schedule", "step:100@5s,1@60s"]);
    let mut load = stage.start_load_at("load", &target, &arguments)?;
    load.wait_for(450)?;
    thread::sleep(Duration::from_secs(3));
    let report = observer.finish()?;
    drop(load);

    ensure!(event(&report, "untimed") > Some(0), "{report}");
    let peer = &report["groups"][0]["peers"][0];
    let figure = |name: &str| peer[name].as_u64().context("a figure");
    ensure!(figure("open")? > 0, "{report}");
    let (most, unsure) = (figure("in_flight")?, figure("in_flight_unsure")?);
    ensure!(unsure > 0, "nothing was lost that matters: {report}");
    ensure!(most - unsure <= 1, "{report}");
    Ok(())
}
