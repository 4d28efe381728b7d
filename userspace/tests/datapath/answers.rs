//! Explaining, steering, neighbours.

use std::net::TcpListener;
use std::os::fd::AsFd;

use evenkeel::datapath::DatapathError;

use crate::lab::{Echo, Lab, address, echo_service, run, service};

#[test]
fn the_explanation_of_a_new_flow_is_what_then_happens() {
    let lab = Lab::new();
    let mut datapath = lab.open();
    datapath.apply(&[echo_service()]).expect("a valid table");
    let vip = address("10.77.1.1:80");
    let new = datapath
        .explain(address("10.77.0.2:4000"), vip)
        .expect("a known service");
    assert_eq!(
        (new.backend, new.local),
        (Some(address("10.77.0.2:8080")), false)
    );
    let echo = Echo::connect(&lab);
    let old = datapath
        .explain(echo.client.local_addr().expect("connected"), vip)
        .expect("a known service");
    assert!(old.existing.is_some());
    let unknown = datapath.explain(address("10.77.0.2:4000"), address("10.77.1.9:80"));
    assert!(matches!(unknown, Err(DatapathError::UnknownService { known, .. }) if known == [vip]));
    datapath.detach().expect("detach");
}

#[test]
fn a_listening_socket_can_be_steered_to() {
    let lab = Lab::new();
    let mut datapath = lab.open();
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is up");
    datapath
        .steer_to(listener.as_fd())
        .expect("a listening socket");
    datapath.detach().expect("detach");
}

#[test]
fn neighbours_of_backends_are_asked_for_and_backends_without_route_passed_over() {
    let lab = Lab::new();
    let mut datapath = lab.open();
    datapath
        .apply(&[service("10.77.1.1:80", &["10.77.0.2:80", "192.0.2.1:80"])])
        .expect("a valid table");
    assert_eq!(datapath.warm_neighbours().expect("netlink"), 1);
    assert!(run("ip", &["neigh", "show", "dev", "ekd0"]).contains("10.77.0.2"));
    datapath.detach().expect("detach");
}
