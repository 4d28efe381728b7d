//! What balancing flows costs: the CPU that the whole host spends per request, with evenkeel (`nat`, TC hook), with
//! nftables doing the same (DNAT and masquerade), and with no balancer at all (routed).
//!
//! Each has a lab of its own, made once; `h2load -c 10 -m 10` then visits them in turn, so that whatever else
//! happens on the machine happens to all. Client and server run on the same host and are part of the figure: only
//! differences and ratios say something about the balancer.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use super::host::{Stopwatch, idle};
use super::stats::median;
use super::{Context, Outcome};
use crate::{
    lab::{self, Daemon, Interface, Lab, Process, Service, Spec},
    shell,
    term::Progress,
};

/// Visits to each rival.
const ROUNDS: usize = 7;
/// Requests of one visit: about two seconds' work, 200 ticks of the clock that CPU time is counted by.
const REQUESTS: &str = "500000";
const RIVALS: usize = 3;
/// CPUs that a quiet host may spend on its own.
const QUIET: f64 = 0.05;
const PORT: u16 = 8080;

/// One way to get from the client to the server.
struct Rival {
    name: &'static str,
    url: String,
    /// Server, and daemon if any: alive as long as the rival, and dropped before the lab that they run in.
    _running: (Process, Option<Daemon>),
    lab: Lab,
    cpu: Vec<f64>,
    rate: Vec<f64>,
}

pub(super) fn run(_context: &Context) -> Result<Outcome> {
    let mut rivals: [Rival; RIVALS] = [evenkeel()?, nftables()?, direct()?];
    for rival in &rivals {
        visit(rival).with_context(|| format!("warming {} up", rival.name))?;
    }
    let idle = idle()?;
    if idle > QUIET {
        println!(
            "  note: other programs keep {idle:.2} CPUs of this host busy; the figures are worth little"
        );
    }
    let progress = Progress::start("h2load -c 10 -m 10, in turns");
    for round in 1..=ROUNDS {
        progress.note(format!("round {round} of {ROUNDS}"));
        // Nobody always comes first.
        for turn in 0..RIVALS {
            let rival = &mut rivals[(round + turn) % RIVALS];
            let watch = Stopwatch::start()?;
            let (requests, rate) = visit(rival)?;
            rival.cpu.push(watch.stop(idle)? / requests * 1e6);
            rival.rate.push(rate);
        }
    }
    progress.done();
    print(&rivals);
    Ok(Outcome::default())
}

fn print(rivals: &[Rival]) {
    println!(
        "  path                        CPU/request   requests/s   CPU against nftables (median of rounds)"
    );
    for rival in rivals {
        let ratios: Vec<f64> = rival
            .cpu
            .iter()
            .zip(&rivals[1].cpu)
            .map(|(mine, nftables)| mine / nftables)
            .collect();
        println!(
            "  {:<26} {:>8.2} us {:>12.0} {:>10.2}",
            rival.name,
            median(&rival.cpu),
            median(&rival.rate),
            median(&ratios)
        );
    }
}

/// One run of h2load; requests answered, and how many a second.
fn visit(rival: &Rival) -> Result<(f64, f64)> {
    let mut h2load = rival.lab.client().command("h2load");
    h2load.args(["-c", "10", "-m", "10", "-n", REQUESTS, &rival.url]);
    let printed = shell::capture(&mut h2load)?;
    let number = |line: &str, index: usize| -> Option<f64> {
        let line = printed.lines().find(|found| found.starts_with(line))?;
        line.split(", ").nth(index)?.split(' ').next()?.parse().ok()
    };
    let parsed = || Some((number("requests: ", 3)?, number("finished in", 1)?));
    let (succeeded, rate) = parsed().with_context(|| format!("h2load printed:\n{printed}"))?;
    ensure!(
        succeeded.to_string() == REQUESTS,
        "{}: only {succeeded} of {REQUESTS} requests succeeded:\n{printed}",
        rival.name
    );
    Ok((succeeded, rate))
}

/// A lab with one backend that serves one small file.
fn stage(gateway: bool) -> Result<(Lab, Process)> {
    let lab = Lab::new(&Spec {
        backends: 1,
        gateway,
        ..Spec::default()
    })?;
    let root = lab.directory().join("www");
    fs::create_dir(&root)?;
    fs::write(root.join("index.html"), "hello")?;
    let backend = lab.backends().first().context("the lab has no backend")?;
    let mut server = backend.command("nghttpd");
    server
        .arg("--no-tls")
        .arg("-d")
        .arg(&root)
        .arg(PORT.to_string());
    let mut server = Process::start(&lab, "nghttpd", &mut server)?;
    let port = format!(":{PORT:04X} ");
    let sockets = Path::new("/proc")
        .join(server.id().to_string())
        .join("net/tcp");
    server.wait_until("it listened", || {
        fs::read_to_string(&sockets).is_ok_and(|sockets| sockets.contains(&port))
    })?;
    Ok((lab, server))
}

fn rival(
    name: &'static str,
    url: String,
    lab: Lab,
    server: Process,
    daemon: Option<Daemon>,
) -> Rival {
    Rival {
        name,
        url,
        lab,
        _running: (server, daemon),
        cpu: Vec::new(),
        rate: Vec::new(),
    }
}

fn evenkeel() -> Result<Rival> {
    let (lab, server) = stage(false)?;
    let service = Service::new("web", lab.service(PORT), &[lab.backend_address(0, PORT)?]);
    let config = lab::render(&lab, &Interface::all(&lab, "tc", "native"), &[service], "");
    let daemon = Daemon::start(&lab, &config)?;
    let url = format!("http://{}/", lab.service(PORT));
    Ok(rival("evenkeel nat, TC", url, lab, server, Some(daemon)))
}

fn nftables() -> Result<Rival> {
    let (lab, server) = stage(false)?;
    let (service, backend) = (lab.service(PORT), lab.backend_address(0, PORT)?);
    let rules = format!(
        "table ip nat {{\n\
         chain prerouting {{\ntype nat hook prerouting priority -100;\n\
         ip daddr {} tcp dport {PORT} dnat to {backend}\n}}\n\
         chain postrouting {{\ntype nat hook postrouting priority 100;\n\
         oifname \"b1\" masquerade\n}}\n}}\n",
        service.ip()
    );
    let mut nft: Command = lab.balancer().command("nft");
    shell::feed(nft.args(["-f", "-"]), &rules)?;
    let url = format!("http://{service}/");
    Ok(rival("nftables DNAT, masquerade", url, lab, server, None))
}

fn direct() -> Result<Rival> {
    let (lab, server) = stage(true)?;
    let url = format!("http://{}/", lab.backend_address(0, PORT)?);
    Ok(rival("routed, no balancer", url, lab, server, None))
}
