//! What balancing streams costs: the CPU that the proxy itself spends per request, requests a second, and how late its
//! slowest requests are, with evenkeel, HAProxy, nginx (`grpc_pass`) and nghttpx: HTTP/2 on both sides, one worker or
//! thread each.
//!
//! `h2load -c 10 -m 10` fetches a 5-byte file through each in turn, over the loopback of a namespace: no network is
//! between them, so that what differs is the proxies. The load is closed: a rival that answers sooner gets more to do.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use nix::{
    time::{ClockId, clock_getcpuclockid},
    unistd::Pid,
};

use super::super::{
    Context, Outcome,
    result::{Axis, Column, Measured, Plot, PlotKind, Point, Row, Series, Table},
};
use super::{
    configure,
    contest::{Contestant, contest, rounds},
    failure,
    h2load::Load,
    serve, wait_for_listener,
};
use crate::{
    lab::{Lab, Process, Spec},
    setup::peers,
    workspace,
};

/// Indices of the figures of a visit.
const CPU: usize = 0;
const RATE: usize = 1;
const P50: usize = 2;
const P99: usize = 3;

/// Most CPU that evenkeel may spend, as a multiple of HAProxy's.
const GOAL_CPU: f64 = 1.2;
/// Largest p99 that evenkeel may have, likewise.
const GOAL_P99: f64 = 1.0;
/// Rounds of a full run: many short ones, as a p99 of 2 ms becomes one of 10 ms where somebody else has a processor for a moment. With nine of
/// 150,000 requests its interval was 0.79 to 1.38 times HAProxy's.
const ROUNDS: usize = 25;
/// Where the server listens; the proxies have the ports after it.
const SERVER: u16 = 8080;
/// Requests before the first visit.
const WARMING: u32 = 5_000;

/// Who takes part; the first one is measured against the second one.
static PROXIES: [(&str, Start); 4] = [
    ("evenkeel", evenkeel),
    ("HAProxy", haproxy),
    ("nghttpx", nghttpx),
    ("nginx, grpc_pass", nginx),
];

/// Starts a proxy from the first address to the second.
type Start = fn(&Lab, SocketAddr, SocketAddr) -> Result<Process, String>;

/// One that runs.
struct Proxy {
    process: Process,
    url: String,
}

pub(in super::super) fn run(context: &Context) -> Result<Outcome> {
    let lab = Lab::new(&Spec {
        backends: 1,
        ..Spec::default()
    })?;
    let server = SocketAddr::from(([127, 0, 0, 1], SERVER));
    let _server = serve(&lab, lab.balancer(), SERVER)?;
    let log = context.scratch("peers-l7")?.join("h2load.log");
    let requests = context.choose(60_000, 30_000);
    let mut contestants = Vec::new();
    for (index, (label, start)) in PROXIES.iter().enumerate() {
        let port = SERVER + 1 + u16::try_from(index).unwrap_or_default();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let proxy = start(&lab, address, server).and_then(|process| {
            let mut proxy = Proxy {
                process,
                url: format!("http://{address}/index.html"),
            };
            wait_for_listener(&mut proxy.process, port)
                .and_then(|()| visit(&lab, &proxy, WARMING, &log))
                .map_err(|error| failure(&error))?;
            Ok(proxy)
        });
        contestants.push(Contestant::new(label, proxy));
    }
    let counted = contest(
        &mut contestants,
        context.choose(ROUNDS, rounds(context)),
        "h2load -c 10 -m 10 through every proxy",
        |proxy| visit(&lab, proxy, requests, &log),
    )?;
    fs::remove_file(&log).ok();
    let mut outcome = outcome(&contestants, requests);
    outcome.notes.extend(counted.note());
    Ok(outcome)
}

fn visit(lab: &Lab, proxy: &Proxy, requests: u32, log: &Path) -> Result<Vec<f64>> {
    let load = Load::new((10, 10), requests);
    let before = cpu_seconds(&proxy.process)?;
    let seen = load.timed(lab.balancer(), &proxy.url, log)?;
    let cpu = (cpu_seconds(&proxy.process)? - before) / f64::from(requests) * 1e6;
    Ok(vec![cpu, seen.rate, seen.p50, seen.p99])
}

/// CPU that a process and its children have spent, to the nanosecond, threads that have ended included.
fn cpu_seconds(process: &Process) -> Result<f64> {
    let first = i32::try_from(process.id()).context("process id")?;
    let mut family = vec![first];
    let mut spent = 0.0;
    while let Some(member) = family.pop() {
        let time = clock_getcpuclockid(Pid::from_raw(member)).and_then(ClockId::now);
        match time {
            Ok(time) => spent += std::time::Duration::from(time).as_secs_f64(),
            // A child that ended meanwhile is no loss; the proxy itself would be.
            Err(error) if member == first => return Err(error).context("the proxy is gone"),
            Err(_) => {}
        }
        // Threads fork, too, and the children are listed by thread: see proc_pid_task_tid_children(5).
        for thread in fs::read_dir(format!("/proc/{member}/task"))
            .into_iter()
            .flatten()
        {
            let children = fs::read_to_string(thread?.path().join("children"));
            family.extend(
                children
                    .unwrap_or_default()
                    .split_whitespace()
                    .filter_map(|child| child.parse::<i32>().ok()),
            );
        }
    }
    Ok(spent)
}

fn evenkeel(lab: &Lab, service: SocketAddr, backend: SocketAddr) -> Result<Process, String> {
    let start = || {
        let mut proxy = lab.balancer().command(workspace::evenkeel()?);
        proxy
            .args(["proxy", "--workers", "1", "--policy", "round_robin"])
            .args(["--listen", &service.to_string()])
            .args(["--backend", &backend.to_string()]);
        Process::start(lab, "evenkeel-proxy", &mut proxy)
    };
    start().map_err(|error| failure(&error))
}

fn haproxy(lab: &Lab, service: SocketAddr, backend: SocketAddr) -> Result<Process, String> {
    let config = include_str!("config/haproxy-h2.cfg");
    rival(
        lab,
        "haproxy",
        config,
        service,
        backend,
        |command, config| {
            command.arg("-db").arg("-f").arg(config);
        },
    )
}

fn nginx(lab: &Lab, service: SocketAddr, backend: SocketAddr) -> Result<Process, String> {
    let config = include_str!("config/nginx-grpc.conf");
    rival(lab, "nginx", config, service, backend, |command, config| {
        command.args(["-e", "stderr", "-c"]).arg(config);
    })
}

fn nghttpx(lab: &Lab, service: SocketAddr, backend: SocketAddr) -> Result<Process, String> {
    let config = include_str!("config/nghttpx.conf");
    rival(
        lab,
        "nghttpx",
        config,
        service,
        backend,
        |command, config| {
            command.arg(format!("--conf={}", config.display()));
        },
    )
}

/// A program with its configuration, if it is on this machine.
fn rival(
    lab: &Lab,
    program: &str,
    template: &str,
    service: SocketAddr,
    backend: SocketAddr,
    arguments: impl FnOnce(&mut Command, PathBuf),
) -> Result<Process, String> {
    if let Some(what) = peers::missing(program) {
        return Err(what);
    }
    let comma = |address: SocketAddr| format!("{},{}", address.ip(), address.port());
    let values = [
        ("service", service.to_string()),
        ("backend", backend.to_string()),
        ("service_comma", comma(service)),
        ("backend_comma", comma(backend)),
        ("directory", lab.directory().display().to_string()),
    ];
    let values = values
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let start = || {
        let config = configure(lab, &format!("{program}.conf"), template, &values)?;
        let mut command = lab.balancer().command(program);
        arguments(&mut command, config);
        Process::start(lab, program, &mut command)
    };
    start().map_err(|error| failure(&error))
}

fn outcome(contestants: &[Contestant<Proxy>], requests: u32) -> Outcome {
    let mut outcome = Outcome::default();
    if let [ours, haproxy, ..] = contestants {
        outcome.claims = vec![
            ours.claim(haproxy, CPU, "CPU of the proxy per request", GOAL_CPU),
            ours.claim(haproxy, P99, "p99", GOAL_P99),
        ];
        outcome.tables.push(table(contestants, haproxy));
    }
    outcome.plots = vec![
        bars(
            contestants,
            "cpu",
            "CPU of the proxy per request",
            "us",
            CPU,
        ),
        bars(
            contestants,
            "p99",
            "The slowest 1 % of requests take at least",
            "us",
            P99,
        ),
    ];
    outcome.notes = vec![
        format!(
            "{requests} requests a visit; the closed load of 100 streams keeps every proxy busy."
        ),
        "CPU is that of the proxy and its worker processes alone.".to_owned(),
        "Configurations of the rivals, and how they are tuned: xtask/src/bench/peers/config/."
            .to_owned(),
    ];
    outcome
}

fn table(contestants: &[Contestant<Proxy>], haproxy: &Contestant<Proxy>) -> Table {
    let rows = contestants.iter().map(|it| {
        let cells = vec![
            it.cell(CPU),
            it.ratio_cell(haproxy, CPU),
            it.cell(RATE),
            it.cell(P50),
            it.cell(P99),
            it.ratio_cell(haproxy, P99),
        ];
        Row::new(it.label, cells)
    });
    Table {
        id: "proxies".to_owned(),
        title: "HTTP/2 to HTTP/2, 5-byte answers, one worker each".to_owned(),
        of: "proxy".to_owned(),
        columns: vec![
            Column::new("CPU per request", "us", 2),
            Column::new("against HAProxy", "", 2),
            Column::new("requests", "1/s", 0),
            Column::new("p50", "us", 0),
            Column::new("p99", "us", 0),
            Column::new("p99 against HAProxy", "", 2),
        ],
        rows: rows.collect(),
    }
}

fn bars(
    contestants: &[Contestant<Proxy>],
    id: &str,
    title: &str,
    unit: &str,
    index: usize,
) -> Plot {
    let points = contestants.iter().enumerate().filter_map(|(x, it)| {
        Some(Point::measured(
            x as f64,
            &Measured::of(&it.samples(index))?,
        ))
    });
    Plot {
        id: id.to_owned(),
        title: title.to_owned(),
        kind: PlotKind::Bars,
        x: Axis {
            title: "proxy".to_owned(),
            categories: contestants.iter().map(|it| it.label.to_owned()).collect(),
            ..Axis::default()
        },
        y: Axis {
            title: format!("{title} ({unit})"),
            ..Axis::default()
        },
        series: vec![Series {
            name: title.to_owned(),
            points: points.collect(),
        }],
    }
}
