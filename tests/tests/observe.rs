//! `evenkeel observe` on hosts where evenkeel balances nothing: what it says is what the backends counted.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use evenkeel_tests::{
    Observer, Offloads, PORT, PROXY_PORT, Process, Setup, Stage, event, eventually, start_python,
    wait_for_listener,
};
use serde_json::Value;
use xtask::{shell, workspace};

/// A lab with so many echo backends, and no daemon.
fn stage(backends: usize) -> Result<(Stage, Vec<Process>)> {
    stage_with(backends, Offloads::NoChecksums)
}

/// The same with other virtual cards.
fn stage_with(backends: usize, offloads: Offloads) -> Result<(Stage, Vec<Process>)> {
    let mut setup = Setup::backends(backends);
    setup.spec.gateway = true;
    setup.spec.offloads = offloads;
    let stage = setup.without_backends()?;
    let echoes = (0..backends)
        .map(|index| stage.echo(index, &[]))
        .collect::<Result<_>>()?;
    Ok((stage, echoes))
}

/// Streams by backend's address, as the backends themselves counted them; ends them.
fn served(stage: &Stage, echoes: Vec<Process>) -> Result<BTreeMap<String, u64>> {
    let mut served = BTreeMap::new();
    for (index, mut echo) in echoes.into_iter().enumerate() {
        echo.stop()?;
        let stats: Value = serde_json::from_str(&echo.output()?)?;
        let address = stage.lab.backend_address(index, PORT)?.to_string();
        served.insert(address, stats["streams"].as_u64().context("streams")?);
    }
    Ok(served)
}

/// The report's group for a port.
fn group(report: &Value, port: u16) -> Result<Value> {
    let groups = report["groups"].as_array().context("groups")?;
    let found = groups.iter().find(|group| group["port"] == port);
    found
        .cloned()
        .with_context(|| format!("no group for port {port}: {report}"))
}

/// A figure of every peer of a group.
fn by_peer(group: &Value, figure: &str) -> BTreeMap<String, u64> {
    let peers = group["peers"].as_array().into_iter().flatten();
    peers
        .map(|peer| {
            let address = peer["address"].as_str().unwrap_or_default();
            (address.to_owned(), peer[figure].as_u64().unwrap_or(0))
        })
        .collect()
}

fn within_one_percent(seen: f64, truth: f64) -> bool {
    (seen - truth).abs() <= 0.01 * truth
}

/// `h2load` at HAProxy.
fn h2load(stage: &Stage, connections: u32, requests: u32) -> Result<()> {
    let mut h2load = stage.client("h2load");
    h2load.args(["-m", "10", "-c", &connections.to_string()]);
    h2load.args(["-n", &requests.to_string()]);
    let url = format!("http://{}/", stage.lab.service(PROXY_PORT));
    let printed = shell::capture(h2load.arg(url))?;
    ensure!(
        printed.contains(&format!(" {requests} succeeded")),
        "{printed}"
    );
    Ok(())
}

#[test]
fn haproxys_skew_is_what_its_backends_counted() -> Result<()> {
    let (stage, echoes) = stage(4)?;
    let _haproxy = stage.haproxy()?;
    let interfaces = ["client", "b1", "b2", "b3", "b4"];
    let observer = Observer::start(&stage, stage.lab.balancer(), &interfaces)?;
    // Six connections on four backends: two of them get twice as much.
    h2load(&stage, 6, 60_000)?;
    let report = observer.finish()?;
    let truth = served(&stage, echoes)?;

    let out = group(&report, PORT)?;
    ensure!(out["relation"] == "outgoing", "{out}");
    the_skew_is_that_of(&truth, &out)?;
    // Two flows that take a slot for a beginning at the same time lose a latency, and no count.
    let timed: u64 = by_latency(&out)?;
    ensure!(
        (59_940..=60_000).contains(&timed),
        "{timed} of 60,000 streams were timed: {report}"
    );

    let incoming = group(&report, PROXY_PORT)?;
    ensure!(
        incoming["relation"] == "incoming" && incoming["streams"] == 60_000,
        "{incoming}"
    );
    ensure!(
        by_peer(&out, "in_flight").values().all(|n| *n == 0),
        "{out}"
    );
    let verdict = out["verdict"].as_str().unwrap_or_default();
    ensure!(
        verdict.contains("no L4 policy can get below hot factor 1.33"),
        "{verdict}"
    );
    Ok(())
}

/// What is said of six equal connections to four backends, held against what these served.
fn the_skew_is_that_of(truth: &BTreeMap<String, u64>, out: &Value) -> Result<()> {
    let seen = by_peer(out, "streams");
    for (address, streams) in truth {
        ensure!(
            within_one_percent(seen[address] as f64, *streams as f64),
            "{seen:?} where the backends served {truth:?}"
        );
    }
    let most = truth.values().max().context("backends")?;
    let hot = (most * 4) as f64 / truth.values().sum::<u64>() as f64;
    let (seen_hot, bound) = (&out["hot_factor"], &out["l4_lower_bound"]);
    ensure!(
        seen_hot
            .as_f64()
            .is_some_and(|it| within_one_percent(it, hot)),
        "{seen_hot}, by the backends' counts {hot}"
    );
    // Six equal connections on four peers: some peer has two.
    ensure!(
        bound
            .as_f64()
            .is_some_and(|it| within_one_percent(it, 8.0 / 6.0)),
        "{bound}"
    );
    ensure!(
        out["connections"] == 6 && out["top"][5]["streams"] == 10_000,
        "{out}"
    );
    Ok(())
}

/// Streams of a group that were timed.
fn by_latency(group: &Value) -> Result<u64> {
    let mut timed = 0;
    for peer in group["peers"].as_array().context("peers")? {
        let latency = &peer["latency"];
        timed += latency["count"].as_u64().context("count")?;
        let histogram = latency["histogram"].as_array().into_iter().flatten();
        let counted: u64 = histogram
            .filter_map(|bucket| bucket["count"].as_u64())
            .sum();
        ensure!(latency["count"] == counted, "{latency}");
        let (p50, p99) = (&latency["p50_us"], &latency["p99_us"]);
        ensure!(
            p50.as_f64() > Some(0.0) && p99.as_f64() >= p50.as_f64(),
            "{latency}"
        );
    }
    Ok(timed)
}

#[test]
fn what_was_opened_before_is_known_and_the_client_is_told_from_the_frames() -> Result<()> {
    let (stage, echoes) = stage(2)?;
    let _haproxy = stage.haproxy()?;
    let url = format!("http://{}/", stage.lab.service(PROXY_PORT));
    let load = ["-c", "2", "-m", "4", "--rate", "2000", "--duration", "60s"];
    let mut load = stage.start_load_at("late", &url, &load)?;
    load.wait_for(2000)?;
    // No port is given: nothing but the frames tells who the client is.
    let observer = Observer::start(&stage, stage.lab.balancer(), &["b1", "b2"])?;
    // However long it took to start: two seconds' worth of requests, at least one of them after that.
    load.wait_for_more(4000)?;
    let answered = load.finish()?.all_ok()?.ok;
    let report = observer.finish()?;
    let truth = served(&stage, echoes)?;
    let out = group(&report, PORT)?;
    let (seen, before) = (by_peer(&out, "streams"), top_before(&out));
    let total: BTreeMap<String, u64> = seen
        .iter()
        .map(|(address, streams)| (address.clone(), streams + before[address]))
        .collect();
    ensure!(
        total == truth,
        "{seen:?} and before {before:?} where {truth:?} were served"
    );
    ensure!(
        total.values().sum::<u64>() == answered,
        "{total:?} of {answered}"
    );
    ensure!(before.values().all(|n| *n > 500) && seen.values().all(|n| *n > 500));
    ensure!(by_latency(&out)? > 1000, "{out}");
    Ok(())
}

#[test]
fn an_old_connection_that_first_sends_a_ping_counts_only_what_it_opens_then() -> Result<()> {
    let (stage, _echoes) = stage(1)?;
    let go = stage.lab.directory().join("go");
    let target = stage.lab.backend_address(0, PORT)?.to_string();
    let arguments = [target.as_str(), &go.display().to_string()];
    let mut client = start_python(&stage, stage.lab.client(), "late.py", &arguments)?;
    let log = client.log_path().to_owned();
    eventually(
        "the client's first half",
        || Ok(std::fs::read_to_string(&log)?),
        |log| log.contains("paused"),
    )?;
    let observer = Observer::start(&stage, stage.lab.balancer(), &["b1"])?;
    std::fs::write(&go, "")?;
    ensure!(client.wait()?.success(), "{}", client.log()?);
    let truth: Value = serde_json::from_str(&client.output()?)?;
    let out = group(&observer.finish()?, PORT)?;
    let connection = &out["top"][0];
    ensure!(
        connection["before"] == truth["before"]
            && connection["streams"] == truth["since"]
            && out["streams"] == truth["since"],
        "{out} where the client opened {truth}"
    );
    Ok(())
}

/// Streams from before, by peer; connections that have ended count, too.
fn top_before(group: &Value) -> BTreeMap<String, u64> {
    let mut before = BTreeMap::new();
    for connection in group["top"].as_array().into_iter().flatten() {
        let peer = connection["server"].as_str().unwrap_or_default();
        *before.entry(peer.to_owned()).or_default() += connection["before"].as_u64().unwrap_or(0);
    }
    before
}

#[test]
fn clients_and_servers_see_the_same_streams_as_the_gateway_between_them() -> Result<()> {
    for offloads in [Offloads::NoChecksums, Offloads::Merged] {
        all_three_see_the_same(stage_with(1, offloads)?)?;
    }
    Ok(())
}

fn all_three_see_the_same((stage, echoes): (Stage, Vec<Process>)) -> Result<()> {
    let port = PORT.to_string();
    let client = Observer::start(&stage, stage.lab.client(), &["eth0", "--port", &port])?;
    let gateway = Observer::start(&stage, stage.lab.balancer(), &["client", "b1"])?;
    let sent = Observer::start(&stage, stage.lab.balancer(), &["b1"])?;
    let server = stage.lab.backends().first().context("backend")?;
    let server = Observer::start(&stage, server, &["eth0"])?;
    let target = format!("http://{}/", stage.lab.backend_address(0, PORT)?);
    let mut h2load = stage.client("h2load");
    shell::capture(h2load.args(["-c", "3", "-m", "5", "-n", "3000", &target]))?;
    for (observer, relation) in [
        (client, "outgoing"),
        (gateway, "through_received"),
        (sent, "through_sent"),
        (server, "incoming"),
    ] {
        let report = observer.finish()?;
        let group = group(&report, PORT)?;
        ensure!(
            group["relation"] == relation && group["streams"] == 3000 && group["connections"] == 3,
            "{relation}: {group}"
        );
    }
    ensure!(served(&stage, echoes)?.values().sum::<u64>() == 3000);
    Ok(())
}

#[test]
fn http1_counts_no_streams_and_other_ports_are_not_looked_at() -> Result<()> {
    let (stage, _echoes) = stage(1)?;
    let all = Observer::start(&stage, stage.lab.balancer(), &["b1"])?;
    let elsewhere = Observer::start(&stage, stage.lab.balancer(), &["b1", "--port", "1"])?;
    let target = format!("http://{}/", stage.lab.backend_address(0, PORT)?);
    let mut load = stage.client(workspace::evenkeel()?);
    load.args([
        "--json", "load", &target, "--http1", "-c", "4", "-n", "1000",
    ]);
    shell::capture(&mut load)?;
    let report = all.finish()?;
    ensure!(
        report["groups"] == Value::Array(Vec::new()) && report["other"]["other"] == 4,
        "{report}"
    );
    let report = elsewhere.finish()?;
    ensure!(
        report["other"]["other"] == 0
            && report["verdict"] == "No RPC was seen: no TCP connection was.",
        "{report}"
    );
    Ok(())
}

#[test]
fn tls_is_opaque_and_said_to_be() -> Result<()> {
    let (stage, _) = stage(1)?;
    let [key, certificate] = stage.certificate()?;
    let backend = stage.lab.backends().first().context("backend")?;
    let mut server = backend.command("nghttpd");
    server.args(["4433", &key, &certificate]);
    let mut server = Process::start(&stage.lab, "nghttpd", &mut server)?;
    wait_for_listener(&mut server, 4433)?;
    let observer = Observer::start(&stage, stage.lab.balancer(), &["b1"])?;
    let target = format!("https://{}/", stage.lab.backend_address(0, 4433)?);
    let mut h2load = stage.client("h2load");
    shell::capture(h2load.args(["-c", "3", "-n", "300", &target]))?;
    let report = observer.finish()?;
    ensure!(
        report["other"]["tls"] == 3 && report["groups"] == Value::Array(Vec::new()),
        "{report}"
    );
    let verdict = report["verdict"].as_str().unwrap_or_default();
    ensure!(verdict.contains("3 with TLS, which is opaque"), "{verdict}");
    Ok(())
}

#[test]
fn the_end_that_was_asked_for_prints_the_verdict() -> Result<()> {
    let (stage, _) = stage(1)?;
    let mut observe = stage.lab.balancer().command(workspace::evenkeel()?);
    observe.args(["observe", "b1", "--for", "1s", "--watch"]);
    let printed = shell::capture(&mut observe)?;
    ensure!(
        printed.ends_with("No RPC was seen: no TCP connection was.")
            || printed.contains("No RPC was seen"),
        "{printed}"
    );
    Ok(())
}

#[test]
fn connections_that_the_table_has_no_room_for_are_said_to_be_evicted() -> Result<()> {
    let (stage, _echoes) = stage(1)?;
    let balancer = stage.lab.balancer();
    let small = Observer::start(&stage, balancer, &["b1", "--max-connections", "1024"])?;
    let large = Observer::start(&stage, balancer, &["b1"])?;
    let target = format!("http://{}/", stage.lab.backend_address(0, PORT)?);
    let mut load = stage.start_load_at(
        "load",
        &target,
        &["-c", "2500", "--rate", "1000", "--duration", "60s"],
    )?;
    // Several readings, one a second, with all connections in use.
    load.wait_for(6000)?;
    load.finish()?.all_ok()?;
    let evicted = |report: &Value| event(report, "flows_evicted");
    let (small, large) = (small.finish()?, large.finish()?);
    ensure!(evicted(&small) > Some(0), "{small}");
    ensure!(evicted(&large).is_none(), "{}", large["events"]);
    ensure!(group(&large, PORT)?["connections"] == 2500, "{large}");
    Ok(())
}

#[test]
fn peers_that_have_no_room_for_figures_are_counted_and_said_to_be_there() -> Result<()> {
    let (stage, _echoes) = stage(2)?;
    let balancer = stage.lab.balancer();
    let small = Observer::start(&stage, balancer, &["b1", "b2", "--max-peers", "1"])?;
    let large = Observer::start(&stage, balancer, &["b1", "b2", "--max-peers", "2"])?;
    for backend in 0..2 {
        let target = format!("http://{}/", stage.lab.backend_address(backend, PORT)?);
        let mut h2load = stage.client("h2load");
        shell::capture(h2load.args(["-c", "2", "-m", "5", "-n", "1000", &target]))?;
    }
    for (observer, timed, full) in [(small, 1, true), (large, 2, false)] {
        let report = observer.finish()?;
        let group = group(&report, PORT)?;
        let counts = by_peer(&group, "streams");
        ensure!(counts.values().eq(&[1000, 1000]), "{group}");
        let peers = group["peers"].as_array().context("peers")?;
        let with = peers.iter().filter(|peer| !peer["latency"].is_null());
        ensure!(with.count() == timed, "{group}");
        ensure!(event(&report, "peers_full").is_some() == full, "{report}");
    }
    Ok(())
}
