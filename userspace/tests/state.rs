//! The daemon's state against a data path and a proxy that only remember.

#[path = "state/checks.rs"]
mod checks;
mod fake;

use std::time::{Duration, Instant};

use evenkeel::api::types::{BackendPatch, BackendRequest, Counters};
use evenkeel::config::Mode;
use evenkeel::daemon::ChangeError;
use fake::{Directory, Fake, mode, state, two_services};

/// How often `auto` decides where the file says nothing.
const AUTO_INTERVAL: Duration = Duration::from_secs(5);

/// In every round another thousand streams of one flow of each service, all to one backend.
fn pinned(fake: &Fake, services: &[(&str, &str)], round: u32) {
    for (service, backend) in services {
        let (service, backend) = (service.parse().expect("ok"), backend.parse().expect("ok"));
        let counters = Counters {
            flows_opened: 1,
            streams: u64::from(round) * 1000,
            ..Counters::default()
        };
        let mut told = fake.told();
        told.snapshot.services.insert(service, counters);
        told.snapshot.backends.insert((service, backend), counters);
    }
}

#[test]
fn the_proxy_knows_a_service_before_the_kernel_hands_it_connections() {
    let (directory, fake) = (Directory::new("order"), Fake::default());
    let mut state = state(&directory, &fake, &two_services(&directory.0));
    fake.told().log.clear();
    state
        .set_mode("echo", mode(Mode::L7), Instant::now())
        .expect("switched");
    assert_eq!(
        fake.told().log,
        [
            "proxy echo=l7[1,1] other=l4[1]",
            "kernel echo=l7[1,1] other=l4[1]"
        ]
    );
}

#[test]
fn the_kernel_forgets_a_service_before_the_proxy_does() {
    let (directory, fake) = (Directory::new("forget"), Fake::default());
    let text = two_services(&directory.0);
    let mut state = state(&directory, &fake, &text);
    fake.told().log.clear();
    let without = text
        .split("[[service]]\nname = \"other\"")
        .next()
        .expect("the first part");
    std::fs::write(directory.0.join("evenkeel.toml"), without).expect("written");
    state.reload().expect("reloaded");
    assert_eq!(
        fake.told().log,
        [
            "proxy echo=l4[1,1] other=l4[1]",
            "kernel echo=l4[1,1]",
            "proxy echo=l4[1,1]"
        ]
    );
}

#[test]
fn a_failed_reload_changes_nothing() {
    let (directory, fake) = (Directory::new("reload"), Fake::default());
    let text = two_services(&directory.0);
    let mut state = state(&directory, &fake, &text);
    let before = fake.told().services.clone();
    let file = directory.0.join("evenkeel.toml");

    std::fs::write(&file, text.replace("10.0.1.2:80", "10.0.1.2:0")).expect("written");
    let error = state.reload().expect_err("port 0").to_string();
    assert!(
        error.contains(
            "evenkeel.toml:13: service.backend.address: found \"10.0.1.2:0\", which has port 0"
        ),
        "{error}"
    );

    let larger = format!("{text}[flows]\nmax = 4096\n");
    std::fs::write(&file, larger).expect("written");
    let error = state.reload().expect_err("needs a restart").to_string();
    assert!(
        error.contains("[flows] changed, which takes effect by a restart only"),
        "{error}"
    );

    std::fs::write(&file, text.replace("10.0.1.2:80", "10.0.1.3:80")).expect("written");
    fake.told().refuse = Some("no".to_owned());
    assert!(matches!(state.reload(), Err(ChangeError::Plane(_))));
    assert_eq!(fake.told().services, before);

    state
        .set_mode("echo", mode(Mode::L7), Instant::now())
        .expect("the old configuration still works");
    assert_eq!(fake.told().services[0].backends, before[0].backends);
}

#[test]
fn changes_by_the_cli_survive_a_restart_and_a_broken_file_does_not_stop_it() {
    let (directory, fake) = (Directory::new("restart"), Fake::default());
    let text = two_services(&directory.0);
    let mut first = state(&directory, &fake, &text);
    first
        .set_mode("echo", mode(Mode::L7), Instant::now())
        .expect("switched");
    let patch = BackendPatch {
        weight: Some(5),
        draining: Some(true),
    };
    first
        .patch_backend("echo", "10.0.1.1:80", patch)
        .expect("patched");
    let added = BackendRequest {
        address: "10.0.1.9:80".to_owned(),
        weight: Some(3),
    };
    first.add_backend("10.0.0.10:80", &added).expect("added");
    let before = fake.told().services.clone();
    drop(first);
    drop(state(&directory, &fake, &text));
    assert_eq!(fake.told().services, before);

    std::fs::write(directory.0.join("state.json"), "{").expect("written");
    drop(state(&directory, &fake, &text));
    assert_eq!(fake.told().services[0].mode, Mode::L4);
}

#[test]
fn a_change_that_the_kernel_refuses_leaves_everything_as_it_was() {
    let (directory, fake) = (Directory::new("refused"), Fake::default());
    let text = two_services(&directory.0);
    let mut state = state(&directory, &fake, &text);
    let before = fake.told().services.clone();
    fake.told().refuse = Some("no".to_owned());
    assert!(
        state
            .set_mode("echo", mode(Mode::L7), Instant::now())
            .is_err()
    );
    assert_eq!(fake.told().services, before);
    assert_eq!(
        fake.told().log.last().map(String::as_str),
        Some("kernel echo=l4[1,1] other=l4[1]")
    );
    drop(state);
    drop(fake::state(&directory, &fake, &text));
    assert_eq!(fake.told().services, before, "nothing was stored");
}

#[test]
fn a_removed_backend_drains_first_and_leaves_when_nothing_is_open() {
    let (directory, fake) = (Directory::new("remove"), Fake::default());
    let mut state = state(&directory, &fake, &two_services(&directory.0));
    let now = Instant::now();
    let addresses = (
        "10.0.0.10:80".parse().expect("ok"),
        "10.0.1.1:80".parse().expect("ok"),
    );
    let open = Counters {
        flows_opened: 2,
        flows_closed: 1,
        ..Counters::default()
    };
    fake.told().snapshot.backends.insert(addresses, open);
    state
        .remove_backend("echo", "10.0.1.1:80", false, now)
        .expect("removed");
    state.tick(now + Duration::from_secs(2));
    let weights = |fake: &Fake| -> Vec<u32> {
        fake.told().services[0]
            .backends
            .iter()
            .map(evenkeel::daemon::BackendView::effective_weight)
            .collect()
    };
    assert_eq!(weights(&fake), [0, 1]);
    let last = state.remove_backend("echo", "10.0.1.2:80", true, now);
    assert!(matches!(last, Err(ChangeError::NotNow(_))), "one must stay");

    fake.told().snapshot.backends.insert(
        addresses,
        Counters {
            flows_closed: 2,
            ..open
        },
    );
    state.tick(now + Duration::from_secs(4));
    assert_eq!(weights(&fake), [1]);

    let back = BackendRequest {
        address: "10.0.1.1:80".to_owned(),
        weight: None,
    };
    state.add_backend("echo", &back).expect("taken back");
    assert_eq!(weights(&fake), [1, 1]);
}

#[test]
fn a_backend_that_never_empties_leaves_after_a_minute() {
    let (directory, fake) = (Directory::new("minute"), Fake::default());
    let mut state = state(&directory, &fake, &two_services(&directory.0));
    let now = Instant::now();
    let addresses = (
        "10.0.0.10:80".parse().expect("ok"),
        "10.0.1.1:80".parse().expect("ok"),
    );
    let open = Counters {
        flows_opened: 1,
        ..Counters::default()
    };
    fake.told().snapshot.backends.insert(addresses, open);
    state
        .remove_backend("echo", "10.0.1.1:80", false, now)
        .expect("removed");
    state.tick(now + Duration::from_secs(59));
    assert_eq!(fake.told().services[0].backends.len(), 2);
    state.tick(now + Duration::from_secs(61));
    assert_eq!(fake.told().services[0].backends.len(), 1);
}

#[test]
fn auto_moves_to_l7_while_streams_are_pinned_and_says_nothing_of_fixed_services() {
    let (directory, fake) = (Directory::new("auto"), Fake::default());
    let text = two_services(&directory.0).replace(
        "address = \"10.0.0.10:80\"",
        "address = \"10.0.0.10:80\"\nmode = \"auto\"",
    );
    let mut state = state(&directory, &fake, &text);
    let mut modes = Vec::new();
    let start = Instant::now();
    for round in 0..4 {
        pinned(&fake, &[("10.0.0.10:80", "10.0.1.1:80")], round);
        state.tick(start + AUTO_INTERVAL * round);
        modes.push(fake.told().services[0].mode);
    }
    assert_eq!(modes, [Mode::L4, Mode::L4, Mode::L7, Mode::L7]);
    assert_eq!(fake.told().services[0].configured_mode, Mode::Auto);
    assert_eq!(fake.told().services[1].mode, Mode::L4);
}

#[test]
fn auto_is_refused_where_streams_are_not_counted() {
    let (directory, fake) = (Directory::new("uncounted"), Fake::default());
    let text = two_services(&directory.0).replace("mode = \"auto\"", "mode = \"l4\"")
        + "[flows]\ncount_streams = false\n";
    let mut state = state(&directory, &fake, &text);
    let error = state
        .set_mode("echo", mode(Mode::Auto), Instant::now())
        .expect_err("refused")
        .to_string();
    assert!(
        error.contains("found `flows.count_streams = false`") && error.contains("allowed: l4, l7"),
        "{error}"
    );
    assert_eq!(fake.told().services[0].configured_mode, Mode::L4);
}

#[test]
fn a_file_that_changes_to_auto_moves_nothing_by_itself() {
    let (directory, fake) = (Directory::new("to-auto"), Fake::default());
    let auto = two_services(&directory.0);
    let mut state = state(&directory, &fake, &auto.replace("\"auto\"", "\"l7\""));
    std::fs::write(directory.0.join("evenkeel.toml"), &auto).expect("written");
    state.reload().expect("reloaded");
    let other = fake.told().services[1].clone();
    assert_eq!((other.configured_mode, other.mode), (Mode::Auto, Mode::L7));
}

#[test]
fn a_backend_that_was_added_and_removed_at_once_is_forgotten() {
    let (directory, fake) = (Directory::new("forgotten"), Fake::default());
    let mut state = state(&directory, &fake, &two_services(&directory.0));
    let added = BackendRequest {
        address: "10.0.1.9:80".to_owned(),
        weight: None,
    };
    state.add_backend("echo", &added).expect("added");
    state
        .remove_backend("echo", "10.0.1.9:80", true, Instant::now())
        .expect("removed");
    let stored = std::fs::read_to_string(directory.0.join("state.json")).expect("stored");
    assert!(!stored.contains("10.0.1.9"), "{stored}");
}

#[test]
fn a_state_directory_that_cannot_be_written_to_is_said_at_the_start() {
    let (directory, fake) = (Directory::new("unwritable"), Fake::default());
    let taken = directory.0.join("taken");
    std::fs::write(&taken, "").expect("written");
    let text = two_services(&directory.0).replace(
        &format!("state_dir = \"{}\"", directory.0.display()),
        &format!("state_dir = \"{}\"", taken.display()),
    );
    let state = state(&directory, &fake, &text);
    let mut warnings = state.warnings();
    assert!(warnings.any(|why| why.contains("cannot be written to") && why.contains("let user")));
}

#[test]
fn a_service_that_auto_cannot_switch_keeps_no_other_where_it_is() {
    let (directory, fake) = (Directory::new("starved"), Fake::default());
    // Hot factor 2 with both backends, of which one gets everything.
    let text = two_services(&directory.0).replace(
        "address = \"10.0.0.10:80\"",
        "address = \"10.0.0.10:80\"\nmode = \"auto\"",
    ) + "[[service.backend]]\naddress = \"10.0.2.2:80\"\n";
    let mut state = state(&directory, &fake, &text);
    fake.told().not_local = vec!["10.0.0.10".parse().expect("ok")];
    let start = Instant::now();
    let services = [
        ("10.0.0.10:80", "10.0.1.1:80"),
        ("10.0.0.11:80", "10.0.2.1:80"),
    ];
    let mut round = 0;
    while fake.told().services[1].mode == Mode::L4 {
        pinned(&fake, &services, round);
        state.tick(start + AUTO_INTERVAL * round);
        round += 1;
        assert!(round < 4, "as soon as alone");
    }
    assert_eq!(fake.told().services[0].mode, Mode::L4);
    let said = |state: &evenkeel::daemon::State| {
        let mut warnings = state.warnings();
        warnings.any(|why| why.contains("mode auto") && why.contains("service echo"))
    };
    assert!(said(&state));
    pinned(&fake, &services, round);
    state.tick(start + AUTO_INTERVAL * round);
    assert!(said(&state), "it is said as long as it is so");
    fake.told().not_local.clear();
    pinned(&fake, &services, round + 1);
    state.tick(start + AUTO_INTERVAL * (round + 1));
    assert_eq!(fake.told().services[0].mode, Mode::L7);
    assert!(!said(&state));
}

#[test]
fn l7_is_refused_where_connections_would_not_reach_the_proxy() {
    let (directory, fake) = (Directory::new("local"), Fake::default());
    let mut state = state(&directory, &fake, &two_services(&directory.0));
    fake.told().not_local = vec!["10.0.0.10".parse().expect("ok")];
    let error = state
        .set_mode("echo", mode(Mode::L7), Instant::now())
        .expect_err("refused")
        .to_string();
    assert!(
        error.contains("run `ip address add 10.0.0.10/32 dev lo`"),
        "{error}"
    );
    assert_eq!(fake.told().services[0].mode, Mode::L4);
}

#[test]
fn figures_that_cannot_be_told_apart_are_said_to_be_incomplete() {
    let (directory, fake) = (Directory::new("shared"), Fake::default());
    let text = two_services(&directory.0).replace("10.0.2.1:80", "10.0.1.1:80");
    let mut state = state(&directory, &fake, &text);
    let now = Instant::now();
    state.tick(now);
    assert_eq!(
        state.warnings().count(),
        0,
        "at l4 every flow has its service"
    );
    state
        .set_mode("echo", mode(Mode::L7), Instant::now())
        .expect("switched");
    state.tick(now + Duration::from_secs(60));
    let warnings: Vec<&str> = state.warnings().collect();
    assert_eq!(
        warnings,
        [
            "figures are incomplete: backend 10.0.1.1:80 serves echo and other, and streams that the proxy sends it are counted for one of them only"
        ]
    );
}

#[test]
fn a_clean_stop_takes_the_data_path_off_unless_it_is_kept() {
    for (keep, last) in [(false, "kernel detached"), (true, "proxy stopped")] {
        let (directory, fake) = (Directory::new("stop"), Fake::default());
        let state = state(&directory, &fake, &two_services(&directory.0));
        state.stop(keep, Duration::ZERO).expect("stopped");
        assert_eq!(fake.told().log.last().map(String::as_str), Some(last));
    }
}
