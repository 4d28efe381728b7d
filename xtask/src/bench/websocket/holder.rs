//! The WebSocket clients: `bench-peer hold`, told what to do line by line.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, de::DeserializeOwned};

use crate::lab::Lab;

/// How often to look whether all are back.
const GLANCE: Duration = Duration::from_millis(10);
/// How long it may take until all are back.
const PATIENCE: Duration = Duration::from_secs(20);

/// How the sessions fare.
#[derive(Clone, Debug, Deserialize)]
pub struct Status {
    /// Sessions that are connected.
    pub connected: u32,
    /// To which server.
    pub per_backend: BTreeMap<String, u32>,
    /// Connections that found the session's state, since [`Holder::forget`].
    pub found: u32,
    /// Connections that did not.
    pub fresh: u32,
}

impl Status {
    /// Connections made.
    pub fn made(&self) -> u32 {
        self.found + self.fresh
    }

    /// Sessions on each of `backends`, in their order.
    pub fn sessions(&self, backends: &[String]) -> Vec<f64> {
        let on = |name: &String| self.per_backend.get(name).copied().unwrap_or(0);
        backends.iter().map(|name| on(name).into()).collect()
    }
}

/// Running clients; ended when dropped.
pub struct Holder {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    sessions: u32,
}

impl Holder {
    /// Starts `sessions` clients of `target`, from `first` on each with an address of its own; their sessions are
    /// numbered from `from`.
    pub fn start(
        lab: &Lab,
        peer: &Path,
        target: SocketAddr,
        sessions: u32,
        from: (Ipv4Addr, u32),
    ) -> Result<Self> {
        Self::run(lab, peer, target, sessions, from, &[])
    }

    fn run(
        lab: &Lab,
        peer: &Path,
        target: SocketAddr,
        sessions: u32,
        (first, from): (Ipv4Addr, u32),
        more: &[&str],
    ) -> Result<Self> {
        let mut hold = lab.client().command(peer);
        hold.arg("hold")
            .arg(target.to_string())
            .args(["--sessions", &sessions.to_string()])
            .args(["--first", &first.to_string()])
            .args(["--from", &from.to_string()])
            .args(more)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = lab.spawn(&mut hold)?;
        let orders = child.stdin.take().context("no standard input")?;
        let answers = BufReader::new(child.stdout.take().context("no standard output")?);
        Ok(Self {
            child,
            orders,
            answers,
            sessions,
        })
    }

    /// The same with one address for all sessions.
    pub fn start_from_one(
        lab: &Lab,
        peer: &Path,
        target: SocketAddr,
        sessions: u32,
        from: (Ipv4Addr, u32),
    ) -> Result<Self> {
        Self::run(lab, peer, target, sessions, from, &["--one-address"])
    }

    fn order<T: DeserializeOwned>(&mut self, order: &str) -> Result<T> {
        writeln!(self.orders, "{order}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("bench-peer hold answered {line:?}"))
    }

    /// Every session loses its connection; returns once that has been counted from 0.
    pub fn blip(&mut self) -> Result<Status> {
        self.forget()?;
        self.order::<Status>("blip")?;
        self.settle(self.sessions)
    }

    /// Counts anew from here.
    pub fn forget(&mut self) -> Result<Status> {
        self.order("forget")
    }

    /// How things stand.
    pub fn status(&mut self) -> Result<Status> {
        self.order("status")
    }

    /// Waits until all sessions are connected and at least `made` connections were made since [`Holder::forget`].
    pub fn settle(&mut self, made: u32) -> Result<Status> {
        let begun = Instant::now();
        loop {
            let status = self.status()?;
            if status.connected == self.sessions && status.made() >= made {
                return Ok(status);
            }
            if begun.elapsed() > PATIENCE {
                bail!("after {PATIENCE:?} there is {status:?}");
            }
            thread::sleep(GLANCE);
        }
    }

    /// Messages at `rate` a second, on the sessions in turn; microseconds that each took.
    pub fn echo(&mut self, rate: u32, duration: Duration) -> Result<Vec<u64>> {
        self.order(&format!("echo {rate} {}", duration.as_secs_f64()))
    }

    /// `count` messages, on each session the next when the last is back; microseconds that each took that came back.
    pub fn talk(&mut self, count: u32) -> Result<Vec<u64>> {
        self.order(&format!("talk {count}"))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
