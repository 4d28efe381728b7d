//! Wrong configurations, each with the exact errors that the real binary prints, and right ones.

use std::path::Path;
use std::process::Command;

use evenkeel::config::{Config, HashChoice, Mode};
use evenkeel::datapath::capabilities;
use proptest::prelude::*;

/// Does `work` without the privileges to load programs: trying them takes seconds, and says nothing of a configuration.
fn unprivileged(work: impl FnOnce() + Send + 'static) {
    let work = move || {
        capabilities::drop_after_load().expect("anybody may give up privileges");
        work();
    };
    if let Err(panic) = std::thread::spawn(work).join() {
        std::panic::resume_unwind(panic);
    }
}

/// Every `bad_configs/NAME.toml` gives what `bad_configs/NAME.expected` says, one line a mistake; a `*` at the end of
/// a line stands for what differs between hosts.
#[test]
fn every_mistake_gives_one_error_with_file_line_key_found_and_allowed() {
    unprivileged(check_every_mistake);
}

fn check_every_mistake() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad_configs");
    let mut checked = 0;
    let mut wrong = Vec::new();
    for entry in std::fs::read_dir(&directory).expect("the fixtures") {
        let path = entry.expect("an entry").path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        checked += 1;
        let expected = std::fs::read_to_string(path.with_extension("expected")).expect("beside it");
        let name = path.file_name().expect("a name");
        let output = Command::new(env!("CARGO_BIN_EXE_evenkeel"))
            .current_dir(&directory)
            .args(["check", "--config"])
            .arg(name)
            .output()
            .expect("the command runs");
        let printed = String::from_utf8(output.stderr).expect("text");
        // The last line says how many there were.
        let errors: Vec<&str> = printed.lines().rev().skip(1).collect();
        let expected: Vec<&str> = expected.lines().rev().collect();
        let same = errors.len() == expected.len()
            && errors
                .iter()
                .zip(&expected)
                .all(|(error, expected)| matches(error, expected));
        if !same || output.status.code() != Some(1) {
            wrong.push(format!("{}: printed\n{printed}", name.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(checked >= 20, "{checked} fixtures");
}

#[test]
fn mistakes_do_not_hide_what_is_found_of_the_host() {
    unprivileged(check_both);
}

fn check_both() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad_configs");
    let check = |arguments: &[&str]| {
        Command::new(env!("CARGO_BIN_EXE_evenkeel"))
            .current_dir(&directory)
            .args(["check", "--config", "empty.toml"])
            .args(arguments)
            .output()
            .expect("the command runs")
    };
    let output = check(&["--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let mistake = &report["mistakes"][0];
    assert_eq!(mistake["file"], "empty.toml");
    assert_eq!(mistake["line"], 1);
    for key in ["key", "found", "allowed"] {
        assert!(mistake[key].as_str().is_some_and(|text| !text.is_empty()));
    }
    assert!(report["findings"].as_array().is_some_and(|it| it.len() > 5));
    let said = String::from_utf8(output.stderr).expect("text");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("empty.toml has 2 mistakes"), "{said}");
    let printed = String::from_utf8(check(&[]).stdout).expect("text");
    assert!(printed.contains("ip_forward"), "{printed}");
}

fn matches(error: &str, expected: &str) -> bool {
    match expected.strip_suffix('*') {
        Some(start) => error.starts_with(start),
        None => error == expected,
    }
}

const FULL: &str = r#"
[daemon]
socket = "/run/evenkeel/control.sock"
state_dir = "/run/evenkeel"
pin_dir = "/sys/fs/bpf/evenkeel"
[[interface]]
name = "eth0"
hook = "xdp"
xdp_mode = "generic"
[flows]
max = 4096
closed_hold = "500ms"
count_streams = false
[nat]
ports = "20000-30000"
addresses = ["10.0.0.2/32", "10.0.0.16/30"]
[limits]
backends = 16
services = 2
upstreams = 2048
[auto]
hot_factor = 2
min_streams = 10
interval = "10s"
[l7]
workers = 2
[[service]]
name = "echo"
address = "10.0.0.10:50051"
protocol = "tcp"
mode = "auto"
policy = "p2c"
forwarding = "dnat"
hash = "source-ip"
backend = [{ address = "10.0.1.1:50051", weight = 0 }, { address = "10.0.1.2:50051" }]
"#;

#[test]
fn every_key_is_read() {
    let config = Config::parse(FULL, "full.toml").expect("right");
    assert_eq!(config.nat.addresses.len(), 5);
    assert_eq!(config.flows.closed_hold.as_millis(), 500);
    assert_eq!(config.l7.workers, 2);
    assert_eq!(config.limits.upstreams, 2048);
    assert_eq!(config.services[0].mode, Mode::Auto);
    assert_eq!(config.services[0].hash, HashChoice::SourceIp);
    let weights: Vec<u32> = config.services[0]
        .backends
        .iter()
        .map(|b| b.weight)
        .collect();
    assert_eq!(weights, [0, 1]);
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC*") {
        let _ = Config::parse(&text, "any.toml");
    }

    #[test]
    fn no_damage_to_a_right_file_panics(
        at in 0_usize..FULL.len(), length in 0_usize..20, put in "[\\[\\]\"=.,{}a-z0-9\n-]{0,8}"
    ) {
        let mut bytes = FULL.as_bytes().to_vec();
        let end = (at + length).min(bytes.len());
        bytes.splice(at..end, put.bytes());
        let text = String::from_utf8_lossy(&bytes);
        if let Err(errors) = Config::parse(&text, "any.toml") {
            prop_assert!(!errors.errors().is_empty());
            for error in errors.errors() {
                prop_assert!(error.line >= 1 && error.line <= text.lines().count() + 1, "{error}");
            }
        }
    }
}
