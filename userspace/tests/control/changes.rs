//! Commands that change something: what they may, and how a mistake is told.

use std::process::Command;

use crate::fake::Daemon;
use crate::json;

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
