//! One client and one server without a balancer: how late the slowest requests are, on a clean link and on a lossy one.

use std::{net::Ipv4Addr, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::Protocol;
use crate::{
    bench::websocket::holder::Holder,
    build,
    lab::{Lab, Process, RelaySpec, Spec},
    shell, workspace,
};

/// Milliseconds there and back.
pub(super) const RTT: u64 = 50;
/// Share of packets that the lossy link loses, in each direction.
pub(super) const LOSS: f64 = 0.01;
/// Requests a second.
pub(super) const RATE: u32 = 100;
const HTTP: u16 = 8443;
const GRPC: u16 = 8100;
const SESSIONS: u16 = 8200;
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 2);

/// Fields are dropped in order: programs before the lab.
pub(super) struct Link {
    _servers: Vec<Process>,
    peer: PathBuf,
    certificate: PathBuf,
    lab: Lab,
    next: u32,
}

fn relay(loss: f64, seed: u64) -> RelaySpec {
    RelaySpec {
        loss,
        delay: Duration::from_micros(RTT * 500),
        rate: Some(100_000_000),
        queue: 256,
        seed,
    }
}

impl Link {
    pub(super) fn set() -> Result<Self> {
        let peer = build::bench_peer()?;
        let lab = Lab::new(&Spec {
            backends: 1,
            relay: Some(relay(0.0, 0)),
            gateway: true,
            ..Spec::default()
        })?;
        let backend = lab.backends().first().context("the lab has no backend")?;
        lab.client()
            .ip(&["route replace default via 10.78.0.1 congctl cubic"])?;
        backend.ip(&["route replace default via 10.77.1.1 congctl cubic"])?;
        for namespace in [lab.client(), backend] {
            // Otherwise a visit begins with the window that the one before ended with.
            namespace.sysctl("ipv4/tcp_no_metrics_save", "1")?;
        }
        let certificate = lab.directory().join("certificate.der");
        let at = |port| Ok::<_, anyhow::Error>(lab.backend_address(0, port)?.to_string());
        let mut serve = backend.command(&peer);
        serve
            .args(["serve", "--listen", &at(HTTP)?, "--certificate"])
            .arg(&certificate);
        let mut sessions = backend.command(&peer);
        sessions.args(["sessions", "--name", "b1", "--listen", &at(SESSIONS)?]);
        let mut echo = backend.command(workspace::evenkeel()?);
        echo.args(["echo", "--name", "b1", "--listen", &at(GRPC)?]);
        let mut servers = Vec::new();
        for (name, command) in [
            ("serve", &mut serve),
            ("sessions", &mut sessions),
            ("echo", &mut echo),
        ] {
            servers.push(Process::serve(&lab, name, command)?);
        }
        Ok(Self {
            _servers: servers,
            peer,
            certificate,
            lab,
            next: 0,
        })
    }

    /// p99 of 1 KB answers (or messages) at a fixed rate, milliseconds, over one connection (HTTP/1.1: as many as it
    /// takes).
    pub(super) fn visit(
        &mut self,
        protocol: Protocol,
        loss: f64,
        seed: u64,
        duration: Duration,
    ) -> Result<f64> {
        self.lab.relay()?.reshape(&relay(loss, seed));
        match protocol {
            Protocol::Http1 => self.fetch("http1", 64, duration),
            Protocol::Http2 => self.fetch("http2", 1, duration),
            Protocol::Http3 => self.fetch("http3", 1, duration),
            Protocol::Grpc => self.grpc(duration),
            Protocol::WebSocket => {
                let target = self.lab.backend_address(0, SESSIONS)?;
                self.next += 1;
                let from = (CLIENT, self.next);
                let mut holder = Holder::start_from_one(&self.lab, &self.peer, target, 1, from)?;
                holder.settle(1)?;
                Ok(p99(holder.echo(RATE, duration)?))
            }
        }
    }

    fn fetch(&self, version: &str, connections: u32, duration: Duration) -> Result<f64> {
        let mut fetch = self.lab.client().command(&self.peer);
        fetch
            .arg("fetch")
            .arg(self.lab.backend_address(0, HTTP)?.to_string())
            .args(["--version", version, "--rate", &RATE.to_string()])
            .args(["--connections", &connections.to_string()])
            .args(["--duration", &format!("{}ms", duration.as_millis())])
            .arg("--certificate")
            .arg(&self.certificate);
        let report = json(&mut fetch)?;
        let latencies = report["latencies"].as_array().context("latencies")?;
        Ok(p99(latencies.iter().filter_map(Value::as_u64).collect()))
    }

    fn grpc(&self, duration: Duration) -> Result<f64> {
        let mut load = self.lab.client().command(workspace::evenkeel()?);
        load.args(["--json", "load", "--progress", "none", "--grpc", "unary"])
            .arg(format!("http://{}/", self.lab.backend_address(0, GRPC)?))
            .args(["-m", "1000", "--payload", "1024"])
            .args(["--rate", &RATE.to_string(), "--warm-up", "300ms"])
            .args(["--duration", &format!("{}ms", duration.as_millis())]);
        let report = json(&mut load)?;
        let p99 = report["latency"]["p99"].as_f64().context("latency.p99")?;
        Ok(p99 / 1e3)
    }
}

fn json(command: &mut Command) -> Result<Value> {
    let printed = shell::capture(command)?;
    serde_json::from_str(&printed)
        .with_context(|| format!("no JSON from {}: {printed}", shell::describe(command)))
}

/// Milliseconds that 99 in 100 of `micros` stay below.
fn p99(mut micros: Vec<u64>) -> f64 {
    micros.sort_unstable();
    let at = (micros.len() * 99 / 100).min(micros.len().saturating_sub(1));
    micros
        .get(at)
        .map_or(f64::NAN, |micros| *micros as f64 / 1e3)
}
