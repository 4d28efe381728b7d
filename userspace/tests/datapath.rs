//! The data path against the running kernel, in private network namespaces: what survives a restart, what a clean end
//! leaves behind, what is refused.
//!
//! Needs root and the BPF program (`cargo xtask build`); without them every test here fails and says so.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use common::{Lab, address, chain, dump, interface, open, refused, run, service};
use evenkeel::datapath::{
    Counters, Datapath, DatapathError, FlowState, HookChoice, InterfaceSpec, Options, ServiceTable,
    TcAttach, XdpMode, capabilities,
};

#[test]
fn a_fresh_data_path_counts_from_zero_and_says_where_it_is_attached() {
    let lab = Lab::new();
    let mut datapath = lab.open();
    datapath
        .apply(&[service("10.77.1.1:80", &["10.77.0.2:80", "10.77.0.3:80"])])
        .expect("a valid table");
    let snapshot = datapath.counters().expect("counters");
    assert_eq!(snapshot.services.len(), 1);
    assert_eq!(snapshot.backends.len(), 2);
    assert!(
        snapshot
            .services
            .iter()
            .all(|(_, counters)| *counters == Counters::default())
    );
    assert!(snapshot.events.iter().all(|(_, count)| *count == 0));
    let attached: Vec<_> = datapath
        .attachments()
        .into_iter()
        .map(|attachment| (attachment.interface, attachment.hook, attachment.mode))
        .collect();
    let expect = |interface: &str, hook: &str, mode: &str| {
        (interface.to_owned(), hook.to_owned(), mode.to_owned())
    };
    assert_eq!(
        attached,
        [
            expect("-", "sk_lookup", "netns"),
            expect("ekd0", "tc ingress", "tcx"),
            expect("ekd0", "tc egress", "tcx")
        ]
    );
    datapath.detach().expect("detach");
}

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
fn a_pinned_map_of_another_size_is_refused_with_the_way_out() {
    let lab = Lab::new();
    drop(lab.open());
    let other = Options {
        max_flows: 8192,
        ..lab.options()
    };
    let text = refused(&other).to_string();
    assert!(
        text.contains("FLOWS has max_entries 4096, 8192 is needed") && text.contains("rm -r"),
        "{text}"
    );
    assert!(!lab.links().is_empty(), "what runs goes on running");
    lab.open().detach().expect("detach");
}

#[test]
fn detaching_leaves_nothing_behind() {
    let lab = Lab::new();
    let mut datapath = lab.open();
    datapath
        .apply(&[service("10.77.1.1:80", &["10.77.0.2:80"])])
        .expect("a valid table");
    let ids: Vec<String> = datapath
        .attachments()
        .iter()
        .map(|attached| attached.program_id.to_string())
        .collect();
    datapath.detach().expect("detach");
    assert!(!lab.pin_dir.exists());
    let net = run("bpftool", &["net", "show"]);
    assert!(!net.contains("ek_"), "{net}");
    for id in ids {
        let gone = Command::new("bpftool")
            .args(["prog", "show", "id", &id])
            .status()
            .expect("bpftool");
        assert!(!gone.success(), "program {id} is still loaded");
    }
}

#[test]
fn clsact_filters_survive_the_process_and_are_replaced_in_place() {
    let lab = Lab::new();
    let options = Options {
        tc_attach: TcAttach::Clsact,
        ..lab.options()
    };
    drop(open(&options));
    let filters = || {
        run("tc", &["filter", "show", "dev", "ekd0", "ingress"])
            .matches("handle 0x1 ek_ingress")
            .count()
    };
    assert_eq!(filters(), 1);
    let second = open(&options);
    assert_eq!(filters(), 1);
    assert!(
        second
            .attachments()
            .iter()
            .any(|attached| attached.mode == "clsact")
    );
    second.detach().expect("detach");
    assert_eq!(filters(), 0);
}

#[test]
fn going_from_clsact_to_tcx_moves_everything() {
    let lab = Lab::new();
    drop(open(&Options {
        tc_attach: TcAttach::Clsact,
        ..lab.options()
    }));
    let datapath = lab.open();
    assert_eq!(
        run("tc", &["filter", "show", "dev", "ekd0", "ingress"])
            .matches("handle 0x1 ek_ingress")
            .count(),
        0
    );
    assert_eq!(
        lab.links(),
        ["-:sk_lookup", "ekd0:tcx-egress", "ekd0:tcx-ingress"]
    );
    datapath.detach().expect("detach");
}

#[test]
fn native_and_generic_xdp_are_what_was_asked_for() {
    let lab = Lab::new();
    let native = Options {
        interfaces: vec![interface("ekd0", HookChoice::Xdp)],
        ..lab.options()
    };
    let mut datapath = open(&native);
    let xdp = |datapath: &Datapath| {
        datapath
            .attachments()
            .into_iter()
            .find(|attached| attached.hook == "xdp")
            .map(|attached| attached.mode)
    };
    assert_eq!(xdp(&datapath).as_deref(), Some("native"));
    let generic = InterfaceSpec {
        xdp_mode: XdpMode::Generic,
        ..interface("ekd0", HookChoice::Xdp)
    };
    datapath
        .attach(&[generic])
        .expect("generic works everywhere");
    assert_eq!(xdp(&datapath).as_deref(), Some("generic"));
    assert!(run("ip", &["link", "show", "ekd0"]).contains("xdpgeneric"));
    datapath
        .attach(&[interface("ekd0", HookChoice::Tc)])
        .expect("without XDP again");
    assert!(!run("ip", &["link", "show", "ekd0"]).contains("xdp"));
    datapath.detach().expect("detach");
}

#[test]
fn native_xdp_where_there_is_none_names_the_alternatives_and_leaves_nothing() {
    let lab = Lab::new();
    let options = Options {
        interfaces: vec![interface("lo", HookChoice::Xdp)],
        ..lab.options()
    };
    let error = refused(&options);
    let text = error.to_string();
    assert!(
        text.contains("hook = \"tc\"") && text.contains("xdp_mode = \"generic\""),
        "{}",
        chain(&error)
    );
    assert!(!lab.pin_dir.exists());
}

#[test]
fn an_unknown_interface_is_refused_with_those_known() {
    let lab = Lab::new();
    let options = Options {
        interfaces: vec![interface("eth77", HookChoice::Auto)],
        ..lab.options()
    };
    let text = refused(&options).to_string();
    assert!(
        text.contains("\"eth77\"") && text.contains("ekd0") && text.contains("lo"),
        "{text}"
    );
    assert!(!lab.pin_dir.exists());
}

/// A connection from the peer over the service to a backend at the peer; echoes what is asked for.
struct Echo {
    client: TcpStream,
    backend: TcpStream,
}

impl Echo {
    fn connect(lab: &Lab) -> Self {
        let work = || {
            let listener = TcpListener::bind("10.77.0.2:8080").expect("the backend's address");
            let client = TcpStream::connect("10.77.1.1:80").expect("the service answers");
            let (backend, _) = listener.accept().expect("the backend was chosen");
            for stream in [&client, &backend] {
                stream
                    .set_read_timeout(Some(Duration::from_secs(10)))
                    .expect("a timeout");
            }
            Self { client, backend }
        };
        lab.at_peer(work).join().expect("connected")
    }

    fn exchange(&mut self) {
        let mut word = [0; 4];
        self.client.write_all(b"ping").expect("sent");
        self.backend.read_exact(&mut word).expect("forwarded");
        assert_eq!(&word, b"ping");
        self.backend.write_all(b"pong").expect("sent");
        self.client.read_exact(&mut word).expect("returned");
        assert_eq!(&word, b"pong");
    }
}

fn echo_service() -> ServiceTable {
    service("10.77.1.1:80", &["10.77.0.2:8080"])
}

#[test]
fn an_interface_that_comes_back_under_its_name_is_attached_anew() {
    let lab = Lab::new();
    let mut datapath = lab.open();
    datapath.apply(&[echo_service()]).expect("a valid table");
    drop(datapath);
    run("ip", &["link", "del", "ekd0"]);
    lab.wire();
    let datapath = lab.open();
    Echo::connect(&lab).exchange();
    datapath.detach().expect("detach");
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
fn a_removed_service_keeps_its_flows_until_they_end_and_the_sweep_frees_them() {
    let lab = Lab::new();
    let mut datapath = open(&Options {
        closed_hold: Duration::ZERO,
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
    // The last packets of the connection take their time; each round looks at the map, not at a clock.
    let mut released = 0;
    for _ in 0..200 {
        released += datapath.sweep().expect("sweep").released;
        if released == 2 {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(released, 2);
    assert_eq!(datapath.flows().expect("flows"), []);
    datapath.detach().expect("detach");
}

#[test]
fn a_pin_directory_that_is_not_on_a_bpffs_is_refused_with_the_mount_command() {
    let lab = Lab::new();
    let options = Options {
        pin_dir: PathBuf::from("/run/evenkeel-no-bpffs"),
        ..lab.options()
    };
    let text = refused(&options).to_string();
    assert!(
        text.contains("mount -t bpf bpf /run/evenkeel-no-bpffs"),
        "{text}"
    );
}

#[test]
fn nat_ports_that_local_sockets_use_are_refused() {
    let lab = Lab::new();
    let options = Options {
        nat_ports: 10_240..=40_000,
        ..lab.options()
    };
    assert!(matches!(
        refused(&options),
        DatapathError::NatPortsOverlap { .. }
    ));
}

#[test]
fn a_refused_table_changes_nothing() {
    let lab = Lab::new();
    let mut datapath = open(&Options {
        max_backends: 2,
        ..lab.options()
    });
    datapath
        .apply(&[service("10.77.1.1:80", &["10.77.0.2:80"])])
        .expect("a valid table");
    let before = (dump(&lab, "SERVICES"), dump(&lab, "BACKENDS"));
    let three = service(
        "10.77.1.2:80",
        &["10.77.0.2:80", "10.77.0.3:80", "10.77.0.4:80"],
    );
    assert!(matches!(
        datapath.apply(&[three]),
        Err(DatapathError::NoSlot {
            what: "backend",
            limit: 2
        })
    ));
    let twice = service("10.77.1.1:80", &["10.77.0.2:80", "10.77.0.2:80"]);
    assert!(matches!(
        datapath.apply(&[twice]),
        Err(DatapathError::DuplicateBackend { .. })
    ));
    assert_eq!(before, (dump(&lab, "SERVICES"), dump(&lab, "BACKENDS")));
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

#[test]
fn preflight_finds_nothing_wrong_where_the_data_path_runs_and_leaves_nothing() {
    use evenkeel::datapath::preflight::{Status, check, check_options};
    let lab = Lab::new();
    let findings = [check(), check_options(&lab.options())].concat();
    let failures: Vec<_> = findings
        .iter()
        .filter(|finding| finding.status == Status::Fail)
        .collect();
    assert!(failures.is_empty(), "{failures:?}");
    for name in ["xdp", "tcx", "clsact", "sk_lookup", "ip_forward"] {
        assert!(
            findings.iter().any(|finding| finding.name == name),
            "{name} is looked at"
        );
    }
    let wrong = Options {
        interfaces: vec![interface("eth77", HookChoice::Auto)],
        pin_dir: PathBuf::from("/run/evenkeel-no-bpffs"),
        ..lab.options()
    };
    let failed: Vec<_> = check_options(&wrong)
        .into_iter()
        .filter(|finding| finding.status == Status::Fail)
        .collect();
    assert_eq!(failed.len(), 2, "{failed:?}");
    assert!(failed.iter().all(|finding| !finding.remedy.is_empty()));
    assert!(!lab.pin_dir.exists());
}

#[test]
fn everything_but_loading_works_with_the_capabilities_that_are_kept() {
    let lab = Lab::new();
    let options = lab.options();
    let work = move || {
        let mut datapath = open(&options);
        capabilities::drop_after_load().expect("root may give up");
        assert!(!capabilities::sufficient());
        datapath.apply(&[echo_service()]).expect("a valid table");
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is up");
        datapath
            .steer_to(listener.as_fd())
            .expect("a listening socket");
        datapath.warm_neighbours().expect("netlink");
        datapath.counters().expect("counters");
        datapath.flows().expect("flows");
        datapath.upstreams().expect("upstreams");
        datapath
            .explain(address("10.77.0.2:4000"), address("10.77.1.1:80"))
            .expect("explained");
        datapath.attach(&[]).expect("detached from the interface");
        datapath
            .attach(&options.interfaces)
            .expect("and attached again");
        datapath.apply(&[]).expect("nothing to balance");
        datapath.sweep().expect("sweep");
        datapath.detach().expect("detach");
    };
    // A thread of its own: what it gives up, the clean-up still needs.
    std::thread::spawn(work).join().expect("everything worked");
    assert!(!lab.pin_dir.exists());
}

#[test]
fn without_privileges_one_sentence_says_so() {
    let lab = Lab::new();
    let options = lab.options();
    let work = move || {
        capabilities::drop_after_load().expect("root may give up");
        refused(&options)
    };
    let error = std::thread::spawn(work).join().expect("refused");
    assert!(matches!(error, DatapathError::NotPermitted));
    assert_eq!(error.to_string().lines().count(), 1);
    assert!(!lab.pin_dir.exists());
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

#[test]
fn the_data_path_of_another_version_is_replaced() {
    let lab = Lab::new();
    drop(lab.open());
    let version = lab.version();
    let other = version.with_file_name("v4000000000");
    std::fs::rename(&version, &other).expect("bpffs can rename");
    let datapath = lab.open();
    assert!(!other.exists());
    assert_eq!(lab.links().len(), 3);
    datapath.detach().expect("detach");
}
