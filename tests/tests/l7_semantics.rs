//! What a proxy must not change: gRPC trailers, errors, deadlines, cancellation; HTTP/1.1 and its upgrades.

use std::fs;

use anyhow::{Result, ensure};
use evenkeel_tests::{PORT, Process, Setup, Stage, serve_python};
use serde_json::{Value, json};
use xtask::shell;

/// A stage whose backends are so many of a Python server.
fn stage_of(server: &str, mode: &'static str, backends: usize) -> Result<(Vec<Process>, Stage)> {
    let mut stage = Setup::backends(backends).mode(mode).without_backends()?;
    let mut servers = Vec::new();
    for index in 0..backends {
        let address = stage.lab.backend_address(index, PORT)?.to_string();
        let namespace = &stage.lab.backends()[index];
        servers.push(serve_python(&stage, namespace, server, &address)?);
    }
    stage.start_daemon()?;
    Ok((servers, stage))
}

#[test]
fn grpc_trailers_errors_deadlines_and_cancellation_arrive_as_sent() -> Result<()> {
    for mode in ["l4", "l7"] {
        let (_servers, stage) = stage_of("grpc_server.py", mode, 1)?;
        let mut seen = stage.script("grpc_semantics.py", &[&stage.target()])?;
        // Client and server race at a deadline: the server hears of it by its own clock or by the client's reset.
        ensure!(seen["server_saw_end"].as_u64() >= Some(1), "{mode}: {seen}");
        ensure!(seen["cancelled"].as_u64() >= Some(5), "{mode}: {seen}");
        for racing in ["server_saw_end", "cancelled"] {
            seen.as_object_mut().map(|seen| seen.remove(racing));
        }
        let expected = json!({
            "fail": {
                "code": "FAILED_PRECONDITION",
                "details": "so wanted",
                "reason": "wanted",
                "binary": "0001ff",
            },
            "unknown": "UNIMPLEMENTED",
            "no_deadline": "none",
            "deadline_forwarded": true,
            "metadata": ["b", "00ff"],
            "deadline": "DEADLINE_EXCEEDED",
            "large": true,
        });
        ensure!(seen == expected, "{mode}: {seen}");
    }
    Ok(())
}

#[test]
fn http1_keepalive_and_bodies_pass_through_the_same_listener() -> Result<()> {
    for mode in ["l4", "l7"] {
        let (_servers, stage) = stage_of("web_server.py", mode, 1)?;
        // One curl, three requests: one connection, which curl counts.
        let url = stage.url();
        let mut curl = stage.client("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--max-time",
            "20",
            "--output",
            "-",
        ]);
        curl.args([
            "--write-out",
            "|%{num_connects} %{http_code} %{http_version}\n",
        ]);
        let printed = shell::capture(curl.args([&url, &url, &url]))?;
        let connects: Vec<&str> = printed
            .lines()
            .filter_map(|line| line.split('|').nth(1))
            .collect();
        ensure!(
            connects == ["1 200 1.1", "0 200 1.1", "0 200 1.1"],
            "{mode}: {printed}"
        );

        let body = "x".repeat(100_000);
        let file = stage.lab.directory().join("body");
        fs::write(&file, &body)?;
        for chunked in ["Transfer-Encoding: chunked", "Transfer-Encoding:"] {
            let mut curl = stage.client("curl");
            curl.args([
                "--silent",
                "--show-error",
                "--max-time",
                "20",
                "--header",
                chunked,
                "--data-binary",
            ]);
            let echoed = shell::capture(curl.arg(format!("@{}", file.display())).arg(&url))?;
            ensure!(
                echoed == body,
                "{mode}, {chunked}: {} of {} bytes",
                echoed.len(),
                body.len()
            );
        }
    }
    Ok(())
}

#[test]
fn a_websocket_passes_in_both_modes() -> Result<()> {
    for mode in ["l4", "l7"] {
        let (_servers, stage) = stage_of("web_server.py", mode, 2)?;
        let seen: Value = stage.script("websocket_client.py", &[&stage.target(), "100"])?;
        let expected = json!({ "status": "101", "accepted": true, "echoed": 100, "closed": true });
        ensure!(seen == expected, "{mode}: {seen}");
    }
    Ok(())
}

#[test]
fn large_messages_and_many_streams_pass_the_proxy_whole() -> Result<()> {
    let stage = Setup::backends(2).mode("l7").start()?;
    let large = [
        "-c",
        "2",
        "-m",
        "4",
        "-n",
        "40",
        "--grpc",
        "stream",
        "--payload",
        "2000000",
        "--timeout",
        "60s",
    ];
    stage.load(&large)?.all_ok()?;
    let many = ["-c", "2", "-m", "200", "-n", "4000", "--grpc", "stream"];
    stage.load(&many)?.all_ok()?;
    stage.counts()?.agree_on(4040)
}

#[test]
fn a_backend_that_ends_gracefully_loses_no_stream_at_l7() -> Result<()> {
    let mut stage = Setup::backends(2).mode("l7").start()?;
    let mut load = stage.start_load(
        "load",
        &["--rate", "1000", "-c", "4", "-m", "50", "--duration", "60s"],
    )?;
    load.wait_for(500)?;
    stage.backend(0)?.stop()?;
    load.wait_for_more(2000)?;
    let ended: Value = serde_json::from_str(&stage.backend(0)?.output()?)?;
    let load = load.finish()?;
    // Once it is gone streams meant for it cannot be served there; they may go to the other, or fail as refused.
    ensure!(
        load.per_backend.get("b1").copied() == ended["streams"].as_u64(),
        "{ended} {}",
        load.report
    );
    ensure!(load.failed == 0, "{}", load.report);
    Ok(())
}
