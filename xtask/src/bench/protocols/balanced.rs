//! One client behind evenkeel: how evenly its requests land on four backends at L4 and at L7, and what the proxy's CPU
//! costs.

use std::{net::Ipv4Addr, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::Protocol;
use crate::{
    bench::{
        probe,
        stats::{fairness, median},
        websocket::holder::Holder,
    },
    build,
    lab::{self, Daemon, Interface, Lab, Process, Service, Spec},
    shell, workspace,
};

/// Backends of every service.
const BACKENDS: usize = 4;
/// Ports of the backends and of the services at L4; those at L7 are one above.
const HTTP: u16 = 8100;
const SESSIONS: u16 = 8200;
const QUIC: u16 = 8300;
/// Connections of a client of a protocol that carries one request at a time on each.
pub(super) const CONNECTIONS: u32 = 16;
/// HTTP/3 requests a second, for two seconds: its client has no closed loop.
pub(super) const QUIC_RATE: u32 = 500;
/// Where the WebSocket clients come from.
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);

/// What one visit showed.
#[derive(Clone, Debug)]
pub(super) struct Share {
    /// Connections that the client made, and requests on all of them.
    pub(super) connections: f64,
    pub(super) requests: f64,
    /// Jain's index of the requests per backend.
    pub(super) fairness: f64,
    /// Microseconds of evenkeel's CPU for a request.
    pub(super) cost: f64,
}

/// Fields are dropped in order: programs before the lab.
pub(super) struct Balanced {
    daemon: Daemon,
    _servers: Vec<Process>,
    peer: PathBuf,
    /// Whether evenkeel takes a UDP service, at L4 and at L7.
    udp: [bool; 2],
    lab: Lab,
    next: u32,
}

impl Balanced {
    pub(super) fn set() -> Result<Self> {
        let peer = build::bench_peer()?;
        let lab = Lab::new(&Spec {
            backends: BACKENDS,
            ..Spec::default()
        })?;
        let udp = [accepts_udp(&lab, "l4")?, accepts_udp(&lab, "l7")?];
        let mut config = lab::render(
            &lab,
            &Interface::all(&lab, "tc", "native"),
            &[
                service(&lab, HTTP, "l4")?,
                service(&lab, HTTP, "l7")?,
                service(&lab, SESSIONS, "l4")?,
                service(&lab, SESSIONS, "l7")?,
            ],
            "",
        );
        for (mode, _) in ["l4", "l7"]
            .into_iter()
            .zip(udp)
            .filter(|(_, takes)| *takes)
        {
            config.push_str(&udp_service(&lab, mode)?);
        }
        let mut servers = Vec::new();
        for index in 0..BACKENDS {
            servers.extend(serve(&lab, &peer, index)?);
        }
        let daemon = Daemon::start(&lab, &config)?;
        Ok(Self {
            daemon,
            _servers: servers,
            peer,
            udp,
            lab,
            next: 0,
        })
    }

    /// One client of `protocol` at a service of mode `l4` or `l7`; `None` where evenkeel cannot do that yet.
    pub(super) fn visit(
        &mut self,
        protocol: Protocol,
        l7: bool,
        requests: u32,
    ) -> Result<Option<Share>> {
        let above = u16::from(l7);
        let before = self.cpu()?;
        let (connections, requests, loads) = match protocol {
            Protocol::Http1 | Protocol::Http2 | Protocol::Grpc => {
                self.load(protocol, HTTP + above, requests)?
            }
            Protocol::WebSocket => self.messages(SESSIONS + above, requests)?,
            Protocol::Http3 if self.udp[usize::from(l7)] => self.quic(QUIC + above)?,
            Protocol::Http3 => return Ok(None),
        };
        ensure!(requests > 0.0, "nothing was answered");
        Ok(Some(Share {
            connections,
            requests,
            fairness: fairness(&loads),
            cost: (self.cpu()? - before) / requests * 1e6,
        }))
    }

    fn load(&self, protocol: Protocol, port: u16, requests: u32) -> Result<(f64, f64, Vec<f64>)> {
        let mut load = self.lab.client().command(workspace::evenkeel()?);
        let (connections, many) = (CONNECTIONS.to_string(), requests.to_string());
        load.args(["--json", "load", "--progress", "none", "-n", &many])
            .arg(format!("http://{}/", self.lab.service(port)))
            .args(match protocol {
                Protocol::Http1 => vec!["--http1", "-c", &connections],
                Protocol::Grpc => vec!["--grpc", "unary", "-m", &connections],
                _ => vec!["-m", &connections],
            });
        let report = json(&mut load)?;
        let number = |key: &str| report[key].as_f64().context("what evenkeel load reported");
        Ok((
            number("connections")?,
            number("ok")?,
            loads(&report["per_backend"]),
        ))
    }

    fn messages(&mut self, port: u16, requests: u32) -> Result<(f64, f64, Vec<f64>)> {
        let target = self.lab.service(port);
        let from = (CLIENT, self.next);
        self.next += CONNECTIONS;
        let mut holder = Holder::start_from_one(&self.lab, &self.peer, target, CONNECTIONS, from)?;
        let status = holder.settle(CONNECTIONS)?;
        let answered = holder.talk(requests)?.len() as f64;
        let names: Vec<String> = (1..=BACKENDS).map(|number| format!("b{number}")).collect();
        // Each session says as much, so that its backend's share of messages is that of sessions.
        Ok((f64::from(CONNECTIONS), answered, status.sessions(&names)))
    }

    /// By evenkeel's own counters, as nothing else says who answered.
    fn quic(&self, port: u16) -> Result<(f64, f64, Vec<f64>)> {
        let packets = || -> Result<Vec<f64>> {
            let listed = self.daemon.json(&["backends", "--service", &name(port)])?;
            let backends = listed["backends"].as_array().context("backends")?;
            Ok(backends
                .iter()
                .map(|backend| backend["packets"].as_f64().unwrap_or(0.0))
                .collect())
        };
        let before = packets()?;
        let mut fetch = self.lab.client().command(&self.peer);
        fetch
            .args([
                "fetch",
                "--version",
                "http3",
                "--duration",
                "2s",
                "--rate",
                &QUIC_RATE.to_string(),
            ])
            .arg(self.lab.service(port).to_string())
            .arg("--certificate")
            .arg(self.lab.directory().join("certificate-b1.der"));
        let report = json(&mut fetch)?;
        let asked = report["latencies"].as_array().context("latencies")?.len() as f64;
        let count = |what: &str| report[what].as_f64().context("what bench-peer printed");
        let answered = asked - count("unfinished")? - count("failed")?;
        let loads = packets()?
            .iter()
            .zip(before)
            .map(|(now, before)| now - before)
            .collect();
        Ok((count("connections")?, answered, loads))
    }

    /// CPU seconds of evenkeel so far.
    fn cpu(&self) -> Result<f64> {
        self.daemon.cpu_seconds()
    }
}

fn json(command: &mut Command) -> Result<Value> {
    let printed = shell::capture(command)?;
    serde_json::from_str(&printed)
        .with_context(|| format!("no JSON from {}: {printed}", shell::describe(command)))
}

/// Requests of every backend, those that had none included.
fn loads(per_backend: &Value) -> Vec<f64> {
    (1..=BACKENDS)
        .map(|number| per_backend[format!("b{number}")].as_f64().unwrap_or(0.0))
        .collect()
}

fn name(port: u16) -> String {
    format!("s{port}")
}

fn service(lab: &Lab, port: u16, mode: &str) -> Result<Service> {
    let backends = (0..BACKENDS)
        .map(|index| lab.backend_address(index, port))
        .collect::<Result<Vec<_>>>()?;
    let at = port + u16::from(mode == "l7");
    Ok(Service {
        mode: mode.to_owned(),
        ..Service::new(&name(at), lab.service(at), &backends)
    })
}

/// A service for HTTP/3, as text: the lab knows only TCP.
fn udp_service(lab: &Lab, mode: &str) -> Result<String> {
    let at = QUIC + u16::from(mode == "l7");
    let mut text = format!(
        "[[service]]\nname = \"{}\"\naddress = \"{}\"\nprotocol = \"udp\"\nmode = \"{mode}\"\n",
        name(at),
        lab.service(at)
    );
    for index in 0..BACKENDS {
        let backend = lab.backend_address(index, QUIC)?;
        text.push_str(&format!("[[service.backend]]\naddress = \"{backend}\"\n"));
    }
    Ok(text)
}

/// Whether evenkeel knows UDP services.
fn accepts_udp(lab: &Lab, mode: &str) -> Result<bool> {
    let interfaces = Interface::all(lab, "tc", "native");
    let config = lab::render(lab, &interfaces, &[], "") + &udp_service(lab, mode)?;
    probe::accepts(lab, &format!("udp-{mode}"), &config, "service.protocol")
}

fn serve(lab: &Lab, peer: &PathBuf, index: usize) -> Result<[Process; 3]> {
    let backend = lab.backends().get(index).context("no such backend")?;
    let name = format!("b{}", index + 1);
    let at = |port| Ok::<_, anyhow::Error>(lab.backend_address(index, port)?.to_string());
    let mut echo = backend.command(workspace::evenkeel()?);
    echo.args(["echo", "--listen", &at(HTTP)?, "--name", &name]);
    let mut sessions = backend.command(peer);
    sessions.args(["sessions", "--listen", &at(SESSIONS)?, "--name", &name]);
    let mut quic = backend.command(peer);
    quic.args(["serve", "--listen", &at(QUIC)?, "--name", &name])
        .arg("--certificate")
        .arg(lab.directory().join(format!("certificate-{name}.der")));
    let start = |kind: &str, command: &mut Command| -> Result<Process> {
        Process::serve(lab, &format!("{kind}-{name}"), command)
    };
    Ok([
        start("echo", &mut echo)?,
        start("sessions", &mut sessions)?,
        start("quic", &mut quic)?,
    ])
}

/// The middle of what `read` finds in `shares`.
pub(super) fn middle(shares: &[Share], read: fn(&Share) -> f64) -> f64 {
    median(&shares.iter().map(read).collect::<Vec<_>>())
}
