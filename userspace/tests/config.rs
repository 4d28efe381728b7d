//! Wrong configurations, each with the exact errors that the real binary prints, and right ones.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use evenkeel::config::{
    Auto, Backend, Config, Daemon, Flows, Forwarding, HashChoice, HookChoice, Interface, Lines,
    Mode, Nat, Service, Sizes, XdpMode,
};
use evenkeel::datapath::capabilities;
use evenkeel::health::Settings;
use evenkeel::l7::{Limits, Policy};
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

/// Every key but those of `[l7]`, each with another value than its default.
const FULL: &str = r#"
[daemon]
socket = "/run/other/control.sock"
socket_group = "adm"
state_dir = "/run/other"
pin_dir = "/sys/fs/bpf/other"
[[interface]]
name = "eth0"
hook = "xdp"
xdp_mode = "generic"
[flows]
max = 4096
closed_hold = "500ms"
idle_timeout = "5m"
transitory_timeout = "30s"
count_streams = false
[nat]
ports = "20000-30000"
addresses = ["10.0.0.2/32", "10.0.0.16/30"]
port_hold = "5s"
[limits]
backends = 16
services = 2
upstreams = 2048
checks = 16
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
mode = "l7"
policy = "p2c"
forwarding = "dnat"
hash = "source-ip"
health = { interval = "500ms", timeout = "400ms", fall = 2, rise = 1 }
backend = [{ address = "10.0.1.1:50051", weight = 0 }, { address = "10.0.1.2:50051" }]
"#;

/// What [`FULL`] says, with other limits of the proxy.
fn full(l7: Limits) -> Config {
    let backend = |address: &str, weight| Backend {
        address: address.parse().expect("an address"),
        weight,
    };
    let nat_addresses = [
        "10.0.0.2",
        "10.0.0.16",
        "10.0.0.17",
        "10.0.0.18",
        "10.0.0.19",
    ];
    Config {
        file: "full.toml".to_owned(),
        daemon: Daemon {
            socket: "/run/other/control.sock".into(),
            socket_group: Some("adm".to_owned()),
            state_dir: "/run/other".into(),
            pin_dir: "/sys/fs/bpf/other".into(),
        },
        interfaces: vec![Interface {
            name: "eth0".to_owned(),
            hook: HookChoice::Xdp,
            xdp_mode: XdpMode::Generic,
        }],
        flows: Flows {
            max: 4096,
            closed_hold: Duration::from_millis(500),
            idle_timeout: Duration::from_mins(5),
            transitory_timeout: Duration::from_secs(30),
            count_streams: false,
        },
        nat: Nat {
            ports: 20_000..=30_000,
            addresses: nat_addresses
                .map(|it| it.parse().expect("an address"))
                .to_vec(),
            port_hold: Duration::from_secs(5),
        },
        limits: Sizes {
            backends: 16,
            services: 2,
            upstreams: 2048,
            checks: 16,
        },
        auto: Auto {
            hot_factor: 2.0,
            min_streams: 10,
            interval: Duration::from_secs(10),
        },
        l7,
        services: vec![Service {
            name: "echo".to_owned(),
            address: "10.0.0.10:50051".parse().expect("an address"),
            mode: Mode::L7,
            policy: Policy::P2c,
            forwarding: Forwarding::Dnat,
            hash: HashChoice::SourceIp,
            health: Some(Settings {
                interval: Duration::from_millis(500),
                timeout: Duration::from_millis(400),
                fall: 2,
                rise: 1,
            }),
            backends: vec![backend("10.0.1.1:50051", 0), backend("10.0.1.2:50051", 1)],
        }],
        lines: Lines {
            interfaces: vec![8],
            nat_ports: Some(18),
            socket_group: Some(4),
        },
    }
}

/// All fields of a table, by name: a new one does not compile until it is here, and in [`FULL`].
macro_rules! none_is_default {
    ($table:ident { $($field:ident),* }, $value:expr) => {
        let (default, $table { $($field),* }) = ($table::default(), $value);
        $(assert_ne!(*$field, default.$field, stringify!($table.$field));)*
    };
}

#[test]
fn every_key_is_read() {
    // Of the proxy there are too many to write them down: each is one more than its default.
    let mut limits = serde_json::to_value(Limits::default()).expect("a table");
    let mut l7 = String::new();
    for (key, value) in limits.as_object_mut().expect("a table") {
        *value = (value.as_u64().expect("a number") + 1).into();
        l7.push_str(&format!("{key} = {value}\n"));
    }
    let expected = full(serde_json::from_value(limits).expect("limits"));
    none_is_default!(
        Daemon {
            socket,
            socket_group,
            state_dir,
            pin_dir
        },
        &expected.daemon
    );
    none_is_default!(
        Flows {
            max,
            closed_hold,
            idle_timeout,
            transitory_timeout,
            count_streams
        },
        &expected.flows
    );
    none_is_default!(
        Nat {
            ports,
            addresses,
            port_hold
        },
        &expected.nat
    );
    none_is_default!(
        Sizes {
            backends,
            services,
            upstreams,
            checks
        },
        &expected.limits
    );
    none_is_default!(
        Auto {
            hot_factor,
            min_streams,
            interval
        },
        &expected.auto
    );
    let settings = expected.services[0].health.as_ref().expect("in FULL");
    none_is_default!(
        Settings {
            interval,
            timeout,
            fall,
            rise
        },
        settings
    );
    let text = FULL.replace("workers = 2\n", &l7);
    assert_eq!(Config::parse(&text, "full.toml").expect("right"), expected);
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

#[test]
fn the_page_on_configuration_has_every_key_with_its_default() {
    let page = include_str!("../../docs/configuration.md");
    let full: toml::Table = FULL.parse().expect("TOML");
    let keys = full.iter().flat_map(|(_, section)| match section {
        toml::Value::Array(sections) => sections[0].as_table().expect("a table").keys(),
        section => section.as_table().expect("a table").keys(),
    });
    let unknown: Vec<&String> = keys
        .filter(|key| *key != "workers" && !page.contains(&format!("\n| `{key}` |")))
        .collect();
    assert!(unknown.is_empty(), "not on the page: {unknown:?}");
    let limits = serde_json::to_value(Limits::default()).expect("numbers");
    for (key, default) in limits.as_object().expect("fields") {
        let row = format!("\n| `{key}` | `{default}` |");
        assert!(page.contains(&row), "not on the page: {row}");
    }
    let (flows, health) = (Flows::default(), Settings::default());
    for (row, is) in [
        ("| `interval` | `\"2s\"` |", health.interval.as_secs() == 2),
        ("| `timeout` | `\"1s\"` |", health.timeout.as_secs() == 1),
        ("| `fall` | `3` |", health.fall == 3),
        ("| `rise` | `2` |", health.rise == 2),
        ("| `max` | `1048576` |", flows.max == 1_048_576),
        (
            "| `closed_hold` | `\"1s\"` |",
            flows.closed_hold.as_secs() == 1,
        ),
        (
            "| `idle_timeout` | `\"124m\"` |",
            flows.idle_timeout == Duration::from_mins(124),
        ),
        (
            "| `transitory_timeout` | `\"4m\"` |",
            flows.transitory_timeout == Duration::from_mins(4),
        ),
    ] {
        assert!(page.contains(row) && is, "{row}");
    }
}
