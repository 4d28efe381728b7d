//! Where programs are attached, and that nothing stays behind.

use std::process::Command;

use evenkeel::datapath::{
    Counters, Datapath, HookChoice, InterfaceSpec, Options, TcAttach, XdpMode,
};

use crate::lab::{
    Echo, Lab, chain, echo_service, eventually, interface, open, refused, run, service,
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
    // A link lets go of its program in the kernel's own time (`bpf_link_put` leaves that to a work queue).
    for id in ids {
        let loaded = || {
            let mut bpftool = Command::new("bpftool");
            let shown = bpftool.args(["prog", "show", "id", &id]).status();
            shown.expect("bpftool").success()
        };
        eventually(&format!("program {id} was freed"), || !loaded());
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
