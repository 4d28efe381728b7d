//! `mode --move-existing`, against a data path and a proxy that only remember.

mod fake;

use std::time::{Duration, Instant};

use evenkeel::api::types::ModeRequest;
use evenkeel::config::Mode;
use fake::{Daemon, Directory, Fake, mode, state, two_services};

/// The same, with the flows that exist.
fn moving(mode: Mode, deadline_ms: Option<u64>) -> ModeRequest {
    ModeRequest {
        mode,
        move_existing: true,
        deadline_ms,
    }
}

#[test]
fn moving_existing_flows_to_l4_drains_the_proxy() {
    let (directory, fake) = (Directory::new("move"), Fake::default());
    let mut state = state(&directory, &fake, &two_services(&directory.0));
    let now = Instant::now();
    state
        .set_mode("echo", mode(Mode::L7), now)
        .expect("switched");
    state
        .set_mode("echo", moving(Mode::L4, None), now)
        .expect("moved");
    assert_eq!(
        fake.told().log.last().map(String::as_str),
        Some("proxy drains 10.0.0.10:80")
    );
}

const MOVED: &str = "kernel moves flows of 10.0.0.10:80";

#[test]
fn moving_existing_flows_to_l7_leaves_them_until_the_deadline() {
    let (directory, fake) = (Directory::new("move-l7"), Fake::default());
    let mut state = state(&directory, &fake, &two_services(&directory.0));
    let now = Instant::now();
    let moves = || {
        let told = fake.told();
        told.log.iter().filter(|entry| *entry == MOVED).count()
    };
    let said = state
        .set_mode("echo", moving(Mode::L7, Some(60_000)), now)
        .expect("switched");
    assert!(
        said.contains("flows that are left in 1m are reset"),
        "{said}"
    );
    state.tick(now + Duration::from_secs(59));
    assert_eq!(moves(), 0, "they were left a minute");
    state.tick(now + Duration::from_secs(61));
    assert_eq!(moves(), 1);
    state.tick(now + Duration::from_secs(120));
    assert_eq!(moves(), 1, "once");
    let said = state
        .set_mode("echo", moving(Mode::L7, Some(0)), now)
        .expect("moved");
    assert_eq!(moves(), 2, "at once");
    assert!(said.contains("3 flows are reset"), "{said}");
}

#[test]
fn flows_stay_where_the_mode_was_changed_again_before_the_deadline() {
    let (directory, fake) = (Directory::new("move-not"), Fake::default());
    let mut state = state(&directory, &fake, &two_services(&directory.0));
    let now = Instant::now();
    for (change, what) in [(Mode::L4, "back"), (Mode::L7, "again, without moving")] {
        state
            .set_mode("echo", moving(Mode::L7, None), now)
            .expect("switched");
        state.set_mode("echo", mode(change), now).expect(what);
        state.tick(now + Duration::from_secs(3600));
        assert!(
            !fake.told().log.iter().any(|entry| entry == MOVED),
            "{what}"
        );
    }
}

#[test]
fn what_cannot_be_moved_is_refused() {
    let (directory, fake) = (Directory::new("move-wrong"), Fake::default());
    let mut state = state(&directory, &fake, &two_services(&directory.0));
    let before = fake.told().log.len();
    for (request, allowed) in [
        (moving(Mode::Auto, None), "l4 and l7"),
        (moving(Mode::L4, Some(1)), "mode l7 with --move-existing"),
        (moving(Mode::L7, Some(3_600_001)), "up to an hour"),
    ] {
        let error = state
            .set_mode("echo", request, Instant::now())
            .expect_err("refused")
            .to_string();
        assert!(error.contains(allowed), "{error}");
    }
    assert_eq!(fake.told().log.len(), before, "nothing was changed");
}

#[test]
fn flows_stay_where_a_reload_brings_another_service_or_mode_before_the_deadline() {
    let (directory, fake) = (Directory::new("move-reload"), Fake::default());
    let text = two_services(&directory.0);
    let mut state = state(&directory, &fake, &text);
    let now = Instant::now();
    state
        .set_mode("echo", moving(Mode::L7, None), now)
        .expect("switched");
    let file = directory.0.join("evenkeel.toml");
    // The same again changes nothing; at another address it is another service.
    for (address, moved) in [("10.0.0.10:80", true), ("10.0.0.12:80", false)] {
        std::fs::write(&file, text.replace("10.0.0.10:80", address)).expect("written");
        state.reload().expect("taken in");
        state.tick(now + Duration::from_secs(31));
        let log = std::mem::take(&mut fake.told().log);
        assert_eq!(log.iter().any(|entry| entry == MOVED), moved, "{address}");
        state
            .set_mode("echo", moving(Mode::L7, None), now)
            .expect("once more");
    }
}

#[test]
fn flows_stay_while_this_host_would_not_reset_them_and_status_says_so() {
    let (directory, fake) = (Directory::new("move-later"), Fake::default());
    let mut state = state(&directory, &fake, &two_services(&directory.0));
    let now = Instant::now();
    state
        .set_mode("echo", moving(Mode::L7, Some(1000)), now)
        .expect("switched");
    fake.told().not_local = vec!["10.0.0.10".parse().expect("ok")];
    state.tick(now + Duration::from_secs(2));
    assert!(!fake.told().log.iter().any(|entry| entry == MOVED));
    assert!(
        state
            .warnings()
            .any(|why| why.contains("flows cannot be moved"))
    );
    fake.told().not_local.clear();
    state.tick(now + Duration::from_secs(4));
    assert!(fake.told().log.iter().any(|entry| entry == MOVED));
    assert!(
        !state
            .warnings()
            .any(|why| why.contains("flows cannot be moved"))
    );
}

fn json(daemon: &Daemon) -> serde_json::Value {
    serde_json::from_str(&daemon.ok(&["services", "--json"])).expect("JSON")
}

#[test]
fn services_says_when_flows_are_moved_until_they_are_not() {
    let daemon = Daemon::start("moves");
    let left = || json(&daemon)["services"][0]["moves_in_seconds"].clone();
    assert!(left().is_null());
    daemon.ok(&["mode", "echo", "l7", "--move-existing", "--deadline", "1h"]);
    assert!(
        left().as_f64().is_some_and(|left| left <= 3600.0),
        "{}",
        left()
    );
    let table = daemon.ok(&["services"]);
    assert!(table.contains("l7 (flows move in 3"), "{table}");
    daemon.ok(&["mode", "echo", "l4"]);
    assert!(left().is_null(), "called off");
}
