//! Accuracy with what else travels on a service's port: upgrades to h2c, server push, TLS, and no HTTP/2 at all.

use std::process::Command;

use anyhow::{Result, ensure};
use evenkeel_tests::{Observer, Process, Setup, Stage, eventually, occurrences};
use xtask::shell;

/// Requests of nghttp in one connection.
const REQUESTS: u64 = 40;

/// nghttpd that logs every frame and pushes two files with each answer.
fn pushing() -> Result<(Stage, Process)> {
    Setup::default().with_server("nghttpd", |stage| {
        let documents = stage.documents(&["index.html", "a.css", "b.css"])?;
        Ok(vec![
            "--no-tls".into(),
            "--verbose".into(),
            "--push=/index.html=/a.css,/b.css".into(),
            format!("--htdocs={documents}"),
            evenkeel_tests::PORT.to_string(),
        ])
    })
}

/// `nghttp` for [`REQUESTS`] times the index, in one connection.
fn nghttp(stage: &Stage, more: &[&str]) -> Command {
    let mut nghttp = stage.client("nghttp");
    nghttp
        .args([
            "--null-out",
            "--timeout=20",
            &format!("--multiply={REQUESTS}"),
        ])
        .args(more)
        .arg(format!("{}index.html", stage.url()));
    nghttp
}

#[test]
fn pushed_streams_are_the_servers_and_not_counted() -> Result<()> {
    let (stage, server) = pushing()?;
    shell::capture(&mut nghttp(&stage, &["--no-dep"]))?;
    let seen = server.output()?;
    let pushed = seen.matches("send PUSH_PROMISE frame").count();
    ensure!(pushed > 0, "nothing was pushed:\n{seen}");
    ensure!(seen.matches("recv HEADERS frame").count() as u64 == REQUESTS);
    let counts = stage.counts()?;
    ensure!(counts.service == REQUESTS, "{pushed} pushed, {counts:?}");
    Ok(())
}

#[test]
fn ids_that_nghttp_spends_on_priorities_count_as_streams() -> Result<()> {
    let (stage, server) = pushing()?;
    // Unless told not to it names the idle streams 1 to 11 in PRIORITY frames and begins with stream 13.
    shell::capture(&mut nghttp(&stage, &[]))?;
    let seen = server.output()?;
    ensure!(seen.contains("recv PRIORITY frame"), "{seen}");
    ensure!(seen.matches("recv HEADERS frame").count() as u64 == REQUESTS);
    let counts = stage.counts()?;
    ensure!(counts.service == REQUESTS + 6, "{counts:?}");
    Ok(())
}

#[test]
fn streams_after_an_upgrade_to_h2c_are_counted_with_the_first() -> Result<()> {
    let (stage, _proxy, _echo) = upgrading()?;
    shell::capture(&mut nghttp(&stage, &["--no-dep", "--upgrade"]))?;
    let log = stage.lab.directory().join("requests.log");
    // nghttp asks for the upgrade with a request of its own, which becomes stream 1.
    let seen = eventually(
        "as many requests in nghttpx' log",
        || occurrences(&log, "\n"),
        |seen| *seen >= REQUESTS,
    )?;
    let counts = stage.counts()?;
    ensure!(counts.service == seen, "{seen} requests: {counts:?}");
    Ok(())
}

#[test]
fn answers_after_an_upgrade_to_h2c_are_timed_by_an_observer() -> Result<()> {
    let (stage, _proxy, _echo) = upgrading()?;
    let observer = Observer::start(&stage, stage.lab.client(), &["eth0"])?;
    // One after the other: what nghttp sends comes in one segment with the preface, which is left to the walker.
    curl(&stage, 10)?;
    let report = observer.finish()?;
    let peer = &report["groups"][0]["peers"][0];
    // The request that asked for the upgrade is no frame: nobody saw it begin. The next may come with the preface.
    let timed = peer["latency"]["count"].as_u64();
    ensure!(peer["streams"] == 10 && timed >= Some(8), "{report}");
    Ok(())
}

/// curl, which asks for the upgrade with its first request.
fn curl(stage: &Stage, requests: usize) -> Result<()> {
    let mut curl = stage.client("curl");
    curl.args(["--silent", "--show-error", "--http2"]);
    curl.args(vec![stage.url(); requests]);
    shell::capture(&mut curl).map(drop)
}

#[test]
fn a_request_upgraded_to_h2c_counts_as_the_first_stream() -> Result<()> {
    let (stage, _proxy, _echo) = upgrading()?;
    curl(&stage, 3)?;
    let counts = stage.counts()?;
    ensure!(counts.service == 3, "{counts:?}");
    // Alone it remains HTTP/1.1 on the wire: no frame of the client ever names stream 1.
    curl(&stage, 1)?;
    let counts = stage.counts()?;
    ensure!(counts.service == 4, "{counts:?}");
    Ok(())
}

/// nghttpx, which knows the upgrade to h2c that our echo backend does not, before an echo backend.
fn upgrading() -> Result<(Stage, Process, Process)> {
    let (stage, proxy) = Setup::default().with_server("nghttpx", |stage| {
        let log = stage.lab.directory().join("requests.log");
        Ok(vec![
            format!("--frontend=*,{};no-tls", evenkeel_tests::PORT),
            "--backend=127.0.0.1,8080;;proto=h2".into(),
            "--workers=1".into(),
            format!("--accesslog-file={}", log.display()),
        ])
    })?;
    let backend = &stage.lab.backends()[0];
    let echo = stage.echo_in(backend, ([127, 0, 0, 1], 8080).into(), "behind", &[])?;
    Ok((stage, proxy, echo))
}

/// nghttpd behind TLS.
fn secret() -> Result<(Stage, Process)> {
    Setup::default().dnat().with_server("nghttpd", |stage| {
        let documents = stage.documents(&["index.html"])?;
        let [key, certificate] = stage.certificate()?;
        let port = evenkeel_tests::PORT.to_string();
        Ok(vec![
            format!("--htdocs={documents}"),
            port,
            key,
            certificate,
        ])
    })
}

#[test]
fn tls_is_opaque_from_its_first_byte_and_from_the_middle() -> Result<()> {
    let (mut stage, _server) = secret()?;
    let mut load = stage.client("h2load");
    let url = format!("https://{}/index.html", stage.target());
    load.args(["-c", "5", "-m", "10", "-D", "60", "--rps", "200", &url]);
    let mut load = Process::start(&stage.lab, "h2load", &mut load)?;
    let opaque = |stage: &Stage| {
        eventually(
            "five flows of TLS with packets",
            || Ok((stage.protocols()?, stage.counts()?)),
            |(protocols, _)| protocols.len() == 5 && protocols.iter().all(|it| it == "tls"),
        )
    };
    let (_, counts) = opaque(&stage)?;
    ensure!(counts.service == 0, "{counts:?}");
    stage.quieten()?;
    stage.stop_daemon()?;
    stage.start_daemon()?;
    opaque(&stage)?;
    load.stop()?;
    let counts = stage.counts()?;
    ensure!(counts.service == 0, "{counts:?}");
    let service = stage.json(&["services"])?["services"][0]["counters"].clone();
    ensure!(
        service["flows_http2"] == 0 && service["bytes"].as_u64() > Some(0),
        "{service}"
    );
    Ok(())
}

#[test]
fn http1_counts_no_stream() -> Result<()> {
    let stage = Setup::backends(2).start()?;
    let report = stage
        .load(&["-c", "20", "-n", "2000", "--http1"])?
        .all_ok()?;
    ensure!(report.ok == 2000);
    let counts = stage.counts()?;
    let requests: u64 = counts.served.values().map(|served| served.requests).sum();
    ensure!(
        requests == 2000 && counts.service == 0,
        "{requests} requests: {counts:?}"
    );
    Ok(())
}

#[test]
fn random_bytes_count_no_stream_from_the_first_or_from_the_middle() -> Result<()> {
    let (mut stage, _server) = Setup::default().dnat().with_server("iperf3", |_| {
        Ok(vec![
            "-s".into(),
            "-p".into(),
            evenkeel_tests::PORT.to_string(),
        ])
    })?;
    let host = stage.lab.service(evenkeel_tests::PORT);
    let mut load = stage.client("iperf3");
    load.args(["-c", &host.ip().to_string(), "-p", &host.port().to_string()])
        .args(["--parallel", "4", "--time", "60", "--bitrate", "50M"]);
    let mut load = Process::start(&stage.lab, "iperf3-client", &mut load)?;
    let flowing = |stage: &Stage| {
        eventually(
            "ten megabytes of iperf3",
            || {
                let services = stage.json(&["services"])?;
                Ok(services["services"][0]["counters"].clone())
            },
            |counters| counters["bytes"].as_u64() > Some(10_000_000),
        )
    };
    let counters = flowing(&stage)?;
    ensure!(
        counters["streams"] == 0 && counters["flows_http2"] == 0,
        "{counters}"
    );
    stage.quieten()?;
    stage.stop_daemon()?;
    stage.start_daemon()?;
    let counters = flowing(&stage)?;
    ensure!(
        counters["streams"] == 0 && counters["flows_http2"] == 0,
        "{counters}"
    );
    load.stop()?;
    Ok(())
}
