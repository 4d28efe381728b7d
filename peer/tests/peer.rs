//! Client and server of the benchmarks against each other, over loopback.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

const PEER: &str = env!("CARGO_BIN_EXE_bench-peer");

/// A program that is ended when it is dropped.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a server, and gives its address.
fn start(arguments: &[&str]) -> Result<(Running, String)> {
    let mut child = Command::new(PEER)
        .args(arguments)
        .args(["--listen", "127.0.0.1:0"])
        .stderr(Stdio::piped())
        .spawn()?;
    let errors = child.stderr.take().context("no standard error")?;
    let running = Running(child);
    let mut line = String::new();
    BufReader::new(errors).read_line(&mut line)?;
    let address = line.trim().strip_prefix("listening on ");
    Ok((running, address.with_context(|| line.clone())?.to_owned()))
}

#[test]
fn small_requests_and_downloads_are_whole_over_every_version() -> Result<()> {
    let certificate: PathBuf =
        std::env::temp_dir().join(format!("bench-peer-{}.der", std::process::id()));
    let file = certificate.to_str().context("a path")?;
    let (_server, address) = start(&["serve", "--certificate", file])?;
    for (version, connections) in [("http1", 8), ("http2", 1), ("http2", 3), ("http3", 1)] {
        let output = Command::new(PEER)
            .args([
                "fetch",
                &address,
                "--version",
                version,
                "--certificate",
                file,
            ])
            .args(["-c", &connections.to_string(), "--rate", "100"])
            .args(["--download", "100000", "--duration", "500ms"])
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        let report: Value =
            serde_json::from_slice(&output.stdout).with_context(|| said.into_owned())?;
        let count = |key: &str| report[key].as_array().map_or(0, Vec::len);
        ensure!(count("latencies") == 50, "{version}: {report}");
        ensure!(
            report["failed"] == 0 && report["unfinished"] == 0,
            "{version}: {report}"
        );
        ensure!(count("downloads") > 0, "{version}: {report}");
        let downloaded = report["downloaded"].as_u64().unwrap_or(0);
        ensure!(
            downloaded >= 100_000 * count("downloads") as u64,
            "{version}: {report}"
        );
    }
    std::fs::remove_file(&certificate)?;
    Ok(())
}

#[test]
fn a_session_is_found_by_the_server_that_had_it_last_and_by_no_other() -> Result<()> {
    let (server, address) = start(&["sessions", "--name", "b1"])?;
    let mut child = Command::new(PEER)
        .args(["hold", &address, "--sessions", "3", "--one-address"])
        .args(["--first", "127.0.0.1"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut orders = child.stdin.take().context("no standard input")?;
    let mut answers = BufReader::new(child.stdout.take().context("no standard output")?).lines();
    let _clients = Running(child);
    let mut order = |order: &str| -> Result<Value> {
        writeln!(orders, "{order}")?;
        let line = answers.next().context("no answer")??;
        Ok(serde_json::from_str(&line)?)
    };
    let mut settle = |found: u64, fresh: u64| -> Result<()> {
        loop {
            let status = order("status")?;
            if status["connected"] == 3 && status["found"] == found && status["fresh"] == fresh {
                return Ok(());
            }
            // The test runner ends a test that waits in vain.
            thread::sleep(Duration::from_millis(10));
        }
    };
    settle(0, 3)?;
    drop(server);
    let _other = Command::new(PEER)
        .args(["sessions", "--name", "b2", "--listen", &address])
        .spawn()
        .map(Running)?;
    settle(0, 6)?;
    order("forget")?;
    order("blip")?;
    let found = loop {
        let status = order("status")?;
        if status["found"] == 3 {
            break status;
        }
        thread::sleep(Duration::from_millis(10));
    };
    ensure!(found["fresh"] == 0, "{found}");
    let echoed = order("echo 100 0.1")?;
    ensure!(echoed.as_array().map_or(0, Vec::len) == 10, "{echoed}");
    let talked = order("talk 20")?;
    ensure!(talked.as_array().map_or(0, Vec::len) == 20, "{talked}");
    Ok(())
}
