//! `evenkeel run` in the balancer's namespace, and its command line.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Lab, Namespace, Process};
use crate::{shell, workspace};

/// A running daemon; ended with SIGTERM when dropped.
#[derive(Debug)]
pub struct Daemon {
    process: Process,
    balancer: Namespace,
    binary: PathBuf,
    socket: PathBuf,
    config: PathBuf,
}

impl Daemon {
    /// Starts the daemon with `config` (see [`super::render`]) and waits until it answers.
    pub fn start(lab: &Lab, config: &str) -> Result<Self> {
        let path = lab.directory().join("evenkeel.toml");
        fs::write(&path, config)?;
        let binary = workspace::evenkeel()?;
        let process = Self::launch(lab, &binary, &path)?;
        let mut daemon = Self {
            process,
            balancer: lab.balancer().clone(),
            binary,
            socket: lab.directory().join("control.sock"),
            config: path,
        };
        daemon.wait_until_ready()?;
        Ok(daemon)
    }

    fn launch(lab: &Lab, binary: &Path, config: &Path) -> Result<Process> {
        let mut run = lab.balancer().command(binary);
        run.arg("run").arg("--config").arg(config);
        Process::start(lab, "evenkeel", &mut run)
    }

    /// Starts the daemon again after it ended or was killed.
    pub fn restart(&mut self, lab: &Lab) -> Result<()> {
        self.process.stop()?;
        self.process = Self::launch(lab, &self.binary, &self.config)?;
        self.wait_until_ready()
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let Self {
            process,
            balancer,
            binary,
            socket,
            ..
        } = self;
        process.wait_until("the control socket answered", || {
            let mut status = balancer.command(&*binary);
            status.arg("--socket").arg(&*socket).arg("status");
            socket.exists() && shell::capture(&mut status).is_ok()
        })
    }

    /// `evenkeel` with `arguments`, told where this daemon's socket is.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.balancer.command(&self.binary);
        command.arg("--socket").arg(&self.socket).args(arguments);
        command
    }

    /// What the command line prints.
    pub fn cli(&self, arguments: &[&str]) -> Result<String> {
        shell::capture(&mut self.command(arguments))
    }

    /// What the command line prints with `--json`.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let mut command = self.command(&["--json"]);
        command.args(arguments);
        let printed = shell::capture(&mut command)?;
        serde_json::from_str(&printed)
            .with_context(|| format!("no JSON from {}: {printed}", shell::describe(&command)))
    }

    /// The daemon's process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// CPU seconds that all its threads spent so far.
    pub fn cpu_seconds(&self) -> Result<f64> {
        self.process.cpu_seconds()
    }

    /// What it logged so far.
    pub fn log(&self) -> Result<String> {
        self.process.log()
    }

    /// The control socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The configuration file.
    #[must_use]
    pub fn config(&self) -> &Path {
        &self.config
    }
}
