//! What follows from the file, the command line and checks.

use super::{BackendOverride, BackendView, Leaving, Overrides, desired};
use crate::config::{Config, Mode};

fn config(services: &str) -> Config {
    let text = format!("[[interface]]\nname = \"lo\"\n{services}");
    Config::parse(&text, "test.toml").expect("a right configuration")
}

fn one(mode: &str, weights: &[u32]) -> Config {
    let mut text =
        format!("[[service]]\nname = \"a\"\naddress = \"10.0.0.1:80\"\nmode = \"{mode}\"\n");
    for (n, weight) in weights.iter().enumerate() {
        text += &format!("[[service.backend]]\naddress = \"10.0.1.{n}:80\"\nweight = {weight}\n");
    }
    config(&text)
}

#[test]
fn the_command_line_wins_over_the_file() {
    let config = one("l4", &[1, 1, 1]);
    let mut overrides = Overrides::default();
    overrides.service("a").mode = Some(Mode::L7);
    overrides
        .backend("a", config.services[0].backends[0].address)
        .weight = Some(7);
    overrides
        .backend("a", config.services[0].backends[1].address)
        .draining = true;
    overrides
        .backend("a", config.services[0].backends[2].address)
        .removed = true;
    let added = "10.0.9.9:80".parse().expect("an address");
    *overrides.backend("a", added) = BackendOverride {
        added: true,
        ..Default::default()
    };
    let view = &desired(&config, &overrides, &Leaving::new())[0];
    assert_eq!((view.mode, view.configured_mode), (Mode::L7, Mode::L7));
    let weights: Vec<_> = view
        .backends
        .iter()
        .map(|b| (b.weight, b.effective_weight()))
        .collect();
    assert_eq!(weights, [(7, 7), (1, 0), (1, 1)]);
    assert_eq!(view.backends[2].address, added);
}

#[test]
fn a_removed_backend_drains_while_it_leaves() {
    let config = one("l4", &[1, 1]);
    let address = config.services[0].backends[0].address;
    let mut overrides = Overrides::default();
    overrides.backend("a", address).removed = true;
    let leaving = Leaving::from([(("a".to_owned(), address), std::time::Instant::now())]);
    assert!(desired(&config, &overrides, &leaving)[0].backends[0].draining);
    assert_eq!(
        desired(&config, &overrides, &Leaving::new())[0]
            .backends
            .len(),
        1
    );
}

#[test]
fn a_backend_that_is_down_gets_nothing_unless_all_are() {
    let config = one("l4", &[1, 2, 0]);
    let mut view = desired(&config, &Overrides::default(), &Leaving::new()).remove(0);
    let addresses: Vec<_> = view.backends.iter().map(|b| b.address).collect();
    let mut weights = |down: &[usize]| {
        let is_down = |address| down.iter().any(|index| addresses[*index] == address);
        view.mark_down(is_down);
        let weights = view.backends.iter().map(BackendView::effective_weight);
        weights.collect::<Vec<_>>()
    };
    assert_eq!(weights(&[0]), [0, 2, 0]);
    assert_eq!(weights(&[1, 2]), [1, 0, 0]);
    // The third gets nothing anyway: it does not count as one that is up.
    assert_eq!(weights(&[0, 1]), [1, 2, 0]);
    assert_eq!(weights(&[]), [1, 2, 0]);
}

#[test]
fn auto_is_l4_until_decided() {
    let config = one("auto", &[1]);
    let mut overrides = Overrides::default();
    assert_eq!(
        desired(&config, &overrides, &Leaving::new())[0].mode,
        Mode::L4
    );
    overrides.service("a").decided = Some(Mode::L7);
    assert_eq!(
        desired(&config, &overrides, &Leaving::new())[0].mode,
        Mode::L7
    );
}

#[test]
fn a_file_that_changes_to_auto_begins_with_what_is_in_force() {
    let auto = one("auto", &[1]);
    let in_force = |config: &Config, overrides: &Overrides| {
        desired(config, overrides, &Leaving::new())[0].mode
    };
    for mode in ["l4", "l7"] {
        let old = one(mode, &[1]);
        let nothing = Overrides::default();
        let kept = nothing.carried_over(&old, &auto);
        assert_eq!(in_force(&auto, &kept), in_force(&old, &nothing));
        let back = kept.carried_over(&auto, &old);
        assert_eq!(back, nothing, "and a fixed mode needs nothing decided");
    }
}

#[test]
fn what_the_author_of_a_new_file_changed_wins_and_the_rest_stays() {
    let (old, new) = (one("l4", &[1, 1]), one("auto", &[1, 5]));
    let mut overrides = Overrides::default();
    overrides.service("a").mode = Some(Mode::L7);
    for backend in &old.services[0].backends {
        overrides.backend("a", backend.address).weight = Some(9);
    }
    let kept = overrides.carried_over(&old, &new);
    let view = &desired(&new, &kept, &Leaving::new())[0];
    assert_eq!(view.configured_mode, Mode::Auto);
    assert_eq!(
        view.backends.iter().map(|b| b.weight).collect::<Vec<_>>(),
        [9, 5]
    );
    assert_eq!(overrides.carried_over(&old, &old), overrides);
    let gone = config(
        "[[service]]\nname=\"b\"\naddress=\"10.0.0.1:80\"\nbackend=[{address=\"10.1.0.1:1\"}]",
    );
    assert_eq!(overrides.carried_over(&old, &gone), Overrides::default());
}
