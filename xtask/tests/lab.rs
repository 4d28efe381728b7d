//! The lab itself: it connects what it should, loses what it is told to, and leaves nothing behind. Needs root.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use xtask::{
    lab::{Lab, Leftovers, Loss, Offloads, Process, Spec, clean},
    shell,
};

fn exists(lab: &str, role: &str) -> bool {
    Path::new("/run/netns")
        .join(format!("{lab}-{role}"))
        .exists()
}

/// Whether the host of `target` answers from the client: nobody listens there, so it refuses the connection.
fn answers(lab: &Lab, target: SocketAddr) -> Result<()> {
    let mut curl = lab.client().command("curl");
    curl.args(["--silent", "--max-time", "5", &format!("http://{target}/")]);
    // curl(1): 7 is "failed to connect", 28 "timeout".
    let code = curl.output()?.status.code();
    ensure!(code == Some(7), "{}: {code:?}", shell::describe(&curl));
    Ok(())
}

#[test]
fn a_lab_connects_client_balancer_and_backends_and_leaves_nothing_behind() -> Result<()> {
    let lab = Lab::new(&Spec {
        gateway: true,
        offloads: Offloads::NoChecksums,
        mtu: Some(1400),
        ..Spec::default()
    })?;
    answers(&lab, lab.service(80))?;
    answers(&lab, lab.backend_address(0, 80)?)?;
    answers(&lab, lab.backend_address(1, 80)?)?;
    let mut stays = Process::start(&lab, "stays", lab.client().command("sleep").arg("1000"))?;
    stays.leave();
    let (id, directory) = (lab.id().to_owned(), lab.directory().to_owned());
    ensure!(exists(&id, "client") && exists(&id, "backend2"));
    drop(lab);
    ensure!(!exists(&id, "client") && !exists(&id, "balancer") && !exists(&id, "backend2"));
    ensure!(!directory.exists());
    ensure!(stays.has_ended()?.is_some(), "a process outlived the lab");
    Ok(())
}

/// What is on its way into a namespace has not arrived there: here it never does.
#[test]
fn a_program_that_entered_no_namespace_ends_with_the_lab_all_the_same() -> Result<()> {
    let lab = Lab::new(&Spec::default())?;
    let mut stays = Process::start(&lab, "stays", Command::new("sleep").arg("1000"))?;
    stays.leave();
    drop(lab);
    ensure!(stays.has_ended()?.is_some(), "a process outlived the lab");
    Ok(())
}

/// Only the namespace tells who was started by a program of the lab and outlived that.
#[test]
fn what_a_program_of_the_lab_left_behind_ends_with_the_lab() -> Result<()> {
    let lab = Lab::new(&Spec::default())?;
    let mut parent = lab.client().command("sh");
    parent.args(["-c", "sleep 1000 >/dev/null 2>&1 & echo $!"]);
    let child = shell::capture(&mut parent)?;
    let place = Path::new("/proc").join(child.trim()).join("ns/net");
    ensure!(place.read_link().is_ok(), "it does not run: {child}");
    drop(lab);
    // Nobody may have waited for it; but what has ended has no namespace.
    ensure!(place.read_link().is_err(), "a process outlived the lab");
    Ok(())
}

#[test]
fn two_labs_at_once_do_not_meet() -> Result<()> {
    let (first, second) = (Lab::new(&Spec::default())?, Lab::new(&Spec::default())?);
    ensure!(first.id() != second.id());
    drop(first);
    answers(&second, second.service(80))
}

#[test]
fn every_nth_packet_is_lost_when_asked() -> Result<()> {
    let lab = Lab::new(&Spec {
        loss: Some(Loss::EveryNth(4)),
        ..Spec::default()
    })?;
    // A refused connection is two packets.
    for _ in 0..8 {
        answers(&lab, lab.service(80))?;
    }
    let lost = lab.lost()?;
    ensure!((4..=16).contains(&lost), "{lost}");
    Ok(())
}

/// What a test of the data path makes, under the name that its process would give it.
fn places(pid: u32, started: &str) -> Result<[PathBuf; 3]> {
    let id = format!("ekd{pid}t{started}x4711");
    for role in ["balancer", "peer"] {
        shell::capture(Command::new("ip").args(["netns", "add", &format!("{id}-{role}")]))?;
    }
    let pins = Path::new("/sys/fs/bpf").join(&id);
    fs::create_dir_all(pins.join("1/maps"))?;
    let namespace = |role| Path::new("/run/netns").join(format!("{id}-{role}"));
    Ok([namespace("balancer"), namespace("peer"), pins])
}

/// Field 22 of /proc/PID/stat, see proc(5).
fn start_time(pid: u32) -> Result<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').context("a name")?;
    let field = rest.split_whitespace().nth(19).context("a start time")?;
    Ok(field.to_owned())
}

#[test]
fn what_a_killed_test_of_the_data_path_left_is_swept_and_a_living_ones_is_not() -> Result<()> {
    let mut child = Command::new("sleep").arg("1000").spawn()?;
    let started = start_time(child.id())?;
    let places = places(child.id(), &started)?;
    clean(Leftovers::Abandoned, &[])?;
    let left = places.iter().all(|place| place.exists());
    child.kill()?;
    child.wait()?;
    clean(Leftovers::Abandoned, &[])?;
    ensure!(left, "a living test lost what it needs");
    for place in places {
        ensure!(!place.exists(), "{} is still there", place.display());
    }
    Ok(())
}

/// What the kernel says of `protocol` in the balancer's /proc/net/`file`: one line of names, one of numbers.
fn statistic(lab: &Lab, file: &str, protocol: &str, name: &str) -> Result<u64> {
    let mut cat = lab.balancer().command("cat");
    let printed = shell::capture(cat.arg(format!("/proc/net/{file}")))?;
    let mut lines = printed.lines().filter_map(|line| line.split_once(": "));
    let mut next = || {
        let (_, words) = lines.find(|(begins, _)| *begins == protocol)?;
        Some(words.split_whitespace())
    };
    let (names, numbers) = (next().context("names")?, next().context("numbers")?);
    let mut pairs = names.zip(numbers);
    let (_, number) = pairs.find(|(it, _)| *it == name).context("no such name")?;
    Ok(number.parse()?)
}

/// Most bytes of a segment: an MTU of 1,500 less the headers of IPv4 and TCP (RFC 6691); a timestamp only takes from it.
const MSS: u64 = 1460;

#[test]
fn segments_reach_the_balancer_merged_when_asked_and_only_then() -> Result<()> {
    for (offloads, merged) in [(Offloads::Merged, true), (Offloads::None, false)] {
        let lab = Lab::new(&Spec {
            backends: 1,
            gateway: true,
            offloads,
            ..Spec::default()
        })?;
        for interface in lab.interfaces() {
            let mut ethtool = lab.balancer().command("ethtool");
            let said = shell::capture(ethtool.args(["-k", &interface]))?;
            let state = if merged { "on" } else { "off" };
            let state = format!("generic-receive-offload: {state}");
            ensure!(said.contains(&state), "{interface}: {said}");
        }
        let server = &lab.backends()[0];
        let mut iperf3 = server.command("iperf3");
        iperf3.args(["--server", "--one-off", "--forceflush"]);
        let mut server = Process::start(&lab, "iperf3", &mut iperf3)?;
        let output = lab.directory().join("iperf3.out");
        server.wait_until("it listened", || {
            fs::read_to_string(&output).is_ok_and(|said| said.contains("Server listening"))
        })?;
        let backend = lab.backend_address(0, 0)?.ip().to_string();
        let mut iperf3 = lab.client().command("iperf3");
        let said = shell::capture(iperf3.args(["--client", &backend, "--bytes=10M", "--json"]))?;
        // iperf3 ends when it has written 10 MB; what then still waits in its socket is lost with the connection.
        let said: serde_json::Value = serde_json::from_str(&said)?;
        let received = said["end"]["sum_received"]["bytes"].as_u64();
        let received = received.context("what the server received")?;
        ensure!(received > 1_000_000, "{received} bytes were received");
        // The first counts what the card gave to IP, the second the segments that this was on the wire.
        let packets = statistic(&lab, "snmp", "Ip", "InReceives")?;
        let segments = statistic(&lab, "netstat", "IpExt", "InNoECTPkts")?;
        ensure!(
            segments * MSS >= received,
            "{received} bytes came in {segments} segments"
        );
        ensure!(
            (packets * 2 < segments) == merged,
            "{segments} segments came in {packets} packets"
        );
    }
    Ok(())
}

#[test]
fn a_failing_command_is_named_with_what_it_printed() {
    let error = shell::capture(Command::new("sh").args(["-c", "echo why >&2; exit 3"]))
        .map_err(|error| format!("{error:#}"));
    assert_eq!(
        error
            .as_deref()
            .map_err(|text| text.contains("why") && text.contains("sh -c")),
        Err(true)
    );
}
