//! Commands that show something, as text and as JSON.

use std::time::Duration;

use evenkeel::daemon::FlowView;
use evenkeel::l7::{BackendStats, ProxyStats, ServiceStats};

use crate::fake::Daemon;
use crate::{json, request};

/// What a proxy may count that cannot reach the first backend of `echo`.
fn proxy_figures() -> ProxyStats {
    let backend = |address: &str, down| BackendStats {
        address: address.parse().expect("ok"),
        weight: 1,
        draining: false,
        down,
        streams_opened: 10,
        streams_active: 1,
        streams_ok: 9,
        streams_failed: 0,
        streams_reset: 0,
        streams_timed_out: 0,
        streams_retried: 0,
        connect_failures: if down { 1234 } else { 0 },
        upstream_full: 0,
        http1_not_kept: 0,
        upstream_opened: 1,
        upstream_active: 1,
        request_bytes: 0,
        response_bytes: 0,
    };
    ProxyStats {
        workers: 2,
        connections: 5,
        connections_refused: 3,
        services: vec![ServiceStats {
            name: "echo".to_owned(),
            address: "10.0.0.10:80".parse().expect("ok"),
            connections_opened: 9,
            connections_active: 5,
            http1_connections: 0,
            no_backend: 0,
            streams_placed_again: 0,
            floods: 2,
            stalled: 0,
            received_bytes: 100,
            sent_bytes: 200,
            backends: vec![backend("10.0.1.1:80", true), backend("10.0.1.2:80", false)],
        }],
    }
}

#[test]
fn a_backend_that_the_proxy_cannot_reach_is_down_at_l7_unless_it_drains() {
    let daemon = Daemon::start("down");
    daemon.fake.told().figures = proxy_figures();
    let states = || {
        let backends = json(&daemon.ok(&["backends", "list", "echo", "--json"]));
        let backends = backends["backends"].as_array().expect("a list").clone();
        let states = backends
            .iter()
            .map(|b| b["state"].as_str().map(str::to_owned));
        states.collect::<Option<Vec<String>>>().expect("states")
    };
    assert_eq!(
        states(),
        ["active", "active"],
        "at l4 the proxy's word counts for nothing"
    );
    daemon.ok(&["mode", "echo", "l7"]);
    assert_eq!(states(), ["down", "active"]);
    let table = daemon.ok(&["backends", "list", "echo"]);
    let row = table.lines().find(|line| line.contains("10.0.1.1:80"));
    assert!(row.is_some_and(|row| row.contains(" down ")), "{table}");
    daemon.ok(&["backends", "drain", "echo", "10.0.1.1:80"]);
    assert_eq!(states(), ["draining", "active"]);
}

#[test]
fn status_shows_what_the_proxy_refused_and_failed_at() {
    let daemon = Daemon::start("events");
    let quiet = daemon.ok(&["status"]);
    assert!(
        quiet.contains("proxy: 0 workers, 0 connections\n"),
        "{quiet}"
    );
    assert!(!quiet.contains("PROXY EVENT"), "{quiet}");
    daemon.fake.told().figures = proxy_figures();
    let status = daemon.ok(&["status"]);
    let expected = "\
proxy: 2 workers, 5 connections
PROXY EVENT          SERVICE  BACKEND      COUNT
connections_refused                            3
floods               echo                      2
connect_failures     echo     10.0.1.1:80  1,234
";
    assert!(format!("{status}\n").contains(expected), "{status}");
    let figures = &json(&daemon.ok(&["status", "--json"]))["proxy"];
    assert_eq!(figures["services"][0]["backends"][0]["down"], true);
}

#[test]
fn every_reading_command_prints_json_and_text() {
    let daemon = Daemon::start("reading");
    for arguments in [
        vec!["status"],
        vec!["services"],
        vec!["backends"],
        vec!["flows"],
        vec!["pinning"],
        vec!["pinning", "--for", "10ms"],
        vec!["explain", "1.2.3.4:5", "echo"],
    ] {
        assert!(!daemon.ok(&arguments).is_empty(), "{arguments:?}");
        let with_json: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        assert!(json(&daemon.ok(&with_json)).is_object(), "{arguments:?}");
    }
}

/// A flow of `echo`.
fn flow(client: &str, backend: Option<&str>, state: &'static str) -> FlowView {
    FlowView {
        client: client.parse().expect("ok"),
        service: "10.0.0.10:80".parse().expect("ok"),
        backend: backend.map(|backend| backend.parse().expect("ok")),
        state,
        age: Duration::from_secs(1),
        idle: Duration::ZERO,
        sent: (1, 60),
        received: (1, 60),
        streams: 0,
        protocol: "unknown",
    }
}

#[test]
fn flows_are_filtered_by_client_backend_and_state() {
    let daemon = Daemon::start("filter");
    daemon.fake.told().flows = vec![
        flow("10.0.9.1:1000", Some("10.0.1.1:80"), "established"),
        flow("10.0.9.1:1001", Some("10.0.1.2:80"), "opening"),
        flow("10.0.9.2:1002", Some("10.0.1.1:80"), "reset"),
        flow("10.0.9.2:1003", None, "established"),
    ];
    for (filters, expected) in [
        (&[][..], &[1000, 1001, 1002, 1003][..]),
        (&["--client=10.0.9.2"], &[1002, 1003]),
        (&["--backend=10.0.1.1:80"], &[1000, 1002]),
        (&["--backend=local"], &[1003]),
        (&["--state=open"], &[1000, 1001, 1003]),
        (&["--state=reset"], &[1002]),
        (&["--state=open", "--backend=10.0.1"], &[1000, 1001]),
        (&["--state=closed"], &[]),
    ] {
        let arguments = [&["flows", "--json"], filters].concat();
        let flows = json(&daemon.ok(&arguments));
        let listed = flows["flows"].as_array().expect("a list");
        let mut ports: Vec<u16> = listed
            .iter()
            .filter_map(|flow| flow["client"].as_str()?.rsplit(':').next()?.parse().ok())
            .collect();
        ports.sort_unstable();
        assert_eq!(ports, expected, "{filters:?}");
        assert_eq!(flows["total"], expected.len(), "{filters:?}");
    }
    let answer = request(&daemon, "GET", "/v1/flows?state=shut", "");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert!(
        answer.contains("allowed: open, opening, established, closing, closed, reset"),
        "{answer}"
    );
}

#[test]
fn completions_and_manual_page_are_printed() {
    let daemon = Daemon::start("help");
    assert!(daemon.ok(&["completions", "bash"]).contains("pinning"));
    assert!(daemon.ok(&["man"]).contains(".TH evenkeel"));
}
