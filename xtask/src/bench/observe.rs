//! What observing costs, and whether it is right: `evenkeel observe` on a host where HAProxy balances flows.
//!
//! h2load sends 50,000 requests a second through HAProxy (mode tcp, round robin) to four echo backends, ten
//! connections of ten streams each. In turns nobody observes, the interfaces towards the backends are observed, and all
//! of them are, which sees every request twice. The cost is what the kernel says that the programs ran and what the
//! process used, after it was attached; beside it, what the whole host spent per request. Right is what the backends
//! say when they end.

mod figures;

use std::{collections::BTreeMap, fs, net::SocketAddr};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::{
    Context, Outcome,
    host::{Stopwatch, idle},
};
use crate::{
    lab::{Lab, Namespace, Process, Spec},
    shell,
    term::Progress,
    workspace,
};

/// Requests a second, over all connections: what the goal is about.
const RATE: u32 = 50_000;
/// Connections; they do not divide evenly, so that there is a skew to be right about.
const CONNECTIONS: u32 = 10;
const BACKENDS: usize = 4;
const PORT: u16 = 50051;
const PROXY_PORT: u16 = 8080;
/// Most of one processor, in percent.
const GOAL_SHARE: f64 = 2.0;
/// Most that the hot factor and the share of any backend may be off, in percent.
const GOAL_SKEW: f64 = 1.0;

/// What is observed in a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Nothing,
    Backends,
    Everything,
}

impl Turn {
    const ALL: [Self; 3] = [Self::Nothing, Self::Backends, Self::Everything];

    fn label(self) -> &'static str {
        match self {
            Self::Nothing => "not observed",
            Self::Backends => "towards the backends",
            Self::Everything => "both sides of the proxy",
        }
    }

    /// Interfaces of the balancer.
    fn interfaces(self) -> &'static [&'static str] {
        match self {
            Self::Nothing => &[],
            Self::Backends => &["b1", "b2", "b3", "b4"],
            Self::Everything => &["client", "b1", "b2", "b3", "b4"],
        }
    }
}

/// What the turns of one kind showed, one entry a round.
#[derive(Debug, Default)]
struct Seen {
    /// Requests a second.
    rate: Vec<f64>,
    /// CPU of the whole host, microseconds a request.
    host: Vec<f64>,
    /// The programs, nanoseconds a request.
    programs: Vec<f64>,
    /// The process, milliseconds a second.
    process: Vec<f64>,
    /// Programs and process at [`RATE`], percent of one processor.
    share: Vec<f64>,
    /// How far the hot factor is from the backends' counts, percent.
    skew: Vec<f64>,
    /// How far the share of a backend is from its own count, of the one that is furthest off, percent.
    furthest: Vec<f64>,
    /// Streams that were timed, percent.
    timed: Vec<f64>,
}

pub(super) fn run(context: &Context) -> Result<Outcome> {
    let lab = Lab::new(&Spec {
        backends: BACKENDS,
        ..Spec::default()
    })?;
    let _haproxy = haproxy(&lab)?;
    let requests = context.choose(200_000, 50_000);
    let rounds = context.choose(9, 3);
    let progress = Progress::start("h2load through HAProxy, observed and not, in turns");
    let idle = idle()?;
    let mut seen = Turn::ALL.map(|turn| (turn, Seen::default()));
    for round in 0..rounds {
        progress.note(format!("round {} of {rounds}", round + 1));
        for place in 0..seen.len() {
            // Nobody always comes first.
            let (turn, seen) = &mut seen[(round + place) % Turn::ALL.len()];
            visit(&lab, *turn, requests, idle, seen)
                .with_context(|| format!("{}, round {}", turn.label(), round + 1))?;
        }
    }
    progress.done();
    Ok(figures::outcome(&seen))
}

fn haproxy(lab: &Lab) -> Result<Process> {
    let mut config = format!(
        "global\n  nbthread 1\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         frontend service\n  bind {}\n  default_backend servers\nbackend servers\n  balance roundrobin\n",
        lab.service(PROXY_PORT)
    );
    for index in 0..BACKENDS {
        let address = lab.backend_address(index, PORT)?;
        config.push_str(&format!("  server b{} {address}\n", index + 1));
    }
    let file = lab.directory().join("haproxy.cfg");
    fs::write(&file, config)?;
    let mut command = lab.balancer().command("haproxy");
    let mut process = Process::start(lab, "haproxy", command.arg("-db").arg("-f").arg(file))?;
    let sockets = format!("/proc/{}/net/tcp", process.id());
    let port = format!(":{PROXY_PORT:04X} ");
    process.wait_until("it listened", || {
        fs::read_to_string(&sockets).is_ok_and(|sockets| sockets.contains(&port))
    })?;
    Ok(process)
}

/// One run of h2load, with fresh backends, whose counts are then of this run alone.
fn visit(lab: &Lab, turn: Turn, requests: u32, idle: f64, seen: &mut Seen) -> Result<()> {
    let backends = lab.backends().iter().enumerate();
    let echoes = backends
        .map(|(index, namespace)| echo(lab, namespace, lab.backend_address(index, PORT)?, index))
        .collect::<Result<Vec<_>>>()?;
    let observer = match turn.interfaces() {
        [] => None,
        interfaces => Some(observe(lab, interfaces)?),
    };
    let watch = Stopwatch::start()?;
    let rate = h2load(lab, requests)?;
    let spent = watch.stop(idle)?;
    seen.rate.push(rate);
    seen.host.push(spent / f64::from(requests) * 1e6);
    let observed = observer.map(finish).transpose()?;
    let mut served = BTreeMap::new();
    for (index, mut echo) in echoes.into_iter().enumerate() {
        echo.stop()?;
        let stats: Value = serde_json::from_str(&echo.output()?)?;
        let streams = stats["streams"].as_u64().context("streams")?;
        served.insert(lab.backend_address(index, PORT)?.to_string(), streams);
    }
    match observed {
        Some((report, cost)) => seen.take(&report, &cost, &served, f64::from(requests)),
        None => Ok(()),
    }
}

fn echo(lab: &Lab, namespace: &Namespace, address: SocketAddr, index: usize) -> Result<Process> {
    let name = format!("b{}", index + 1);
    let mut command = namespace.command(workspace::evenkeel()?);
    command.args(["echo", "--listen", &address.to_string(), "--name", &name]);
    start(lab, &name, &mut command, "listening on")
}

fn observe(lab: &Lab, interfaces: &[&str]) -> Result<Process> {
    let mut command = lab.balancer().command(workspace::evenkeel()?);
    command
        .args(["--json", "observe", "--cost"])
        .args(interfaces);
    start(lab, "observe", &mut command, "observing ")
}

/// Starts a program that says `ready` on standard error; what an earlier one of the name said is gone.
fn start(
    lab: &Lab,
    name: &str,
    command: &mut std::process::Command,
    ready: &str,
) -> Result<Process> {
    let _ = fs::remove_file(lab.directory().join(format!("{name}.log")));
    let mut process = Process::start(lab, name, command)?;
    let log = process.log_path().to_owned();
    process.wait_until("it was ready", || {
        fs::read_to_string(&log).is_ok_and(|log| log.contains(ready))
    })?;
    Ok(process)
}

/// Ends the observer: its report, and what it cost.
fn finish(mut observer: Process) -> Result<(Value, Value)> {
    let status = observer.stop()?;
    let log = observer.log()?;
    ensure!(status.success(), "observe: {log}");
    let cost = log.lines().last().context("observe said nothing")?;
    Ok((
        serde_json::from_str(&observer.output()?).context("the report")?,
        serde_json::from_str(cost).with_context(|| format!("observe said {cost}"))?,
    ))
}

/// At [`RATE`] over all connections; requests a second.
fn h2load(lab: &Lab, requests: u32) -> Result<f64> {
    let mut h2load = lab.client().command("h2load");
    h2load.args([
        format!("--clients={CONNECTIONS}"),
        "--max-concurrent-streams=10".to_owned(),
        format!("--rps={}", RATE / CONNECTIONS),
        format!("--requests={requests}"),
    ]);
    let url = format!("http://{}/", lab.service(PROXY_PORT));
    let printed = shell::capture(h2load.arg(url))?;
    ensure!(
        printed.contains(&format!(" {requests} succeeded")),
        "not all of {requests} requests succeeded:\n{printed}"
    );
    let finished = printed.lines().find(|line| line.starts_with("finished in"));
    finished
        .and_then(|line| line.split(", ").nth(1)?.split(' ').next()?.parse().ok())
        .with_context(|| format!("h2load printed:\n{printed}"))
}

impl Seen {
    fn take(
        &mut self,
        report: &Value,
        cost: &Value,
        served: &BTreeMap<String, u64>,
        requests: f64,
    ) -> Result<()> {
        let number = |key: &str| cost[key].as_f64().with_context(|| key.to_owned());
        let programs = number("program_nanoseconds")? / requests;
        let process = number("process_nanoseconds")? / number("seconds")?;
        self.programs.push(programs);
        self.process.push(process / 1e6);
        self.share
            .push((programs * f64::from(RATE) + process) / 1e9 * 100.0);
        let groups = report["groups"].as_array().context("groups")?;
        let group = groups.iter().find(|group| group["port"] == PORT);
        let group = group.with_context(|| format!("no group: {report}"))?;
        let most = served.values().max().copied().unwrap_or(0) as f64;
        let truth = most * BACKENDS as f64 / served.values().sum::<u64>().max(1) as f64;
        let hot = group["hot_factor"].as_f64().context("hot_factor")?;
        self.skew.push((hot / truth - 1.0).abs() * 100.0);
        let peers = group["peers"].as_array().context("peers")?;
        self.furthest.push(figures::furthest(peers, served)?);
        let timed = peers
            .iter()
            .filter_map(|peer| peer["latency"]["count"].as_f64());
        self.timed.push(timed.sum::<f64>() / requests * 100.0);
        Ok(())
    }
}
