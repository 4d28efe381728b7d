//! `evenkeel observe` comes and goes without a trace, however it ends, and beside whatever else is attached.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use aya::programs::{SchedClassifier, TcAttachType};
use rustix::process::{Pid, Signal, kill_process};

use crate::lab::{Echo, Lab, echo_service, eventually, run};

const EVENKEEL: &str = env!("CARGO_BIN_EXE_evenkeel");

/// A running `evenkeel observe ekd0`, and what it said up to the point where it observes.
struct Observer {
    child: Child,
    said: Vec<String>,
}

impl Observer {
    fn start(arguments: &[&str]) -> Self {
        let mut observer = Self {
            child: Command::new(EVENKEEL)
                .args(["observe", "ekd0"])
                .args(arguments)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("the binary was built"),
            said: Vec::new(),
        };
        let errors = observer.child.stderr.take().expect("a pipe");
        for line in BufReader::new(errors).lines() {
            let line = line.expect("text");
            let done = line.starts_with("observing ");
            observer.said.push(line);
            if done {
                return observer;
            }
        }
        panic!("it ended: {:?}", observer.said);
    }

    fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it was killed");
    }

    /// Ends it with SIGTERM; what it printed.
    fn stop(mut self) -> String {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it runs");
        let mut printed = String::new();
        let mut output = self.child.stdout.take().expect("a pipe");
        output.read_to_string(&mut printed).expect("text");
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{status}: {printed}");
        printed
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        // Only where the test failed before its end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Names of the programs on ekd0 by tcx, both directions.
fn attached() -> Vec<String> {
    [TcAttachType::Ingress, TcAttachType::Egress]
        .into_iter()
        .flat_map(|hook| {
            let (_, programs) =
                SchedClassifier::query_tcx("ekd0", hook).expect("this kernel has tcx");
            programs
        })
        .map(|program| program.name_as_str().unwrap_or_default().to_owned())
        .collect()
}

/// Ours among the clsact filters of ekd0.
fn filters() -> usize {
    ["ingress", "egress"]
        .into_iter()
        .map(|hook| {
            run("tc", &["filter", "show", "dev", "ekd0", hook])
                .matches("handle 0x1 ek_watch")
                .count()
        })
        .sum()
}

/// The kernel lets go of a link on its own time.
fn eventually_attached(names: &[&str]) {
    eventually("only the others are attached", || attached() == names);
}

#[test]
fn it_is_attached_in_both_directions_and_gone_after_sigterm_and_after_sigkill() {
    let _lab = Lab::new();
    let observer = Observer::start(&[]);
    assert_eq!(attached(), ["ek_watch_in", "ek_watch_out"]);
    let printed = observer.stop();
    assert!(printed.contains("No RPC was seen"), "{printed}");
    eventually_attached(&[]);

    let observer = Observer::start(&[]);
    assert_eq!(attached().len(), 2);
    observer.kill();
    eventually_attached(&[]);
}

#[test]
fn where_only_clsact_exists_the_next_one_removes_what_a_killed_one_left_and_says_so() {
    let _lab = Lab::new();
    let observer = Observer::start(&["--clsact"]);
    assert!(
        observer
            .said
            .last()
            .is_some_and(|said| said.contains("clsact"))
    );
    assert_eq!((attached().len(), filters()), (0, 2));
    observer.stop();
    assert_eq!(filters(), 0, "a clean end leaves nothing");

    Observer::start(&["--clsact"]).kill();
    assert_eq!(filters(), 2, "filters outlast the process: this is why");
    let next = Observer::start(&["--clsact"]);
    assert!(
        next.said[0].contains("killed `evenkeel observe` left on ekd0"),
        "{:?}",
        next.said
    );
    assert_eq!(filters(), 2);
    next.stop();
    assert_eq!(filters(), 0);
}

#[test]
fn it_sees_what_a_balancer_on_the_same_interface_redirects_and_changes_nothing() {
    let lab = Lab::new();
    let mut datapath = lab.open();
    datapath.apply(&[echo_service()]).expect("a valid table");
    let observer = Observer::start(&["--json"]);
    assert_eq!(
        attached(),
        ["ek_watch_in", "ek_ingress", "ek_watch_out", "ek_egress"],
        "it comes first, as what is redirected is seen by nobody after"
    );
    Echo::connect(&lab).exchange();
    let printed = observer.stop();
    assert!(printed.contains("\"other\""), "{printed}");
    assert!(
        !printed.contains("No RPC was seen: no TCP connection was."),
        "{printed}"
    );
    eventually_attached(&["ek_ingress", "ek_egress"]);
    Echo::connect(&lab).exchange();
    datapath.detach().expect("detach");
}

#[test]
fn tcp_over_ipv6_is_said_not_to_be_looked_at() {
    let lab = Lab::new();
    run("ip", &["addr", "add", "fd77::1/64", "dev", "ekd0", "nodad"]);
    let observer = Observer::start(&["--json"]);
    let elsewhere = Observer::start(&["--json", "--port", "1"]);
    let tried = lab.at_peer(|| {
        run("ip", &["addr", "add", "fd77::2/64", "dev", "ekd1", "nodad"]);
        // Nobody listens: the answer is a reset, which is TCP over IPv6 as well.
        std::net::TcpStream::connect("[fd77::1]:50051").is_err()
    });
    assert!(tried.join().expect("the peer tries"), "nobody listens");
    let printed = elsewhere.stop();
    assert!(
        printed.contains("No RPC was seen: no TCP connection was."),
        "{printed}"
    );
    let printed = observer.stop();
    assert!(
        printed.contains("TCP packets not looked at: 2 over IPv6."),
        "{printed}"
    );
}

#[test]
fn an_unknown_interface_is_answered_with_those_that_exist() {
    let _lab = Lab::new();
    let output = Command::new(EVENKEEL)
        .args(["observe", "nosuch0"])
        .output()
        .expect("the binary was built");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        said.lines().count() == 1 && said.contains("nosuch0") && said.contains("ekd0"),
        "{said}"
    );
}

#[test]
fn an_interface_without_ethernet_frames_is_refused() {
    let _lab = Lab::new();
    run("ip", &["tuntap", "add", "dev", "ektun", "mode", "tun"]);
    let output = Command::new(EVENKEEL)
        .args(["observe", "ektun"])
        .output()
        .expect("the binary was built");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("no Ethernet frames"),
        "{said}"
    );
}

#[test]
fn without_privileges_there_is_one_sentence() {
    let _lab = Lab::new();
    let output = Command::new("setpriv")
        .args([
            "--bounding-set",
            "-all",
            "--inh-caps",
            "-all",
            "--no-new-privs",
        ])
        .args([EVENKEEL, "observe", "ekd0"])
        .output()
        .expect("setpriv is part of util-linux");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(
        said.lines().count() == 1 && said.contains("needs root"),
        "{said}"
    );
}
