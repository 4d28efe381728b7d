//! A client and a server with a link of a given length between them, and one visit.

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::{
    build,
    lab::{Lab, Passed, Process, RelaySpec, Spec},
    shell,
};

/// What the link carries, bits a second: so that a download takes a while, and loss limits it before the link does.
pub(super) const RATE: u64 = 100_000_000;
/// Packets that wait for the link at most: 31 ms of full packets.
pub(super) const QUEUE: usize = 256;
/// Small requests a second, and the bytes of their answers.
pub(super) const SMALL: (u32, u32) = (100, 1024);
/// Bytes of a download.
pub(super) const DOWNLOAD: u64 = 10_000_000;
/// Most connections of HTTP/1.1.
const HTTP1_CONNECTIONS: usize = 64;
/// How long the last answers are waited for.
const GRACE: Duration = Duration::from_secs(1);
const PORT: u16 = 8443;

/// How the requests travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// HTTP/1.1: one request at a time on a connection, another connection for the next.
    Http1,
    /// HTTP/2 over so many connections; the download has the first for itself and its share of the small ones.
    Http2(usize),
    /// HTTP/3 over one connection.
    Http3,
}

impl Way {
    pub(super) fn name(self) -> String {
        match self {
            Self::Http1 => "HTTP/1.1".to_owned(),
            Self::Http2(connections) => format!("HTTP/2 x{connections}"),
            Self::Http3 => "HTTP/3".to_owned(),
        }
    }
}

/// What one visit showed.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Visit {
    /// Microseconds of every small request.
    pub(super) latencies: Vec<u64>,
    /// Small requests without an answer at the end.
    pub(super) unfinished: u64,
    /// Small requests that failed.
    pub(super) failed: u64,
    /// Bytes of all downloads, the last and incomplete one included.
    pub(super) downloaded: u64,
    /// Seconds that they had.
    pub(super) seconds: f64,
    /// Connections made.
    pub(super) connections: u64,
    /// What the losses came from: visits of one round have it in common.
    #[serde(skip)]
    pub(super) seed: u64,
    /// What the link did to the packets, there and back.
    #[serde(skip)]
    pub(super) passed: [Passed; 2],
    /// How many of so many packets the schedules lose.
    #[serde(skip)]
    pub(super) scheduled: u64,
}

impl Visit {
    /// The latency that a share of `quantile` stays below, milliseconds.
    pub(super) fn quantile(&self, quantile: f64) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let at = (sorted.len() as f64 * quantile) as usize;
        let found = sorted.get(at.min(sorted.len().saturating_sub(1)));
        found.map_or(f64::NAN, |micros| *micros as f64 / 1e3)
    }

    /// Megabits a second of the downloads.
    pub(super) fn goodput(&self) -> f64 {
        self.downloaded as f64 * 8.0 / self.seconds / 1e6
    }
}

/// A lab whose link has a round-trip time of its own.
pub(super) struct Stage {
    /// Milliseconds.
    pub(super) rtt: u64,
    peer: PathBuf,
    certificate: PathBuf,
    /// Alive as long as the stage, and dropped before the lab that it runs in.
    _server: Process,
    lab: Lab,
}

impl Stage {
    pub(super) fn set(rtt: u64) -> Result<Self> {
        let peer = build::bench_peer()?;
        let lab = Lab::new(&Spec {
            backends: 1,
            relay: Some(link(rtt, 0.0, 0)),
            gateway: true,
            ..Spec::default()
        })?;
        let backend = lab.backends().first().context("the lab has no backend")?;
        pin(&lab)?;
        let certificate = lab.directory().join("certificate.der");
        let mut serve = backend.command(&peer);
        serve.args([
            "serve",
            "--listen",
            &lab.backend_address(0, PORT)?.to_string(),
        ]);
        serve.arg("--certificate").arg(&certificate);
        let server = Process::serve(&lab, "serve", &mut serve)?;
        Ok(Self {
            rtt,
            peer,
            certificate,
            _server: server,
            lab,
        })
    }

    /// Small requests beside downloads for `duration`, over a link that loses a share of `loss`.
    pub(super) fn visit(
        &self,
        way: Way,
        loss: f64,
        seed: u64,
        duration: Duration,
    ) -> Result<Visit> {
        let link = link(self.rtt, loss, seed);
        self.lab.relay()?.reshape(&link);
        let (version, connections) = match way {
            Way::Http1 => ("http1", HTTP1_CONNECTIONS),
            Way::Http2(connections) => ("http2", connections),
            Way::Http3 => ("http3", 1),
        };
        let mut fetch: Command = self.lab.client().command(&self.peer);
        fetch
            .arg("fetch")
            .arg(self.lab.backend_address(0, PORT)?.to_string())
            .args(["--version", version])
            .args(["--connections", &connections.to_string()])
            .args(["--rate", &SMALL.0.to_string()])
            .args(["--small", &SMALL.1.to_string()])
            .args(["--download", &DOWNLOAD.to_string()])
            .args(["--duration", &format!("{}ms", duration.as_millis())])
            .args(["--grace", &format!("{}ms", GRACE.as_millis())])
            .arg("--certificate")
            .arg(&self.certificate);
        let printed = shell::capture(&mut fetch)?;
        let mut visit: Visit = serde_json::from_str(&printed).context("what bench-peer printed")?;
        visit.seed = seed;
        visit.passed = self.lab.relay()?.passed();
        visit.scheduled = link
            .schedules()
            .iter()
            .zip(&visit.passed)
            .map(|(schedule, passed)| (0..passed.packets).filter(|n| schedule.loses(*n)).count())
            .sum::<usize>() as u64;
        Ok(visit)
    }
}

/// The link of a stage; half of the round trip in each direction.
fn link(rtt: u64, loss: f64, seed: u64) -> RelaySpec {
    RelaySpec {
        loss,
        delay: Duration::from_micros(rtt * 500),
        rate: Some(RATE),
        queue: QUEUE,
        seed,
    }
}

/// What must be the same for every visit, whatever the host's defaults are.
fn pin(lab: &Lab) -> Result<()> {
    let backend = lab.backends().first().context("the lab has no backend")?;
    lab.client()
        .ip(&["route replace default via 10.78.0.1 congctl cubic"])?;
    backend.ip(&["route replace default via 10.77.1.1 congctl cubic"])?;
    for namespace in [lab.client(), backend] {
        // Otherwise a visit begins with the window that the one before ended with.
        namespace.sysctl("ipv4/tcp_no_metrics_save", "1")?;
        // Otherwise small answers wait behind megabytes of the download in the server's own socket.
        namespace.sysctl("ipv4/tcp_notsent_lowat", "131072")?;
        // Windows that limit nothing, as those of HTTP/2 and QUIC here.
        namespace.sysctl("ipv4/tcp_rmem", "'4096 131072 16777216'")?;
        namespace.sysctl("ipv4/tcp_wmem", "'4096 131072 16777216'")?;
    }
    Ok(())
}
