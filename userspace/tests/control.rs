//! Control socket and command line against a daemon with a fake data path: needs no root.

mod fake;

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use evenkeel::api::server::{SocketError, listen};
use evenkeel::daemon::FlowView;
use evenkeel::l7::{BackendStats, ProxyStats, ServiceStats};
use fake::{Daemon, Directory};
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

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
            floods: 2,
            stalled: 0,
            received_bytes: 100,
            sent_bytes: 200,
            backends: vec![backend("10.0.1.1:80", true), backend("10.0.1.2:80", false)],
        }],
    }
}

/// One raw HTTP exchange, as any client may have it.
fn raw(daemon: &Daemon, request: &str) -> String {
    let mut stream = UnixStream::connect(daemon.socket()).expect("connected");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer
}

fn request(daemon: &Daemon, method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    raw(
        daemon,
        &format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        ),
    )
}

#[test]
fn only_the_owner_may_use_the_socket() {
    let daemon = Daemon::start("mode");
    let mode = std::fs::metadata(daemon.socket())
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_group_may_use_the_socket_where_one_is_named() {
    let directory = Directory::new("group");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a loop");
    let _guard = runtime.enter();
    let path = directory.0.join("s");
    let group = std::fs::metadata(&directory.0).expect("there").gid();
    let _listener = listen(&path, Some(group)).expect("a group of ours");
    let metadata = std::fs::metadata(&path).expect("there");
    assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
    assert_eq!(metadata.gid(), group);
}

#[test]
fn a_dead_socket_is_replaced_and_a_live_one_is_not() {
    let directory = Directory::new("stale");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a loop");
    let _guard = runtime.enter();
    let path = directory.0.join("s");
    drop(listen(&path, None).expect("fresh"));
    let live = listen(&path, None).expect("a dead one is replaced");
    assert!(matches!(listen(&path, None), Err(SocketError::InUse(_))));
    drop(live);
    let file = directory.0.join("file");
    std::fs::write(&file, "").expect("written");
    assert!(matches!(
        listen(&file, None),
        Err(SocketError::NotASocket(_))
    ));
    assert!(file.exists());
}

#[test]
fn an_unknown_service_or_backend_lists_the_known_ones() {
    let daemon = Daemon::start("unknown");
    for arguments in [
        vec!["mode", "ecko", "l7"],
        vec!["pinning", "ecko"],
        vec!["pinning", "--for", "1h", "--service", "ecko"],
        vec!["flows", "--service", "ecko"],
        vec!["backends", "list", "ecko"],
        vec!["explain", "1.2.3.4:5", "ecko"],
    ] {
        let error = daemon.fails(&arguments);
        assert_eq!(
            error, "evenkeel: service \"ecko\" is unknown; known: echo, other\n",
            "{arguments:?}"
        );
    }
    let error = daemon.fails(&["backends", "drain", "echo", "10.0.1.7:80"]);
    assert_eq!(
        error,
        "evenkeel: backend of service echo \"10.0.1.7:80\" is unknown; known: 10.0.1.1:80, 10.0.1.2:80\n"
    );
}

#[test]
fn changes_that_cannot_mean_anything_are_refused_in_one_sentence() {
    let daemon = Daemon::start("wrong");
    for (arguments, part) in [
        (
            vec!["backends", "add", "echo", "10.0.1.1"],
            "which has no port",
        ),
        (
            vec!["backends", "add", "echo", "[::1]:80"],
            "which is IPv6: not yet",
        ),
        (
            vec!["backends", "add", "echo", "10.0.0.11:80"],
            "is the address of a service",
        ),
        (
            vec!["backends", "add", "echo", "10.0.1.1:80"],
            "is a backend of service echo already",
        ),
        (
            vec!["backends", "weight", "echo", "10.0.1.1:80", "1001"],
            "allowed: 0 to 1000",
        ),
        (
            vec!["backends", "remove", "other", "10.0.2.1:80"],
            "is the last backend",
        ),
    ] {
        let error = daemon.fails(&arguments);
        assert!(
            error.contains(part) && error.lines().count() == 1,
            "{arguments:?}: {error}"
        );
    }
}

#[test]
fn what_the_cli_changes_the_cli_shows() {
    let daemon = Daemon::start("changes");
    assert!(
        daemon
            .ok(&["mode", "echo", "l7"])
            .contains("service echo is in mode l7")
    );
    daemon.ok(&["backends", "weight", "echo", "10.0.1.1:80", "7"]);
    daemon.ok(&["backends", "drain", "echo", "10.0.1.1:80"]);
    daemon.ok(&["backends", "add", "echo", "10.0.1.3:80", "--weight", "2"]);
    daemon.ok(&["backends", "remove", "echo", "10.0.1.2:80", "--now"]);
    let services = json(&daemon.ok(&["services", "--json"]));
    assert_eq!(services["services"][0]["mode"], "l7");
    assert_eq!(services["services"][1]["configured_mode"], "auto");
    assert_eq!(services["services"][1]["mode"], "l4");
    let backends = json(&daemon.ok(&["backends", "list", "echo", "--json"]));
    let shown: Vec<_> = backends["backends"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|b| {
            (
                b["address"].as_str(),
                b["state"].as_str(),
                b["weight"].as_u64(),
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            (Some("10.0.1.1:80"), Some("draining"), Some(7)),
            (Some("10.0.1.3:80"), Some("active"), Some(2)),
        ]
    );
    let table = daemon.ok(&["backends"]);
    assert!(table.starts_with("SERVICE  BACKEND"), "{table}");
    assert!(!table.contains('\x1b'), "no colour in a pipe");
    assert!(
        daemon
            .ok(&["backends", "--color", "always"])
            .contains('\x1b')
    );
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
fn without_a_daemon_one_sentence_says_so() {
    let output = Command::new(env!("CARGO_BIN_EXE_evenkeel"))
        .args(["--socket", "/nonexistent/s", "status"])
        .output()
        .expect("the command runs");
    let error = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        error.starts_with("evenkeel: the daemon is not running"),
        "{error}"
    );
    assert_eq!(error.lines().count(), 1);
}

#[test]
fn wrong_usage_exits_with_two() {
    let daemon = Daemon::start("usage");
    assert_eq!(daemon.cli(&["mode", "echo", "l5"]).status.code(), Some(2));
    assert_eq!(daemon.cli(&["nonsense"]).status.code(), Some(2));
}

#[test]
fn requests_that_are_wrong_are_answered_and_change_nothing() {
    let daemon = Daemon::start("raw");
    let large = "x".repeat(70_000);
    for (method, path, body, status) in [
        ("GET", "/", "", "404"),
        ("GET", "/v1/nothing", "", "404"),
        ("GET", "/v1/%zz", "", "400"),
        ("POST", "/v1/status", "", "405"),
        ("GET", "/v1/status?x=1", "", "400"),
        ("GET", "/v1/flows?top=many", "", "400"),
        ("GET", "/v1/explain?client=1.2.3.4:5", "", "400"),
        ("GET", "/v1/pinning?for=5", "", "400"),
        ("PUT", "/v1/services/echo/mode", "", "400"),
        ("PUT", "/v1/services/echo/mode", "{\"mode\":\"l5\"}", "400"),
        (
            "PUT",
            "/v1/services/echo/mode",
            "{\"mode\":\"l7\",\"x\":1}",
            "400",
        ),
        (
            "PUT",
            "/v1/services/nobody/mode",
            "{\"mode\":\"l7\"}",
            "404",
        ),
        ("PUT", "/v1/services/echo/mode", large.as_str(), "413"),
        ("POST", "/v1/reload", "", "200"),
    ] {
        let answer = request(&daemon, method, path, body);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{method} {path}: {answer}"
        );
        let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
        assert!(json(body).is_object(), "{method} {path}: {body}");
    }
    assert!(raw(&daemon, "nonsense\r\n\r\n").starts_with("HTTP/1.1 400"));
    assert_eq!(
        json(&daemon.ok(&["services", "--json"]))["services"][0]["mode"],
        "l4"
    );
}

#[test]
fn completions_and_manual_page_are_printed() {
    let daemon = Daemon::start("help");
    assert!(daemon.ok(&["completions", "bash"]).contains("pinning"));
    assert!(daemon.ok(&["man"]).contains(".TH evenkeel"));
}

/// What `evenkeel ARGUMENTS` writes to `output` until its second page, as read from the other end; a page has so many tables.
fn two_pages(
    daemon: &Daemon,
    arguments: &[&str],
    tables: usize,
    output: impl Into<Stdio>,
    mut read: impl Read,
) -> String {
    let mut watch = Command::new(env!("CARGO_BIN_EXE_evenkeel"))
        .arg("--socket")
        .arg(daemon.socket())
        .args(arguments)
        .stdout(output)
        .spawn()
        .expect("the command runs");
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    // Every table names the column once.
    while text.matches("BACKEND").count() < 2 * tables {
        let length = read.read(&mut buffer).expect("it is read");
        assert!(length > 0, "{arguments:?} ended after {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    watch.kill().expect("it runs until interrupted");
    watch.wait().expect("it ends");
    text
}

#[test]
fn a_watch_clears_the_page_on_a_terminal_and_only_there_whatever_the_colours() {
    const CLEAR: &str = "\x1b[2J";
    let daemon = Daemon::start("watch");
    // All flows are in one table, and the two services in one each.
    for (command, tables) in [
        (&["flows", "--watch"][..], 1),
        (&["pinning", "--watch", "--for=10ms"], 2),
    ] {
        let arguments = [command, &["--color=always"]].concat();
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let piped = two_pages(&daemon, &arguments, tables, writer, reader);
        assert!(!piped.contains(CLEAR), "{piped:?}");

        let arguments = [command, &["--color=never"]].concat();
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&ours)
            .and_then(|()| unlockpt(&ours))
            .expect("its other end");
        let name = ptsname(&ours, Vec::new()).expect("its name");
        let theirs = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty());
        let theirs = File::from(theirs.expect("the other end"));
        let shown = two_pages(&daemon, &arguments, tables, theirs, File::from(ours));
        assert!(shown.matches(CLEAR).count() >= 2, "{shown:?}");
    }
}
