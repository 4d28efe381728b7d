//! `evenkeel load` as a client: run to its end, or beside the test.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xtask::lab::{Lab, Process};

/// The report of `evenkeel load`.
#[derive(Clone, Debug)]
pub struct Load {
    /// Good answers.
    pub ok: u64,
    /// Failed requests.
    pub failed: u64,
    /// Sent again because a server had not processed them.
    pub retried: u64,
    /// Connections made.
    pub connections: u64,
    /// Good answers by backend.
    pub per_backend: BTreeMap<String, u64>,
    /// Everything, for messages.
    pub report: Value,
}

impl Load {
    pub(crate) fn parse(printed: &[u8]) -> Result<Self> {
        let report: Value = serde_json::from_slice(printed).context("no report was printed")?;
        let number = |key: &str| {
            report[key]
                .as_u64()
                .with_context(|| format!("no `{key}` in {report}"))
        };
        let per_backend = report["per_backend"].as_object().context("per_backend")?;
        Ok(Self {
            ok: number("ok")?,
            failed: number("failed")?,
            retried: number("retried")?,
            connections: number("connections")?,
            per_backend: per_backend
                .iter()
                .map(|(name, count)| (name.clone(), count.as_u64().unwrap_or(0)))
                .collect(),
            report,
        })
    }

    /// Fails with the causes unless every request was answered well.
    pub fn all_ok(self) -> Result<Self> {
        ensure!(
            self.failed == 0,
            "{} requests failed: {}",
            self.failed,
            self.report["causes"]
        );
        Ok(self)
    }
}

/// Requests answered so far, by the last line of progress in `log`.
fn answered(log: &Path) -> Option<u64> {
    let log = fs::read_to_string(log).ok()?;
    let mut lines = log.lines().rev();
    let progress: Value = lines.find_map(|line| serde_json::from_str(line).ok())?;
    progress["total_ok"].as_u64()
}

/// A load that runs beside the test.
#[derive(Debug)]
pub struct Running {
    process: Process,
}

impl Running {
    pub(crate) fn start(lab: &Lab, name: &str, command: &mut Command) -> Result<Self> {
        Ok(Self {
            process: Process::start(lab, name, command)?,
        })
    }

    /// Waits until `requests` were answered in all, as its progress says.
    pub fn wait_for(&mut self, requests: u64) -> Result<()> {
        let log = self.process.log_path().to_owned();
        self.process
            .wait_until(&format!("{requests} requests were done"), || {
                answered(&log) >= Some(requests)
            })
    }

    /// Waits until so many more were answered. Its progress may be a second old: some of them may be, too.
    pub fn wait_for_more(&mut self, requests: u64) -> Result<()> {
        let before = answered(self.process.log_path()).unwrap_or(0);
        self.wait_for(before + requests)
    }

    /// Ends it (SIGTERM lets requests in flight finish) and returns its report.
    pub fn finish(mut self) -> Result<Load> {
        self.process.stop()?;
        self.report()
    }

    /// Waits for its own end and returns its report.
    pub fn wait(mut self) -> Result<Load> {
        self.process.wait()?;
        self.report()
    }

    fn report(&self) -> Result<Load> {
        let printed = self.process.output()?;
        let log = || self.process.log().unwrap_or_default();
        Load::parse(printed.as_bytes()).with_context(|| format!("evenkeel load: {}", log()))
    }
}
