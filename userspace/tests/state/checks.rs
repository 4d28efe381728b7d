//! What follows from checks of backends.

use evenkeel::daemon::State;
use evenkeel::health::{Due, Unreachable};

use super::*;

/// Two services; the first one's backends are checked.
fn checked(directory: &Directory) -> String {
    two_services(&directory.0).replace(
        "address = \"10.0.0.10:80\"\n",
        "address = \"10.0.0.10:80\"\nhealth = { interval = \"1s\", fall = 2, rise = 2 }\n",
    )
}

fn refused() -> Result<(), Unreachable> {
    Err(Unreachable::Refused(std::io::ErrorKind::ConnectionRefused))
}

/// The checks of both backends, begun.
fn begun(state: &mut State, now: Instant) -> [Due; 2] {
    let (due, _) = state.checks_due(now);
    due.try_into().expect("two backends are checked")
}

#[test]
fn only_backends_of_services_that_ask_for_it_are_checked() {
    let (directory, fake) = (Directory::new("unchecked"), Fake::default());
    let now = Instant::now();
    let mut unchecked = state(&directory, &fake, &two_services(&directory.0));
    assert_eq!(unchecked.checks_due(now).0, []);
    drop(unchecked);
    let mut state = state(&directory, &fake, &checked(&directory));
    let keys = begun(&mut state, now).map(|due| due.key);
    let expected = ["10.0.1.1:80", "10.0.1.2:80"];
    assert_eq!(
        keys,
        expected.map(|backend| ("echo".to_owned(), backend.parse().expect("an address")))
    );
    let added = BackendRequest {
        address: "10.0.1.9:80".to_owned(),
        weight: None,
    };
    state.add_backend("echo", &added).expect("added");
    assert_eq!(state.checks_due(now).0.len(), 1, "the one that was added");
}

#[test]
fn a_backend_that_is_down_is_taken_out_with_the_next_tick_and_put_back_in() {
    let (directory, fake) = (Directory::new("checks"), Fake::default());
    let mut state = state(&directory, &fake, &checked(&directory));
    let now = Instant::now();
    let [first, second] = begun(&mut state, now);
    fake.told().log.clear();
    let logged = |expected: &[&str]| assert_eq!(std::mem::take(&mut fake.told().log), expected);
    state.checked(&first, refused(), now);
    state.checked(&second, Ok(()), now);
    logged(&[]);
    state.tick(now);
    logged(&[
        "proxy echo=l4[0,1] other=l4[1]",
        "kernel echo=l4[0,1] other=l4[1]",
    ]);
    state.tick(now);
    logged(&[]);
    // It takes two to rise.
    for (round, expected) in [
        (2, &[][..]),
        (
            4,
            &[
                "proxy echo=l4[1,1] other=l4[1]",
                "kernel echo=l4[1,1] other=l4[1]",
            ],
        ),
    ] {
        let later = now + Duration::from_secs(round);
        for due in begun(&mut state, later) {
            state.checked(&due, Ok(()), later);
        }
        state.tick(later);
        logged(expected);
    }
}

#[test]
fn what_the_kernel_refuses_is_tried_again_with_the_next_tick() {
    let (directory, fake) = (Directory::new("checks-refused"), Fake::default());
    let mut state = state(&directory, &fake, &checked(&directory));
    let now = Instant::now();
    let [first, _] = begun(&mut state, now);
    state.checked(&first, refused(), now);
    fake.told().refuse = Some("no".to_owned());
    state.tick(now);
    let warned = |state: &State| state.warnings().any(|warning| warning.contains("down"));
    assert!(warned(&state));
    state.tick(now);
    assert_eq!(
        fake.told().log.last().map(String::as_str),
        Some("kernel echo=l4[0,1] other=l4[1]")
    );
    assert!(!warned(&state));
}

#[test]
fn where_all_backends_of_a_service_are_down_all_are_used_and_a_warning_says_so() {
    let (directory, fake) = (Directory::new("checks-all"), Fake::default());
    let mut state = state(&directory, &fake, &checked(&directory));
    let now = Instant::now();
    for due in begun(&mut state, now) {
        state.checked(&due, refused(), now);
        state.tick(now);
    }
    let last = fake.told().log.last().cloned();
    assert_eq!(last.as_deref(), Some("kernel echo=l4[1,1] other=l4[1]"));
    let later = now + Duration::from_secs(2);
    state.tick(later);
    let warnings: Vec<&str> = state.warnings().collect();
    let expected = "all backends of a service fail their checks: echo; so all are used";
    assert!(warnings.contains(&expected), "{warnings:?}");
}

#[test]
fn a_file_without_checks_brings_back_what_was_down() {
    let (directory, fake) = (Directory::new("checks-off"), Fake::default());
    let mut state = state(&directory, &fake, &checked(&directory));
    let now = Instant::now();
    let [first, _] = begun(&mut state, now);
    state.checked(&first, refused(), now);
    state.tick(now);
    let file = directory.0.join("evenkeel.toml");
    std::fs::write(file, two_services(&directory.0)).expect("written");
    state.reload().expect("reloaded");
    assert_eq!(state.checks_due(now).0, []);
    state.tick(now);
    let last = fake.told().log.last().cloned();
    assert_eq!(last.as_deref(), Some("kernel echo=l4[1,1] other=l4[1]"));
}

#[test]
fn only_as_many_checks_are_under_way_as_the_file_says() {
    let (directory, fake) = (Directory::new("checks-limit"), Fake::default());
    let limited = format!("{}[limits]\nchecks = 1\n", checked(&directory));
    let mut state = state(&directory, &fake, &limited);
    let now = Instant::now();
    let (first, pause) = state.checks_due(now);
    assert_eq!(first.len(), 1);
    assert!(
        pause < Duration::from_millis(100),
        "the other waits: {pause:?}"
    );
    assert_eq!(state.checks_due(now).0, []);
    state.checked(&first[0], Ok(()), now);
    assert_eq!(state.checks_due(now).0.len(), 1, "the other one");
}
