//! The stage: one lab, one daemon with a service for every scene, and for the scene being played its backends.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, BufReader},
    process::Stdio,
    thread,
};

use anyhow::{Context as _, Result, anyhow, bail};
use serde::Deserialize;
use serde_json::Value;

use super::{
    counts::Tally,
    scenes::{SCENES, Scene},
};
use crate::{
    lab::{self, Daemon, Interface, Lab, Process, Service, Spec},
    shell, workspace,
};

/// As many as the scene with most backends has.
const BACKENDS: usize = 4;
/// Services, and their backends, listen on this port plus the scene's index.
const FIRST_PORT: u16 = 50_051;

/// Seconds without any answer after which a run is given up.
const PATIENCE: u32 = 5;

/// The lab and the daemon in it. Fields are dropped in order: the daemon before the lab.
pub(super) struct Stage {
    daemon: Daemon,
    lab: Lab,
}

impl Stage {
    /// Makes the lab and starts the daemon, all services in mode `l4`.
    pub(super) fn set() -> Result<Self> {
        let lab = Lab::new(&Spec {
            backends: BACKENDS,
            ..Spec::default()
        })?;
        let services = SCENES
            .iter()
            .map(|scene| {
                let port = port(scene)?;
                let backends: Result<Vec<_>> = (0..scene.backends)
                    .map(|backend| lab.backend_address(backend, port))
                    .collect();
                Ok(Service::new(scene.service, lab.service(port), &backends?))
            })
            .collect::<Result<Vec<_>>>()?;
        let interfaces = Interface::all(&lab, "tc", "native");
        let daemon = Daemon::start(&lab, &lab::render(&lab, &interfaces, &services, ""))?;
        Ok(Self { daemon, lab })
    }

    /// Starts the backends of `scene`.
    pub(super) fn enter(&mut self, scene: &'static Scene) -> Result<Cast<'_>> {
        let (port, backends) = self.backends(scene)?;
        Ok(Cast {
            stage: self,
            scene,
            port,
            _backends: backends,
        })
    }

    fn backends(&self, scene: &Scene) -> Result<(u16, Vec<Process>)> {
        let port = port(scene)?;
        let binary = workspace::evenkeel()?;
        let mut backends = Vec::new();
        for (number, namespace) in (1..).zip(self.lab.backends()).take(scene.backends) {
            let address = self.lab.backend_address(number - 1, port)?;
            let mut echo = namespace.command(&binary);
            echo.args(["echo", "--listen", &address.to_string()])
                .args(["--name", &backend_name(number)]);
            let name = format!("{}-{}", scene.service, backend_name(number));
            backends.push(Process::serve(&self.lab, &name, &mut echo)?);
        }
        Ok((port, backends))
    }

    /// Leaves lab, daemon and the backends of all services running; says how to look around.
    pub(super) fn keep(&mut self) -> Result<String> {
        let mut stays = Vec::new();
        let mut services = String::new();
        for scene in &SCENES {
            let address = self.lab.service(port(scene)?);
            services += &format!("\n  {:<12} {address}", scene.service);
            // Those of a scene are gone with it. Without one service the others are worth keeping all the same.
            match self.backends(scene) {
                Ok((_, backends)) => stays.extend(backends),
                Err(error) => services += &format!("  has no backends: {error:#}"),
            }
        }
        self.lab.keep()?;
        stays.iter_mut().for_each(Process::leave);
        self.daemon.process().leave();
        let mut load = self.lab.client().command(workspace::evenkeel()?);
        load.arg("load")
            .arg(format!("http://{}/", self.lab.service(FIRST_PORT)))
            .args(["-c", "1", "-m", "20", "-n", "8000"]);
        Ok(format!(
            "{}\nservices, all in the lab:{services}\nlook around:\n  {}\n  {}",
            self.lab.describe(),
            shell::describe(&load),
            shell::describe(&self.daemon.command(&["pinning"])),
        ))
    }
}

/// The port of the service of `scene`, and of its backends.
fn port(scene: &Scene) -> Result<u16> {
    let index = SCENES
        .iter()
        .position(|other| other.service == scene.service);
    Ok(FIRST_PORT + u16::try_from(index.context("unknown scene")?)?)
}

/// The name of backend `number`, from 1.
pub(super) fn backend_name(number: usize) -> String {
    format!("backend{number}")
}

/// What the load driver reports at the end.
#[derive(Debug, Deserialize)]
pub(super) struct LoadReport {
    pub(super) ok: u64,
    pub(super) failed: u64,
    pub(super) per_backend: BTreeMap<String, u64>,
    pub(super) latency: Latency,
    #[serde(default)]
    pub(super) causes: BTreeMap<String, u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Latency {
    pub(super) p99: u64,
}

/// What the load driver reports once a second.
#[derive(Debug, Deserialize)]
pub(super) struct Tick {
    pub(super) elapsed: f64,
    pub(super) ok: u64,
    pub(super) per_backend: BTreeMap<String, u64>,
    pub(super) latency: Latency,
    pub(super) total_ok: u64,
    pub(super) total_failed: u64,
}

/// The backends of one scene, and what can be asked of them, the kernel and the client.
pub(super) struct Cast<'stage> {
    stage: &'stage mut Stage,
    scene: &'static Scene,
    port: u16,
    _backends: Vec<Process>,
}

impl Cast<'_> {
    /// The scene's service.
    pub(super) fn service(&self) -> &'static str {
        self.scene.service
    }

    /// The daemon's command line; see [`Daemon::cli`].
    pub(super) fn cli(&self, arguments: &[&str]) -> Result<String> {
        self.stage.daemon.cli(arguments)
    }

    /// Starts the daemon anew. Its clean end takes all pins away, so the new one draws another hash seed: what decides
    /// the backend of a flow changes, and nothing else does.
    pub(super) fn draw_hash_seed(&mut self) -> Result<()> {
        let Stage { daemon, lab } = &mut *self.stage;
        daemon.restart(lab)
    }

    /// Requests by backend, in order, from a map by name.
    pub(super) fn in_order(&self, counts: &BTreeMap<String, u64>) -> Vec<u64> {
        (1..=self.scene.backends)
            .map(|number| counts.get(&backend_name(number)).copied().unwrap_or(0))
            .collect()
    }

    /// What the data path counted so far, of the service and of its backends.
    pub(super) fn kernel(&self, unit: Unit) -> Result<Tally> {
        let services = self.stage.daemon.json(&["services"])?;
        let service = find(&services["services"], "name", self.service())?;
        let backends = self.stage.daemon.json(&["backends"])?;
        let per_backend = (0..self.scene.backends)
            .map(|index| {
                let address = self.stage.lab.backend_address(index, self.port)?;
                let backend = find(&backends["backends"], "address", &address.to_string())?;
                unit.read(&backend["counters"])
            })
            .collect::<Result<_>>()?;
        Ok(Tally {
            total: unit.read(&service["counters"])?,
            per_backend,
        })
    }

    /// What the backends served so far. Asked from their own namespaces, so that the question is no traffic.
    pub(super) fn served(&self) -> Result<Tally> {
        let namespaces = self.stage.lab.backends().iter().enumerate();
        let served = namespaces
            .take(self.scene.backends)
            .map(|(index, namespace)| {
                let address = self.stage.lab.backend_address(index, self.port)?;
                let mut curl = namespace.command("curl");
                curl.args(["--silent", "--show-error", "--fail", "--max-time", "5"])
                    .arg(format!("http://{address}/evenkeel/stats"));
                count(
                    &serde_json::from_str(&shell::capture(&mut curl)?)?,
                    "requests",
                )
            })
            .collect::<Result<_>>()?;
        Ok(Tally::summed(served))
    }

    /// Runs the load driver in the client's namespace against the scene's service.
    pub(super) fn load(
        &self,
        arguments: &[&str],
        mut tick: impl FnMut(&Tick) -> Result<()>,
    ) -> Result<LoadReport> {
        let mut command = self.stage.lab.client().command(workspace::evenkeel()?);
        command
            .args(["--json", "load", "--progress", "json"])
            .arg(format!("http://{}/", self.stage.lab.service(self.port)))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.stage.lab.spawn(&mut command)?;
        // Both pipes are read at once: a report is longer than a pipe holds, and the driver would wait for ever.
        let stdout = child.stdout.take();
        let report = thread::spawn(move || stdout.map(io::read_to_string).transpose());
        let mut complaints = String::new();
        let mut silent = 0;
        for line in child
            .stderr
            .take()
            .map(BufReader::new)
            .into_iter()
            .flat_map(BufReader::lines)
        {
            let line = line?;
            let Ok(report) = serde_json::from_str::<Tick>(&line) else {
                complaints += &format!("{line}\n");
                continue;
            };
            silent = if report.ok == 0 { silent + 1 } else { 0 };
            let outcome = if silent < PATIENCE {
                tick(&report)
            } else {
                let log = self.stage.daemon.log().unwrap_or_default();
                Err(anyhow!(
                    "no answer for {PATIENCE} s; the daemon's log:\n{log}"
                ))
            };
            if let Err(error) = outcome {
                child.kill()?;
                child.wait()?;
                return Err(error);
            }
        }
        let printed = report
            .join()
            .map_err(|_| anyhow!("reading the driver's report failed"))??
            .unwrap_or_default();
        let status = child.wait()?;
        // With failed requests the exit status is not 0, and the report tells more than that.
        serde_json::from_str(&printed).with_context(|| {
            format!(
                "{status}, no report: {}\n{complaints}",
                shell::describe(&command)
            )
        })
    }
}

/// What the data path counts requests by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    /// One stream a request.
    Streams,
    /// One flow a request. Flows adopted in the middle do not count: a late packet of a flow that was closed and
    /// forgotten makes one, and nobody asked for anything with it.
    Flows,
}

impl Unit {
    /// As the story calls it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Streams => "streams",
            Self::Flows => "flows",
        }
    }

    fn read(self, counters: &Value) -> Result<u64> {
        match self {
            Self::Streams => count(counters, "streams"),
            Self::Flows => {
                let adopted = count(counters, "flows_adopted")?;
                Ok(count(counters, "flows_opened")?.saturating_sub(adopted))
            }
        }
    }
}

fn find<'list>(list: &'list Value, key: &str, wanted: &str) -> Result<&'list Value> {
    let Some(items) = list.as_array() else {
        bail!("expected a list of things with {key}, got {list}");
    };
    items
        .iter()
        .find(|item| item[key] == wanted)
        .with_context(|| format!("nothing with {key} {wanted} in {list}"))
}

fn count(counters: &Value, field: &str) -> Result<u64> {
    counters[field]
        .as_u64()
        .with_context(|| format!("no count {field} in {counters}"))
}
