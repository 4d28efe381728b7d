//! evenkeel beside what people use today, the same work for each, in the same run.
//!
//! The rivals' configurations are files in `config/`, each with a comment that says how it is tuned and why. What holds
//! for all of them: the version that the distribution ships, one thread or worker (evenkeel's proxy has one, too), no
//! logs, connections kept where the rival can keep them. Rivals that are not on this machine, or do not work on it, keep
//! their place in the tables with the reason.
//!
//! - [`l4`]: balancing flows. - [`l7`]: balancing streams. - [`loadgen`]: the load generator itself, beside h2load.

mod contest;
mod h2load;
mod l4;
mod l7;
mod loadgen;
mod quiet;
mod ways;

pub(super) use l4::run as run_l4;
pub(super) use l7::run as run_l7;
pub(super) use loadgen::run as run_loadgen;

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

use crate::lab::{Lab, Namespace, Process};

/// What is in the file that everybody fetches.
const DOCUMENT: &str = "hello";

/// `template` with every `{{name}}` replaced by its value.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut text = template.to_owned();
    for (name, value) in values {
        text = text.replace(&format!("{{{{{name}}}}}"), value);
    }
    text
}

/// Writes a rival's configuration into the lab's directory.
fn configure(lab: &Lab, name: &str, template: &str, values: &[(&str, &str)]) -> Result<PathBuf> {
    let path = lab.directory().join(name);
    fs::write(&path, fill(template, values))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// What stands in the tables in place of a rival that failed: the line of all that was said that names the cause.
fn failure(error: &anyhow::Error) -> String {
    let said = format!("{error:#}");
    let cause = said.lines().find(|line| {
        let line = line.to_lowercase();
        ["error", "[alert]", "[emerg]", "fatal"]
            .iter()
            .any(|mark| line.contains(mark))
    });
    let cause = cause.or_else(|| said.lines().next()).unwrap_or_default();
    format!("does not work here: {}", cause.trim())
}

/// nghttpd in `namespace`: the server behind everybody, with one worker.
fn serve(lab: &Lab, namespace: &Namespace, port: u16) -> Result<Process> {
    let root = lab.directory().join("www");
    fs::create_dir_all(&root)?;
    fs::write(root.join("index.html"), DOCUMENT)?;
    let mut server = namespace.command("nghttpd");
    server
        .args(["--no-tls", "--workers=1", "--htdocs"])
        .arg(&root)
        .arg(port.to_string());
    let mut server = Process::start(lab, "nghttpd", &mut server)?;
    wait_for_listener(&mut server, port)?;
    Ok(server)
}

/// Waits until somebody listens at `port` in the namespace of `process`.
fn wait_for_listener(process: &mut Process, port: u16) -> Result<()> {
    // The local port in hexadecimal at the end of an address, and state 0A, which is LISTEN: see proc_net_tcp(5).
    let port = format!(":{port:04X} ");
    let files = ["tcp", "tcp6"].map(|file| format!("/proc/{}/net/{file}", process.id()));
    process.wait_until("it listened", || {
        files.iter().any(|file| {
            fs::read_to_string(file).is_ok_and(|sockets| {
                sockets
                    .lines()
                    .any(|line| line.contains(&port) && line.contains(" 0A "))
            })
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_by_the_line_that_names_the_cause() {
        let said = "haproxy ended before it listened:\n[NOTICE] version 2\n[ALERT] cannot raise FD limit\n";
        assert_eq!(
            failure(&anyhow::anyhow!(said)),
            "does not work here: [ALERT] cannot raise FD limit"
        );
        assert_eq!(
            failure(&anyhow::anyhow!("gone")),
            "does not work here: gone"
        );
    }

    #[test]
    fn every_placeholder_is_filled() {
        let text = fill("{{a}} and {{b}}, {{a}}", &[("a", "1"), ("b", "2")]);
        assert_eq!(text, "1 and 2, 1");
    }
}
