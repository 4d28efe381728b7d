//! The counts of the kernel beside those of the backends.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xtask::shell;

use crate::{PORT, SERVICE, Stage};

/// What a backend says about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// HTTP/2 streams it accepted.
    pub streams: u64,
    /// Streams and HTTP/1.1 requests.
    pub requests: u64,
    /// Connections that carried any.
    pub connections: u64,
}

/// Both sides, by name of backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Streams by backend as the kernel counted them.
    pub kernel: BTreeMap<String, u64>,
    /// Streams of the service as the kernel counted them.
    pub service: u64,
    /// Flows opened, by backend.
    pub flows_opened: BTreeMap<String, u64>,
    /// What the backends served.
    pub served: BTreeMap<String, Served>,
}

/// Reads both sides.
pub fn count(stage: &Stage) -> Result<Counts> {
    let mut counts = Counts {
        kernel: BTreeMap::new(),
        service: 0,
        flows_opened: BTreeMap::new(),
        served: served(stage)?,
    };
    let backends = stage.json(&["backends"])?;
    for backend in backends["backends"].as_array().context("no backends")? {
        let name = name_of(stage, &backend["address"])?;
        counts
            .kernel
            .insert(name.clone(), number(backend, "streams")?);
        counts
            .flows_opened
            .insert(name, number(&backend["counters"], "flows_opened")?);
    }
    let services = stage.json(&["services"])?;
    let service = services["services"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|it| it["name"] == SERVICE);
    counts.service = number(&service.context("no such service")?["counters"], "streams")?;
    Ok(counts)
}

/// Asks every backend, from its own namespace, so that no packet of that passes the balancer.
fn served(stage: &Stage) -> Result<BTreeMap<String, Served>> {
    let mut all = BTreeMap::new();
    for (index, namespace) in stage.lab.backends().iter().enumerate() {
        if index >= stage.echoes.len() {
            break;
        }
        let url = format!(
            "http://{}/evenkeel/stats",
            stage.lab.backend_address(index, PORT)?
        );
        let printed =
            shell::capture(
                namespace
                    .command("curl")
                    .args(["--silent", "--show-error", &url]),
            )?;
        let stats: Value = serde_json::from_str(&printed)?;
        let served = Served {
            streams: number(&stats, "streams")?,
            requests: number(&stats, "requests")?,
            connections: number(&stats, "connections")?,
        };
        all.insert(format!("b{}", index + 1), served);
    }
    Ok(all)
}

fn name_of(stage: &Stage, address: &Value) -> Result<String> {
    for index in 0..stage.lab.backends().len() {
        if *address == stage.lab.backend_address(index, PORT)?.to_string() {
            return Ok(format!("b{}", index + 1));
        }
    }
    Ok(address
        .as_str()
        .context("a backend without address")?
        .to_owned())
}

fn number(value: &Value, key: &str) -> Result<u64> {
    value[key]
        .as_u64()
        .with_context(|| format!("no number `{key}` in {value}"))
}

impl Counts {
    /// Streams by backend as the backends counted them.
    #[must_use]
    pub fn served_streams(&self) -> BTreeMap<String, u64> {
        self.served
            .iter()
            .map(|(name, served)| (name.clone(), served.streams))
            .collect()
    }

    /// The promise of the whole project: what the client opened is what the kernel counted is what the backends
    /// served; in all, and backend by backend.
    pub fn agree_on(&self, streams: u64) -> Result<()> {
        ensure!(
            self.kernel == self.served_streams(),
            "the kernel counted {:?} where the backends served {:?}",
            self.kernel,
            self.served_streams()
        );
        let sum: u64 = self.kernel.values().sum();
        ensure!(
            sum == streams,
            "the client opened {streams} streams, kernel and backends counted {sum}: {self:?}"
        );
        ensure!(
            self.service == streams,
            "the service counted {} of {streams} streams",
            self.service
        );
        Ok(())
    }

    /// Max over mean of the streams by backend.
    #[must_use]
    pub fn hot_factor(&self) -> f64 {
        let most = self.kernel.values().copied().max().unwrap_or(0);
        let sum: u64 = self.kernel.values().sum();
        #[expect(clippy::cast_precision_loss, reason = "a ratio")]
        let factor = (most * self.kernel.len() as u64) as f64 / sum.max(1) as f64;
        factor
    }
}
