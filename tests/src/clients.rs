//! Clients that know nothing of evenkeel: h2load, curl, and grpcio by small scripts in `clients/`.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xtask::lab::{Namespace, Process};
use xtask::{setup, shell, workspace};

use crate::Stage;

/// A script of `tests/clients`.
#[must_use]
pub fn client_script(name: &str) -> PathBuf {
    workspace::root().join("tests/clients").join(name)
}

/// A script of `tests/clients` with the tests' Python, in `namespace`.
pub fn python(namespace: &Namespace, script: &str, arguments: &[&str]) -> Result<Command> {
    let mut command = namespace.command(setup::python()?);
    command.arg(client_script(script)).args(arguments);
    Ok(command)
}

/// Starts a script of `tests/clients` that goes on running.
pub fn start_python(
    stage: &Stage,
    namespace: &Namespace,
    script: &str,
    arguments: &[&str],
) -> Result<Process> {
    let name = file_name(script, arguments);
    let mut command = python(namespace, script, arguments)?;
    Process::start(&stage.lab, &name, &mut command)
}

/// Starts a server of `tests/clients` at `address` and waits until it listens.
pub fn serve_python(
    stage: &Stage,
    namespace: &Namespace,
    script: &str,
    address: &str,
) -> Result<Process> {
    let arguments = [address];
    let name = file_name(script, &arguments);
    let mut command = python(namespace, script, &arguments)?;
    Process::serve(&stage.lab, &name, &mut command)
}

fn file_name(script: &str, arguments: &[&str]) -> String {
    let first = arguments.first();
    first.map_or(script.to_owned(), |first| format!("{script}-{first}"))
}

impl Stage {
    /// Runs a script where the clients are; what it prints is JSON.
    pub fn script(&self, script: &str, arguments: &[&str]) -> Result<Value> {
        let mut command = python(self.lab.client(), script, arguments)?;
        let printed = shell::capture(&mut command)?;
        serde_json::from_str(&printed).with_context(|| format!("{script} printed {printed}"))
    }
}

/// `h2load -c CONNECTIONS -m STREAMS -n REQUESTS` at the service; gives how many requests succeeded, and fails unless
/// it was all of them.
pub fn h2load(stage: &Stage, connections: u32, streams: u32, requests: u64) -> Result<u64> {
    let mut command = stage.client("h2load");
    command.args([
        "-c",
        &connections.to_string(),
        "-m",
        &streams.to_string(),
        "-n",
        &requests.to_string(),
    ]);
    let printed = shell::capture(command.arg(stage.url()))?;
    let succeeded = printed
        .lines()
        .find_map(|line| line.strip_prefix("requests:"))
        .and_then(|line| {
            line.split(',')
                .find_map(|part| part.trim().strip_suffix(" succeeded"))
        })
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("h2load printed no result:\n{printed}"))?;
    ensure!(
        succeeded == requests,
        "{succeeded} of {requests} requests succeeded:\n{printed}"
    );
    Ok(succeeded)
}
