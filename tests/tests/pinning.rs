//! Pinning with a real gRPC client: one connection pins at L4 and is level at L7, and every count is exact.

use anyhow::{Result, ensure};
use evenkeel_tests::{SERVICE, Setup, Stage};
use serde_json::Value;

const BACKENDS: u64 = 4;

/// Runs `grpc_client.py` and checks that all of its RPCs were answered.
fn grpcio(stage: &Stage, kind: &str, connections: u64, each: u64) -> Result<Value> {
    let (connections_text, each_text) = (connections.to_string(), each.to_string());
    let arguments = [
        kind,
        &stage.target(),
        "--connections",
        &connections_text,
        "--number",
        &each_text,
    ];
    let answered = stage.script("grpc_client.py", &arguments)?;
    ensure!(answered["ok"] == connections * each, "{answered}");
    Ok(answered)
}

/// What `evenkeel pinning` says about the service.
fn pinning(stage: &Stage) -> Result<Value> {
    Ok(stage.json(&["pinning", SERVICE])?["services"][0].clone())
}

#[test]
fn unary_and_bidirectional_rpcs_of_grpcio_are_counted_exactly() -> Result<()> {
    for mode in ["l4", "l7"] {
        let stage = Setup::backends(2).mode(mode).start()?;
        grpcio(&stage, "unary", 3, 500)?;
        stage.counts()?.agree_on(1500)?;
        grpcio(&stage, "bidi", 2, 250)?;
        stage.counts()?.agree_on(2000)?;
    }
    Ok(())
}

#[test]
fn at_l4_one_connection_pins_every_rpc_to_one_backend() -> Result<()> {
    let stage = Setup::backends(4).start()?;
    let answered = grpcio(&stage, "unary", 1, 400)?;
    ensure!(
        answered["per_backend"]
            .as_object()
            .is_some_and(|it| it.len() == 1),
        "{answered}"
    );
    let counts = stage.counts()?;
    counts.agree_on(400)?;
    ensure!(counts.hot_factor() == 4.0, "{counts:?}");
    let report = pinning(&stage)?;
    ensure!(
        report["hot_factor"] == 4.0 && report["fairness"] == 0.25,
        "{report}"
    );
    ensure!(report["streams"] == 400, "{report}");
    ensure!(
        report["top_flows"][0]["share"] == 1.0,
        "one flow carries everything: {report}"
    );
    Ok(())
}

#[test]
fn at_l7_one_connection_is_level_over_all_backends() -> Result<()> {
    let stage = Setup::backends(4).mode("l7").start()?;
    let answered = grpcio(&stage, "unary", 1, 400)?;
    for number in 1..=BACKENDS {
        ensure!(
            answered["per_backend"][format!("b{number}")] == 400 / BACKENDS,
            "{answered}"
        );
    }
    let counts = stage.counts()?;
    counts.agree_on(400)?;
    ensure!(counts.hot_factor() == 1.0, "{counts:?}");
    let report = pinning(&stage)?;
    ensure!(
        report["hot_factor"] == 1.0 && report["fairness"] == 1.0,
        "{report}"
    );
    Ok(())
}

#[test]
fn one_busy_client_among_quiet_ones_heats_one_backend_at_l4_and_none_at_l7() -> Result<()> {
    let load = [
        "--weights",
        "91,1,1,1,1,1,1,1,1,1",
        "--requests",
        "1000",
        "--grpc",
        "unary",
    ];
    for (mode, hot) in [("l4", true), ("l7", false)] {
        let stage = Setup::backends(2).mode(mode).start()?;
        stage.load(&load)?.all_ok()?;
        let counts = stage.counts()?;
        counts.agree_on(1000)?;
        ensure!((counts.hot_factor() >= 1.82) == hot, "{mode}: {counts:?}");
        ensure!(hot || counts.hot_factor() < 1.05, "{mode}: {counts:?}");
    }
    Ok(())
}
