//! A lab with WebSocket servers behind services that differ in nothing but what decides the backend, and what happens to
//! them.

use std::{
    net::Ipv4Addr,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::sys::signal::Signal;

use super::holder::Holder;
use crate::{
    bench::{probe, stats},
    build,
    lab::{self, Daemon, Interface, Lab, Process, Service, Spec},
};

/// Servers of each service.
pub(super) const BACKENDS: usize = 4;
/// Sessions, each from an address of its own.
pub(super) const SESSIONS: u32 = 200;
/// The first of their addresses, on the client's own network.
const FIRST: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 10);
/// How evenkeel checks the servers: one that was killed is down after half a second to a whole one, and a tick of the daemon.
pub(super) const CHECKS: &str = r#"{ interval = "500ms", timeout = "500ms", fall = 2, rise = 1 }"#;
/// How long a server that is there again may take to be found: it takes one check.
const FOUND: Duration = Duration::from_secs(30);

/// What decides the backend of a session, in which mode, and the port of the service that has it so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hash {
    pub(super) name: &'static str,
    mode: &'static str,
    port: u16,
}

impl Hash {
    /// In words.
    pub(super) fn describe(self) -> String {
        match self.mode {
            "l4" => self.name.to_owned(),
            mode => format!("{} at {mode}", self.name),
        }
    }

    fn service(self, lab: &Lab) -> Result<Service> {
        let backends = (0..BACKENDS)
            .map(|index| lab.backend_address(index, self.port))
            .collect::<Result<Vec<_>>>()?;
        Ok(Service {
            hash: self.name.to_owned(),
            mode: self.mode.to_owned(),
            health: CHECKS.to_owned(),
            ..Service::new(self.name, lab.service(self.port), &backends)
        })
    }

    /// Whether evenkeel knows it.
    fn is_known(self, lab: &Lab) -> Result<bool> {
        let interfaces = Interface::all(lab, "tc", "native");
        let config = lab::render(lab, &interfaces, &[self.service(lab)?], "");
        probe::accepts(lab, self.name, &config, "service.hash")
    }
}

pub(super) static HASHES: [Hash; 3] = [
    Hash {
        name: "5-tuple",
        mode: "l4",
        port: 8001,
    },
    Hash {
        name: "source-ip",
        mode: "l4",
        port: 8002,
    },
    COOKIE,
];
/// A cookie that the proxy sets and the clients bring back: measured from the day that evenkeel knows it.
pub(super) const COOKIE: Hash = Hash {
    name: "cookie",
    mode: "l7",
    port: 8003,
};

/// What happens to the first backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// It is drained; its server then says goodbye to every client (close code 1001) and ends.
    Drain,
    /// Its server is killed, which checks find out.
    Kill,
}

impl Event {
    pub(super) const ALL: [Self; 2] = [Self::Drain, Self::Kill];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Drain => "drain",
            Self::Kill => "kill",
        }
    }
}

/// What one run showed.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// Share of sessions that found their state after all of them lost their connection.
    pub(super) found: f64,
    /// Sessions that the event cost their connection, and their state.
    pub(super) lost: f64,
    /// Connections that the event made besides.
    pub(super) disturbed: f64,
    /// Seconds from the event until every session was connected.
    pub(super) rebalanced: f64,
    /// Hot factor over the backends that were left.
    pub(super) away: f64,
    /// Hot factor over all backends, the one that came back included.
    pub(super) back: f64,
    /// Sessions on each backend then.
    pub(super) sessions: Vec<f64>,
    /// Share that found its state after all lost their connection again.
    pub(super) found_again: f64,
    /// Hot factor then.
    pub(super) again: f64,
}

/// The lab, and what runs in it. Fields are dropped in order: programs before the lab.
pub(super) struct Stage {
    daemon: Daemon,
    /// By hash and backend.
    servers: Vec<Vec<Process>>,
    /// By hash: whether evenkeel can do that.
    known: Vec<bool>,
    peer: PathBuf,
    lab: Lab,
    /// Number of the next session that no server knows.
    next: u32,
}

impl Stage {
    pub(super) fn set() -> Result<Self> {
        let peer = build::bench_peer()?;
        let lab = Lab::new(&Spec {
            backends: BACKENDS,
            ..Spec::default()
        })?;
        let addresses: Vec<String> = (0..SESSIONS)
            .map(|number| Ipv4Addr::from_bits(FIRST.to_bits() + number))
            .map(|address| format!("addr add {address}/24 dev eth0"))
            .collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        lab.client().ip(&addresses)?;
        let known = HASHES.map(|hash| hash.is_known(&lab));
        let known = known.into_iter().collect::<Result<Vec<_>>>()?;
        let services = HASHES
            .iter()
            .zip(&known)
            .filter(|(_, known)| **known)
            .map(|(hash, _)| hash.service(&lab))
            .collect::<Result<Vec<_>>>()?;
        let interfaces = Interface::all(&lab, "tc", "native");
        let daemon = Daemon::start(&lab, &lab::render(&lab, &interfaces, &services, ""))?;
        let mut stage = Self {
            daemon,
            servers: Vec::new(),
            known,
            peer,
            lab,
            next: 0,
        };
        for (which, hash) in HASHES.into_iter().enumerate() {
            let number = if stage.known[which] { BACKENDS } else { 0 };
            let servers = (0..number).map(|index| stage.serve(hash, index));
            let servers = servers.collect::<Result<_>>()?;
            stage.servers.push(servers);
        }
        Ok(stage)
    }

    fn serve(&self, hash: Hash, index: usize) -> Result<Process> {
        let address = self.lab.backend_address(index, hash.port)?;
        let namespace = self.lab.backends().get(index).context("no such backend")?;
        let mut command = namespace.command(&self.peer);
        command
            .args(["sessions", "--listen", &address.to_string()])
            .args(["--name", &name(index)]);
        let file = format!("{}-{}", hash.name, name(index));
        Process::serve(&self.lab, &file, &mut command)
    }

    /// One run, with sessions that nobody knows yet; `None` where evenkeel cannot do that yet.
    pub(super) fn visit(&mut self, which: usize, event: Event) -> Result<Option<Seen>> {
        if !self.known[which] {
            return Ok(None);
        }
        let hash = HASHES[which];
        let target = self.lab.service(hash.port);
        let sessions = (FIRST, self.next);
        self.next += SESSIONS;
        let mut holder = Holder::start(&self.lab, &self.peer, target, SESSIONS, sessions)?;
        holder.settle(SESSIONS)?;
        let blip = holder.blip()?;
        let names = names();
        let lost = blip.sessions(&names)[0] as u32;
        holder.forget()?;
        let rebalanced = self.rebalance(which, event, &mut holder, lost)?;
        // Those that the drain disturbs count as well.
        let after = holder.settle(lost)?;
        let away = after.sessions(&names);
        self.mend(which)?;
        let back = holder.status()?.sessions(&names);
        let again = holder.blip()?;
        Ok(Some(Seen {
            found: share(blip.found),
            lost: f64::from(lost),
            disturbed: f64::from(after.made()) - f64::from(lost),
            rebalanced: rebalanced.as_secs_f64(),
            away: stats::hot_factor(&away[1..]),
            back: stats::hot_factor(&back),
            sessions: back,
            found_again: share(again.found),
            again: stats::hot_factor(&again.sessions(&names)),
        }))
    }

    /// The first backend is there again, empty, undrained, and found.
    pub(super) fn mend(&mut self, which: usize) -> Result<()> {
        let hash = HASHES[which];
        self.servers[which][0].stop()?;
        self.servers[which][0] = self.serve(hash, 0)?;
        self.drain(hash, false)?;
        let begun = Instant::now();
        while !self.is_active(hash)? {
            ensure!(
                begun.elapsed() < FOUND,
                "checks do not find the server that is there again"
            );
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Whether the first backend gets new connections.
    fn is_active(&self, hash: Hash) -> Result<bool> {
        let address = self.lab.backend_address(0, hash.port)?.to_string();
        let listed = self.daemon.json(&["backends", "list", hash.name])?;
        let mut backends = listed["backends"].as_array().into_iter().flatten();
        let first = backends.find(|backend| backend["address"] == address);
        Ok(first.context("no such backend")?["state"] == "active")
    }

    /// How long it is from the event until every session is connected. They are watched from the event on, while whoever
    /// drains the backend is still at it: many need not wait for that.
    fn rebalance(
        &self,
        which: usize,
        event: Event,
        holder: &mut Holder,
        lost: u32,
    ) -> Result<Duration> {
        let begun = Instant::now();
        thread::scope(|scope| {
            let befalls = scope.spawn(|| self.befall(which, event));
            let settled = holder.settle(lost);
            let took = begun.elapsed();
            let befallen = befalls.join();
            befallen.unwrap_or_else(|_| Err(anyhow!("whoever drains panicked")))?;
            settled.map(|_| took)
        })
    }

    fn befall(&self, which: usize, event: Event) -> Result<()> {
        let server = &self.servers[which][0];
        match event {
            Event::Drain => {
                self.drain(HASHES[which], true)?;
                server.signal(Signal::SIGTERM)
            }
            Event::Kill => server.signal(Signal::SIGKILL),
        }
    }

    /// Drains the first backend, or ends that.
    fn drain(&self, hash: Hash, drains: bool) -> Result<()> {
        let address = self.lab.backend_address(0, hash.port)?.to_string();
        let action = if drains { "drain" } else { "undrain" };
        self.daemon
            .cli(&["backends", action, hash.name, &address])
            .map(drop)
    }
}

/// The name of the backend at `index`.
fn name(index: usize) -> String {
    format!("b{}", index + 1)
}

/// All names.
pub(super) fn names() -> Vec<String> {
    (0..BACKENDS).map(name).collect()
}

fn share(sessions: u32) -> f64 {
    f64::from(sessions) / f64::from(SESSIONS)
}
