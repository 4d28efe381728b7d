//! `evenkeel observe` beside a test, and HAProxy as the balancer that it looks at.

use std::fs;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xtask::lab::{Namespace, Process};

use crate::{PORT, Running, Stage, wait_for_listener};

/// Port of HAProxy.
pub const PROXY_PORT: u16 = 8080;

/// A running `evenkeel observe --json`.
#[derive(Debug)]
pub struct Observer {
    process: Process,
}

impl Observer {
    /// Starts it where `namespace` is and waits until it observes.
    pub fn start(stage: &Stage, namespace: &Namespace, arguments: &[&str]) -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("observe{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let mut command = namespace.command(xtask::workspace::evenkeel()?);
        command.args(["--json", "observe"]).args(arguments);
        let mut process = Process::start(&stage.lab, &name, &mut command)?;
        let log = process.log_path().to_owned();
        process.wait_until("it observed", || {
            fs::read_to_string(&log).is_ok_and(|log| log.contains("observing "))
        })?;
        Ok(Self { process })
    }

    /// Ends it with SIGTERM; what it reports.
    pub fn finish(mut self) -> Result<Value> {
        let status = self.process.stop()?;
        ensure!(status.success(), "observe: {}", self.process.log()?);
        let printed = self.process.output()?;
        serde_json::from_str(&printed).with_context(|| format!("observe printed {printed}"))
    }
}

/// How often something went wrong, as a report tells.
#[must_use]
pub fn event(report: &Value, name: &str) -> Option<u64> {
    let events = report["events"].as_array().into_iter().flatten();
    let mut named = events.filter(|event| event["name"] == name);
    named.find_map(|event| event["count"].as_u64())
}

impl Stage {
    /// As [`Stage::start_load`], at `url`.
    pub fn start_load_at(&self, name: &str, url: &str, arguments: &[&str]) -> Result<Running> {
        let mut command = self.client(xtask::workspace::evenkeel()?);
        command.args(["--json", "load", url]).args(arguments);
        command.args(["--progress", "json"]);
        Running::start(&self.lab, name, &mut command)
    }

    /// HAProxy in mode tcp at the service's address, round robin over the echo backends: a balancer that pins.
    pub fn haproxy(&self) -> Result<Process> {
        let mut config = format!(
            "global\n  nbthread 1\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  \
             timeout server 60s\nfrontend service\n  bind {}\n  default_backend servers\nbackend servers\n  \
             balance roundrobin\n",
            self.lab.service(PROXY_PORT)
        );
        for index in 0..self.lab.backends().len() {
            let address = self.lab.backend_address(index, PORT)?;
            config.push_str(&format!("  server b{} {address}\n", index + 1));
        }
        let file = self.lab.directory().join("haproxy.cfg");
        fs::write(&file, config)?;
        let mut command = self.lab.balancer().command("haproxy");
        command.arg("-db").arg("-f").arg(&file);
        let mut process = Process::start(&self.lab, "haproxy", &mut command)?;
        wait_for_listener(&mut process, PROXY_PORT)?;
        Ok(process)
    }
}
