//! What survives the process, and what ends with it.

use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use evenkeel::datapath::{Datapath, DatapathError, FlowState, Mode, Options, ServiceTable};

use crate::lab::{Echo, Lab, address, dump, echo_service, eventually, open, refused, run, service};

#[test]
fn dropping_leaves_everything_running_and_opening_adopts_it() {
    // Arrays: what is at an index is what the index stands for.
    const KEPT: [&str; 3] = ["SERVICE_INFO", "BACKENDS", "NAT_SOURCES"];
    let lab = Lab::new();
    let tables = [
        service("10.77.1.1:80", &["10.77.0.2:80", "10.77.0.3:80"]),
        service("10.77.1.2:80", &["10.77.0.2:80"]),
    ];
    let mut first = lab.open();
    first.apply(&tables).expect("a valid table");
    let (seed, links) = (first.seed(), lab.links());
    let before = KEPT.map(|map| dump(&lab, map));
    drop(first);
    assert_eq!(lab.links(), links, "links stay");

    let (mut second, adopted) = Datapath::open(&lab.options()).expect("adopts");
    assert!(adopted.adopted);
    assert_eq!((adopted.services, adopted.backends), (2, 3));
    assert_eq!(second.seed(), seed);
    let explained = second
        .explain(address("10.77.0.2:4000"), address("10.77.1.2:80"))
        .expect("adopted services are known before they are applied again");
    assert_eq!(explained.backend, Some(address("10.77.0.2:80")));
    // The order of the configuration does not matter to indexes.
    let reversed: Vec<ServiceTable> = tables.iter().rev().cloned().collect();
    second.apply(&reversed).expect("a valid table");
    assert_eq!(before, KEPT.map(|map| dump(&lab, map)));
    assert_eq!(lab.links(), links, "links are replaced in place");
    second.detach().expect("detach");
}

#[test]
fn a_second_process_is_kept_out() {
    let lab = Lab::new();
    let first = lab.open();
    assert!(matches!(refused(&lab.options()), DatapathError::InUse(_)));
    first.detach().expect("detach");
}

#[test]
fn a_connection_outlives_the_process_and_is_counted_on() {
    let lab = Lab::new();
    let mut datapath = lab.open();
    datapath.apply(&[echo_service()]).expect("a valid table");
    let mut echo = Echo::connect(&lab);
    echo.exchange();

    let flows = datapath.flows().expect("flows");
    let [flow] = flows.as_slice() else {
        panic!("one flow: {flows:?}")
    };
    let client = echo.client.local_addr().expect("connected");
    assert_eq!(
        (flow.client, flow.service),
        (client, address("10.77.1.1:80"))
    );
    assert_eq!(flow.backend, Some(address("10.77.0.2:8080")));
    assert_eq!(flow.nat, Some(echo.backend.peer_addr().expect("connected")));
    assert_eq!((flow.state, flow.adopted), (FlowState::Established, false));
    assert!(flow.packets >= 3 && flow.reply_packets >= 2, "{flow:?}");
    let before = datapath.counters().expect("counters").services[0].1;
    assert_eq!((before.flows_opened, before.flows_closed), (1, 0));

    drop(datapath);
    echo.exchange();
    let mut datapath = lab.open();
    datapath.apply(&[echo_service()]).expect("a valid table");
    echo.exchange();
    let after = datapath.counters().expect("counters").services[0].1;
    assert_eq!(after.flows_opened, 1);
    assert!(
        after.packets >= before.packets + 2 && after.bytes > before.bytes,
        "{before:?} {after:?}"
    );
    datapath.detach().expect("detach");
}

#[test]
fn flows_of_a_proxy_that_died_are_forgotten_and_those_on_backends_kept() {
    let lab = Lab::new();
    run("ip", &["addr", "add", "10.77.1.2/32", "dev", "lo"]);
    let local = ServiceTable {
        mode: Mode::L7,
        ..service("10.77.1.2:80", &["10.77.0.2:8080"])
    };
    let mut datapath = lab.open();
    datapath
        .apply(&[echo_service(), local])
        .expect("a valid table");
    let proxy = TcpListener::bind("127.0.0.1:0").expect("loopback is up");
    datapath
        .steer_to(proxy.as_fd())
        .expect("a listening socket");
    let mut echo = Echo::connect(&lab);
    let connect = || TcpStream::connect("10.77.1.2:80").expect("the proxy answers");
    let client = lab.at_peer(connect).join().expect("connected");
    let (accepted, _) = proxy.accept().expect("handed over");
    assert_eq!(
        accepted.local_addr().expect("connected"),
        address("10.77.1.2:80"),
        "the service's address is kept"
    );
    let local_flows = |datapath: &Datapath| {
        let flows = datapath.flows().expect("flows");
        (
            flows.len(),
            flows.iter().filter(|flow| flow.backend.is_none()).count(),
        )
    };
    assert_eq!(local_flows(&datapath), (2, 1));
    drop(datapath);
    let datapath = lab.open();
    assert_eq!(local_flows(&datapath), (1, 0));
    echo.exchange();
    drop((client, accepted));
    datapath.detach().expect("detach");
}

#[test]
fn a_removed_service_keeps_its_flows_until_they_end_and_the_sweep_frees_them() {
    let lab = Lab::new();
    let mut datapath = open(&Options {
        closed_hold: Duration::ZERO,
        port_hold: Duration::ZERO,
        ..lab.options()
    });
    datapath.apply(&[echo_service()]).expect("a valid table");
    let mut echo = Echo::connect(&lab);
    datapath.apply(&[]).expect("nothing to balance");
    assert_eq!(
        datapath.sweep().expect("sweep").released,
        0,
        "a flow refers to them"
    );
    echo.exchange();
    drop(echo);
    // The last packets of the connection take their time.
    let mut released = 0;
    eventually("service and backend were released", || {
        released += datapath.sweep().expect("sweep").released;
        released == 2
    });
    assert_eq!(datapath.flows().expect("flows"), []);
    datapath.detach().expect("detach");
}

#[test]
fn a_flow_that_was_silent_for_too_long_is_forgotten_and_goes_on_if_it_was_only_silent() {
    let lab = Lab::new();
    let mut datapath = open(&Options {
        idle_timeout: Duration::ZERO,
        port_hold: Duration::ZERO,
        closed_hold: Duration::ZERO,
        ..lab.options()
    });
    datapath.apply(&[echo_service()]).expect("a valid table");
    let mut echo = Echo::connect(&lab);
    // A tick or some: the clock of the data path knows nothing shorter.
    std::thread::sleep(Duration::from_millis(50));
    let swept = datapath.sweep().expect("sweep");
    assert_eq!((swept.expired, swept.removed, swept.flows), (1, 1, 0));
    let counters = datapath.counters().expect("counters");
    assert!(counters.events.contains(&("flow_expired", 1)));
    assert!(counters.services.iter().all(|(_, it)| it.open() == 0));
    // Recorded anew: the hash has the backend and the port that it had.
    echo.exchange();
    assert_eq!(datapath.flows().expect("flows").len(), 1);
    datapath.detach().expect("detach");
}

#[test]
fn removed_backends_are_released_by_the_sweep_and_their_slots_reused() {
    let lab = Lab::new();
    let mut datapath = open(&Options {
        max_backends: 1,
        ..lab.options()
    });
    datapath
        .apply(&[service("10.77.1.1:80", &["10.77.0.2:80"])])
        .expect("a valid table");
    datapath.apply(&[]).expect("nothing to balance");
    assert_eq!(
        datapath.counters().expect("counters").backends.len(),
        1,
        "held until the sweep"
    );
    assert_eq!(datapath.sweep().expect("sweep").released, 2);
    assert_eq!(datapath.counters().expect("counters").backends.len(), 0);
    datapath
        .apply(&[service("10.77.1.1:80", &["10.77.0.3:80"])])
        .expect("the slot is free again");
    assert!(!datapath.sweep().expect("sweep").scanned, "nothing to do");
    datapath.detach().expect("detach");
}

#[test]
fn a_backend_gets_its_source_address_once_there_is_a_route() {
    let lab = Lab::new();
    let mut datapath = lab.open();
    datapath
        .apply(&[service("10.77.1.1:80", &["10.88.0.2:80"])])
        .expect("a dead backend is no error");
    let before = dump(&lab, "BACKENDS");
    run("ip", &["addr", "add", "10.88.0.1/24", "dev", "ekd0"]);
    datapath.sweep().expect("sweep");
    assert_ne!(before, dump(&lab, "BACKENDS"));
    assert_eq!(
        datapath.counters().expect("counters").services.len(),
        1,
        "the service is still there"
    );
    datapath.detach().expect("detach");
}
