//! A data path that starts in the middle of a connection still knows how many streams it opened since its birth.

use std::fs;

use anyhow::{Result, ensure};
use evenkeel_tests::{Setup, eventually, start_python};

#[test]
fn streams_opened_before_we_attached_are_counted() -> Result<()> {
    // dnat: with the flow table gone nothing but the hash is needed to find the backend again.
    let mut stage = Setup::backends(1).dnat().start()?;
    let go = stage.lab.directory().join("go");
    let arguments = [
        "unary",
        &stage.target(),
        "--number",
        "20000",
        "--pause",
        &go.display().to_string(),
    ];
    let mut client = start_python(&stage, stage.lab.client(), "grpc_client.py", &arguments)?;
    let log = client.log_path().to_owned();
    eventually(
        "the client's first half",
        || Ok(fs::read_to_string(&log)?),
        |log| log.contains("paused"),
    )?;
    stage.counts()?.agree_on(10_000)?;

    stage.quieten()?;
    stage.stop_daemon()?;
    stage.start_daemon()?;
    let fresh = stage.counts()?;
    ensure!(
        fresh.service == 0,
        "a stopped daemon leaves no counters: {fresh:?}"
    );

    fs::write(&go, "")?;
    let status = client.wait()?;
    ensure!(status.success(), "{}", client.log()?);
    let answered: serde_json::Value = serde_json::from_str(&client.output()?)?;
    ensure!(answered["ok"] == 20_000, "{answered}");
    let counts = stage.counts()?;
    ensure!(
        counts.served["b1"].connections == 1,
        "the connection was lost: {counts:?}"
    );
    counts.agree_on(20_000)?;
    let backends = stage.json(&["backends"])?;
    ensure!(
        backends["backends"][0]["counters"]["flows_adopted"] == 1,
        "{backends}"
    );
    Ok(())
}
