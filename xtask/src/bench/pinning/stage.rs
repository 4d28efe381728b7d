//! The stage: one lab with everything in it that is compared, so that all ways lead to the same ten backends.
//!
//! A backend serves at most [`AT_ONCE`] requests at once, each takes [`SERVICE`] on average, and more wait: it can
//! answer 1,500 requests a second, so that a hot one becomes a slow one. All together they are asked for 6,000 a
//! second, two fifths of what they can do: balanced, nobody waits long; a backend that is 2.5 times as busy as the mean
//! is asked for more than it can answer. The times are waited and not computed, and cost the host next to nothing.

use std::{collections::BTreeMap, fmt::Write as _, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::ways::{Point, Target, port};
use crate::{
    lab::{self, Daemon, Interface, Lab, Process, Service, Spec},
    setup::peers,
    shell, workspace,
};

/// Backends.
pub(super) const BACKENDS: usize = 10;
/// Requests that a backend serves at once.
const AT_ONCE: &str = "6";
/// How long it takes over one: exponentially distributed, as if each were different work.
const SERVICE: &str = "exponential:4ms";
/// Requests per second over all clients.
const RATE: u32 = 6000;

/// Addresses of the client.
const SOURCES: u8 = 32;
/// Requests that start in this time at first are left out of all figures, and most connections are made in it: so much
/// for each client's connection, and at most so much in all.
const WARM_UP: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(1200));
/// Even one connection has to be made.
const LEAST_WARM_UP: Duration = Duration::from_millis(100);

/// The lab, and what runs in it. Fields are dropped in order: programs before the lab.
pub(super) struct Stage {
    _daemon: Daemon,
    _backends: Vec<Process>,
    lab: Lab,
    requests: u32,
    /// `--source` of `evenkeel load`.
    sources: String,
    /// Why nftables balances nothing here.
    hash: Option<String>,
}

/// What `evenkeel load` reports, as far as it is used here.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Visit {
    failed: u64,
    #[serde(default)]
    causes: BTreeMap<String, u64>,
    pub(super) per_backend: BTreeMap<String, u64>,
    pub(super) per_connection: Vec<Connection>,
    pub(super) latency: Latency,
    /// Microseconds, and how many answers took at most so long, and more than the one before.
    pub(super) histogram: Vec<(u64, u64)>,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct Connection {
    pub(super) client: usize,
    /// Its good answers, without those of the warm-up: as many streams, as none failed.
    pub(super) ok: u64,
}

/// Microseconds.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Latency {
    pub(super) p50: u64,
    pub(super) p99: u64,
    pub(super) p999: u64,
}

/// The name of the backend at `index`.
pub(super) fn backend_name(index: usize) -> String {
    format!("b{}", index + 1)
}

impl Stage {
    /// Makes the lab and starts everything; a visit then sends so many requests.
    pub(super) fn set(requests: u32) -> Result<Self> {
        let lab = Lab::new(&Spec {
            backends: BACKENDS,
            // What nftables and the clients themselves balance has nobody else to send the answers back.
            gateway: true,
            ..Spec::default()
        })?;
        let sources = sources(&lab)?;
        let backends = backends(&lab)?;
        let addresses: Vec<_> = (0..BACKENDS)
            .map(|index| lab.backend_address(index, port::MAGLEV))
            .collect::<Result<_>>()?;
        let mut services = vec![Service::new(
            "maglev",
            lab.service(port::MAGLEV),
            &addresses,
        )];
        for (port, policy) in port::L7 {
            services.push(Service {
                mode: "l7".to_owned(),
                policy: policy.to_owned(),
                ..Service::new(policy, lab.service(port), &addresses)
            });
        }
        let interfaces = Interface::all(&lab, "tc", "native");
        let daemon = Daemon::start(&lab, &lab::render(&lab, &interfaces, &services, ""))?;
        let hash = hash(&lab).err().map(|error| {
            let why = peers::missing("nft").unwrap_or_else(|| format!("{error:#}"));
            why.lines().next().unwrap_or_default().to_owned()
        });
        Ok(Self {
            _daemon: daemon,
            _backends: backends,
            lab,
            requests,
            sources,
            hash,
        })
    }

    /// Why nobody can be measured who talks to `target`.
    pub(super) fn missing(&self, target: Target) -> Option<&str> {
        self.hash
            .as_deref()
            .filter(|_| target == Target::Service(port::HASH))
    }

    /// Sends the requests of one visit to `point`.
    pub(super) fn visit(&self, point: &Point, seed: u64) -> Result<Visit> {
        let mut load = self.load(point, seed)?;
        let printed = shell::capture(&mut load)?;
        let visit: Visit = serde_json::from_str(&printed)
            .with_context(|| format!("{} printed:\n{printed}", shell::describe(&load)))?;
        ensure!(
            visit.failed == 0,
            "{} of {} requests failed ({:?}): {}",
            visit.failed,
            self.requests,
            visit.causes,
            shell::describe(&load)
        );
        Ok(visit)
    }

    /// Requests of one client in flight: so many that the backends are what holds a request back, and not so many that
    /// keeping them ready (`evenkeel load` has a task for each) costs the host more than sending them.
    fn at_once(&self, point: &Point) -> u32 {
        (self.requests * 8 / point.clients.max(1)).clamp(50, self.requests.max(50))
    }

    fn load(&self, point: &Point, seed: u64) -> Result<Command> {
        let mut load = self.lab.client().command(workspace::evenkeel()?);
        load.args(["--json", "load", "--progress", "none"]);
        match point.way.target {
            Target::Service(port) => {
                load.arg(format!("http://{}/", self.lab.service(port)));
            }
            Target::Backends => {
                let addresses =
                    (0..BACKENDS).map(|index| self.lab.backend_address(index, port::MAGLEV));
                let addresses: Vec<String> = addresses
                    .map(|address| Ok(address?.to_string()))
                    .collect::<Result<_>>()?;
                load.args(["--to", &addresses.join(",")]);
            }
        }
        load.args(["--balance", point.way.balance])
            .args(["--weights", point.weights.name()])
            .args(["-c", &point.clients.to_string()])
            .args(["-m", &self.at_once(point).to_string()])
            .args(["-n", &self.requests.to_string()])
            .args(["--schedule", &format!("const:{RATE}")])
            .args(["--warm-up", &format!("{}ms", warm_up(point).as_millis())])
            .args(["--source", &self.sources])
            .args(["--seed", &seed.to_string()]);
        Ok(load)
    }
}

/// Gives the client more addresses. A thousand clients with pools leave ten thousands of ports in TIME-WAIT; where few of
/// one address are left, it matters which backends the hash sends those to, and connections do not land by chance any
/// more: a hot factor of 2 was seen where 1.15 was to be expected.
fn sources(lab: &Lab) -> Result<String> {
    let addresses: Vec<String> = (1..=SOURCES)
        .map(|host| format!("10.77.0.{}", 100 + host))
        .collect();
    let commands: Vec<String> = addresses
        .iter()
        .map(|address| format!("addr add {address}/24 dev eth0"))
        .collect();
    let commands: Vec<&str> = commands.iter().map(String::as_str).collect();
    lab.client().ip(&commands)?;
    Ok(addresses.join(","))
}

fn warm_up(point: &Point) -> Duration {
    let (each, most) = WARM_UP;
    (LEAST_WARM_UP + each * point.clients * point.way.connections).min(most)
}

fn backends(lab: &Lab) -> Result<Vec<Process>> {
    let binary = workspace::evenkeel()?;
    let mut started = Vec::new();
    for (index, namespace) in lab.backends().iter().enumerate() {
        let address = lab.backend_address(index, port::MAGLEV)?.to_string();
        let mut echo = namespace.command(&binary);
        echo.args(["echo", "--listen", &address, "--name", &backend_name(index)])
            .args(["--capacity", AT_ONCE, "--service-time", SERVICE]);
        started.push(Process::serve(lab, &backend_name(index), &mut echo)?);
    }
    Ok(started)
}

/// A plain hash of address and port, modulo the number of backends: what nftables does by itself.
fn hash(lab: &Lab) -> Result<()> {
    let service = lab.service(port::HASH);
    let mut map = String::new();
    for index in 0..BACKENDS {
        let backend = lab.backend_address(index, port::MAGLEV)?;
        let _ = write!(map, "{index} : {} . {}, ", backend.ip(), backend.port());
    }
    shell::feed(
        lab.balancer().command("nft").args(["-f", "-"]),
        &format!(
            "table ip pinning {{\nchain prerouting {{\ntype nat hook prerouting priority dstnat;\n\
             ip daddr {} tcp dport {} dnat to jhash ip saddr . tcp sport mod {BACKENDS} map {{ {map} }}\n}}\n}}\n",
            service.ip(),
            service.port()
        ),
    )
}
