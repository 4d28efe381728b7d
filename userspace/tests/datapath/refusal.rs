//! What is refused, with the way out; and what a process may give up.

use std::net::TcpListener;
use std::os::fd::AsFd;
use std::path::PathBuf;

use evenkeel::datapath::{DatapathError, HookChoice, Options, capabilities};

use crate::lab::{Lab, address, dump, echo_service, interface, open, refused, service};

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
fn preflight_finds_nothing_wrong_where_the_data_path_runs_and_leaves_nothing() {
    use evenkeel::datapath::preflight::{Status, check, check_options};
    let lab = Lab::new();
    let findings = [check(), check_options(&lab.options())].concat();
    let failures: Vec<_> = findings
        .iter()
        .filter(|finding| finding.status == Status::Fail)
        .collect();
    assert!(failures.is_empty(), "{failures:?}");
    for name in [
        "generic xdp",
        "native xdp",
        "tcx",
        "clsact",
        "sk_lookup",
        "ip_forward",
    ] {
        assert!(
            findings.iter().any(|finding| finding.name == name),
            "{name} is looked at"
        );
    }
    let wrong = Options {
        interfaces: vec![interface("eth77", HookChoice::Auto)],
        pin_dir: PathBuf::from("/run/evenkeel-no-bpffs"),
        max_services: 0,
        ..lab.options()
    };
    let failed: Vec<_> = check_options(&wrong)
        .into_iter()
        .filter(|finding| finding.status == Status::Fail)
        .collect();
    assert_eq!(failed.len(), 3, "{failed:?}");
    assert!(
        findings
            .iter()
            .chain(&failed)
            .all(|finding| (finding.status == Status::Ok) == finding.remedy.is_empty()),
        "{findings:?} {failed:?}"
    );
    assert!(!lab.pin_dir.exists());
}

#[test]
fn preflight_knows_a_driver_without_native_xdp() {
    use aya::util::KernelVersion;
    use evenkeel::datapath::preflight::{Status, check_options};
    let lab = Lab::new();
    let on = |hook| Options {
        interfaces: vec![interface("lo", hook)],
        ..lab.options()
    };
    let found = |hook| check_options(&on(hook)).swap_remove(0);
    let refused = found(HookChoice::Xdp);
    // Before 6.3 the kernel does not say.
    let says =
        KernelVersion::current().expect("a version").code() >= KernelVersion::new(6, 3, 0).code();
    if says {
        assert_eq!(refused.status, Status::Fail, "{refused:?}");
        assert!(refused.found.contains("no native XDP"), "{refused:?}");
        assert!(refused.remedy.contains("hook = \"tc\""), "{refused:?}");
    }
    assert_eq!(found(HookChoice::Auto).status, Status::Ok);
}
