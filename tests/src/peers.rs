//! Servers that know nothing of evenkeel, in place of the echo backends.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use xtask::lab::Process;
use xtask::shell;

use crate::{PORT, Setup, Stage};

impl Setup {
    /// A lab whose only backend is `program`, which is told its arguments in turn by `arguments`; the daemon runs.
    pub fn with_server(
        mut self,
        program: &str,
        arguments: impl FnOnce(&Stage) -> Result<Vec<String>>,
    ) -> Result<(Stage, Process)> {
        self.spec.backends = 1;
        let mut stage = self.without_backends()?;
        let namespace = stage.lab.backends().first().context("no backend")?;
        let mut command = namespace.command(program);
        command.args(arguments(&stage)?);
        let mut server = Process::start(&stage.lab, program, &mut command)?;
        wait_for_listener(&mut server, PORT)?;
        stage.start_daemon()?;
        Ok((stage, server))
    }
}

/// Waits until somebody listens at `port` where `server` runs; a connection would be counted by it.
pub fn wait_for_listener(server: &mut Process, port: u16) -> Result<()> {
    // Local port in hexadecimal, then any peer, then state 0A, LISTEN: see proc_net_tcp(5).
    let port = format!(":{port:04X} ");
    let files = ["tcp", "tcp6"].map(|file| format!("/proc/{}/net/{file}", server.id()));
    server.wait_until("it listened", || {
        files.iter().any(|file| {
            fs::read_to_string(file).is_ok_and(|sockets| {
                sockets
                    .lines()
                    .any(|line| line.contains(&port) && line.contains(" 0A "))
            })
        })
    })
}

impl Stage {
    /// A directory with `files` to serve, each of its name.
    pub fn documents(&self, files: &[&str]) -> Result<String> {
        let directory = self.lab.directory().join("www");
        fs::create_dir_all(&directory)?;
        for file in files {
            fs::write(directory.join(file), file)?;
        }
        Ok(directory.display().to_string())
    }

    /// A key and a certificate that signs itself, as files.
    pub fn certificate(&self) -> Result<[String; 2]> {
        let path = |name: &str| self.lab.directory().join(name).display().to_string();
        let files = [path("key.pem"), path("cert.pem")];
        let mut openssl = Command::new("openssl");
        openssl
            .args([
                "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
            ])
            .args([
                "-subj",
                "/CN=evenkeel.test",
                "-keyout",
                &files[0],
                "-out",
                &files[1],
            ]);
        shell::capture(&mut openssl)?;
        Ok(files)
    }

    /// While nobody is attached a packet of a connection would reach the balancer's own stack, which would reset what
    /// it does not know. The packets that evenkeel redirects never come by here.
    pub fn quieten(&self) -> Result<()> {
        let drop = |hook: &str, port: &str| {
            format!(
                "chain {hook} {{ type filter hook {hook} priority 0; tcp {port} {PORT} drop; }}\n"
            )
        };
        let rules = format!(
            "table ip quiet {{\n{}{}}}\n",
            drop("input", "dport"),
            drop("forward", "sport")
        );
        shell::feed(self.lab.balancer().command("nft").args(["-f", "-"]), &rules)
    }

    /// What the daemon says of the flows that it knows: their protocols.
    pub fn protocols(&self) -> Result<Vec<String>> {
        let flows = self.json(&["flows", "--top", "100000"])?;
        let flows = flows["flows"].as_array().context("no flows")?;
        Ok(flows
            .iter()
            .map(|flow| flow["protocol"].as_str().unwrap_or_default().to_owned())
            .collect())
    }
}

/// How often `needle` stands in the file at `path`.
pub fn occurrences(path: &Path, needle: &str) -> Result<u64> {
    Ok(fs::read_to_string(path)?.matches(needle).count() as u64)
}
