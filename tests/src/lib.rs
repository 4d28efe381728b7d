//! The stage of the end-to-end tests: a lab with echo backends, the real daemon in front of them, and clients.
//!
//! Every test asks for a [`Stage`], drives traffic through it with a client that knows nothing of evenkeel, and holds
//! three counts against each other: what the client got, what the kernel counted, what the backends served. Nothing
//! here measures time; waiting is always for something to become true, and fails with what was there instead.
//!
//! The tests need root, the release binary (`cargo xtask build`, or `EVENKEEL_BIN`) and the clients that
//! `cargo xtask setup --tests` provides. Where one is missing the test fails and says so; none is skipped.

mod clients;
mod counts;
mod load;
mod observe;
mod peers;
mod truth;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
pub use xtask::lab::{Daemon, Lab, Loss, Namespace, Offloads, Process, Service, Spec};
use xtask::lab::{Interface, Signal, render};
use xtask::workspace;

pub use clients::{client_script, h2load, python, serve_python, start_python};
pub use counts::{Counts, Served, count};
pub use load::{Load, Running};
pub use observe::{Observer, PROXY_PORT, event};
pub use peers::{occurrences, wait_for_listener};
pub use truth::Truth;

/// Port of the service and of every backend.
pub const PORT: u16 = 50051;
/// Name of the service.
pub const SERVICE: &str = "echo";
/// How long something may take to become true before a test gives up; no test depends on it when all is well.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to set up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The lab. Checksums are written and checked unless a test wants something else.
    pub spec: Spec,
    /// `tc`, `xdp` or `auto`.
    pub hook: &'static str,
    /// `l4` or `l7`.
    pub mode: &'static str,
    /// `nat` or `dnat`.
    pub forwarding: &'static str,
    /// Policy for streams.
    pub policy: &'static str,
    /// How backends are checked, as an inline table; empty: not at all.
    pub health: &'static str,
    /// More configuration, as it is.
    pub more: &'static str,
    /// Arguments of every echo backend, after address and name.
    pub echo: &'static [&'static str],
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            spec: Spec {
                backends: 2,
                offloads: Offloads::NoChecksums,
                ..Spec::default()
            },
            hook: "tc",
            mode: "l4",
            forwarding: "nat",
            policy: "round_robin",
            health: "",
            more: "",
            echo: &[],
        }
    }
}

impl Setup {
    /// The default setup with so many backends.
    #[must_use]
    pub fn backends(number: usize) -> Self {
        let mut setup = Self::default();
        setup.spec.backends = number;
        setup
    }

    /// Forwarding that keeps the client's address; the balancer is the backends' gateway then.
    #[must_use]
    pub fn dnat(mut self) -> Self {
        self.forwarding = "dnat";
        self.spec.gateway = true;
        self
    }

    /// The service starts in mode `mode`.
    #[must_use]
    pub fn mode(mut self, mode: &'static str) -> Self {
        self.mode = mode;
        self
    }

    /// Another hook.
    #[must_use]
    pub fn hook(mut self, hook: &'static str) -> Self {
        self.hook = hook;
        self
    }

    /// Makes the lab, with echo backends and the daemon running in it.
    pub fn start(&self) -> Result<Stage> {
        let mut stage = self.without_backends()?;
        for index in 0..self.spec.backends {
            let echo = stage.echo(index, self.echo)?;
            stage.echoes.push(echo);
        }
        stage.daemon = Some(Daemon::start(&stage.lab, &stage.config)?);
        Ok(stage)
    }

    /// Makes the lab; backends and daemon are the test's business.
    pub fn without_backends(&self) -> Result<Stage> {
        let binary = workspace::evenkeel()?;
        ensure!(
            binary.is_file(),
            "{} is missing: run `cargo xtask build`",
            binary.display()
        );
        let lab = Lab::new(&self.spec)?;
        if self.hook == "xdp" {
            lab.receive_redirected()?;
        }
        let backends = (0..self.spec.backends)
            .map(|index| lab.backend_address(index, PORT))
            .collect::<Result<Vec<_>>>()?;
        let mut service = Service::new(SERVICE, lab.service(PORT), &backends);
        service.mode = self.mode.into();
        service.forwarding = self.forwarding.into();
        service.policy = self.policy.into();
        service.health = self.health.into();
        let interfaces = Interface::all(&lab, self.hook, "native");
        let config = render(&lab, &interfaces, &[service], self.more);
        Ok(Stage {
            daemon: None,
            echoes: Vec::new(),
            config,
            binary,
            lab,
            setup: self.clone(),
        })
    }
}

/// A lab in which everything runs. Daemon and backends end before the lab goes: fields drop in this order.
#[derive(Debug)]
pub struct Stage {
    daemon: Option<Daemon>,
    echoes: Vec<Process>,
    config: String,
    binary: PathBuf,
    /// The namespaces.
    pub lab: Lab,
    /// What was asked for.
    pub setup: Setup,
}

impl Stage {
    /// Starts an echo backend named after its address, e.g. `b1`.
    pub fn echo(&self, index: usize, arguments: &[&str]) -> Result<Process> {
        let address = self.lab.backend_address(index, PORT)?;
        let namespace = self.lab.backends().get(index).context("no such backend")?;
        self.echo_in(namespace, address, &format!("b{}", index + 1), arguments)
    }

    /// Starts an echo backend anywhere.
    pub fn echo_in(
        &self,
        namespace: &Namespace,
        address: SocketAddr,
        name: &str,
        arguments: &[&str],
    ) -> Result<Process> {
        let mut command = namespace.command(&self.binary);
        command
            .args(["echo", "--listen", &address.to_string(), "--name", name])
            .args(arguments);
        Process::serve(&self.lab, name, &mut command)
    }

    /// Starts the daemon, for stages made without.
    pub fn start_daemon(&mut self) -> Result<()> {
        self.daemon = Some(Daemon::start(&self.lab, &self.config)?);
        Ok(())
    }

    /// Writes another backend into the configuration in place of the one at `index`.
    pub fn replace_backend(&mut self, index: usize, address: &str) -> Result<()> {
        let before = self.lab.backend_address(index, PORT)?.to_string();
        ensure!(
            self.config.contains(&before),
            "{before} is not in the configuration"
        );
        self.config = self.config.replace(&before, address);
        Ok(())
    }

    /// The daemon.
    pub fn daemon(&mut self) -> Result<&mut Daemon> {
        self.daemon.as_mut().context("this stage has no daemon")
    }

    /// Ends the daemon with SIGTERM.
    pub fn stop_daemon(&mut self) -> Result<()> {
        let mut daemon = self.daemon.take().context("this stage has no daemon")?;
        let status = daemon.process().stop()?;
        ensure!(
            status.success(),
            "the daemon ended with {status}: {}",
            daemon.process().log()?
        );
        Ok(())
    }

    /// Kills the daemon with SIGKILL; [`Stage::restart_daemon`] starts it again.
    pub fn kill_daemon(&mut self) -> Result<()> {
        let process = self.daemon()?.process();
        process.signal(Signal::SIGKILL)?;
        process.wait()?;
        Ok(())
    }

    /// Tells the daemon by SIGHUP to read its configuration again.
    pub fn hang_up(&mut self) -> Result<()> {
        self.daemon()?.process().signal(Signal::SIGHUP)
    }

    /// Starts the daemon again after it was killed.
    pub fn restart_daemon(&mut self) -> Result<()> {
        let daemon = self.daemon.as_mut().context("this stage has no daemon")?;
        daemon.restart(&self.lab)
    }

    /// `evenkeel ARGUMENTS --json` at the daemon.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        self.daemon
            .as_ref()
            .context("this stage has no daemon")?
            .json(arguments)
    }

    /// `evenkeel ARGUMENTS` at the daemon.
    pub fn cli(&self, arguments: &[&str]) -> Result<String> {
        self.daemon
            .as_ref()
            .context("this stage has no daemon")?
            .cli(arguments)
    }

    /// The URL of the service.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/", self.lab.service(PORT))
    }

    /// `HOST:PORT` of the service.
    #[must_use]
    pub fn target(&self) -> String {
        self.lab.service(PORT).to_string()
    }

    /// `program`, run where the clients are.
    #[must_use]
    pub fn client(&self, program: impl AsRef<Path>) -> Command {
        self.lab.client().command(program.as_ref())
    }

    /// `evenkeel load` at the service, as a command.
    #[must_use]
    pub fn load_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.client(&self.binary);
        command
            .args(["--json", "load", &self.url()])
            .args(arguments);
        command
    }

    /// Runs `evenkeel load` to its end and returns its report; failed requests are in there, not an error.
    pub fn load(&self, arguments: &[&str]) -> Result<Load> {
        let mut command = self.load_command(arguments);
        let output = command.output().context("evenkeel load")?;
        Load::parse(&output.stdout)
            .with_context(|| format!("evenkeel load: {}", String::from_utf8_lossy(&output.stderr)))
    }

    /// Starts `evenkeel load`; [`Running::finish`] gives its report.
    pub fn start_load(&self, name: &str, arguments: &[&str]) -> Result<Running> {
        let mut command = self.load_command(arguments);
        command.args(["--progress", "json"]);
        Running::start(&self.lab, name, &mut command)
    }

    /// The counts of the kernel and of the backends, once no packet changes them any more.
    pub fn counts(&self) -> Result<Counts> {
        count(self)
    }

    /// The echo backend at `index`, to end or to kill.
    pub fn backend(&mut self, index: usize) -> Result<&mut Process> {
        self.echoes.get_mut(index).context("no such backend")
    }
}

/// Waits until `value` gives something that `good` accepts; fails with the last it gave.
pub fn eventually<T: std::fmt::Debug>(
    what: &str,
    mut value: impl FnMut() -> Result<T>,
    good: impl Fn(&T) -> bool,
) -> Result<T> {
    let begun = Instant::now();
    loop {
        let now = value()?;
        if good(&now) {
            return Ok(now);
        }
        if begun.elapsed() > PATIENCE {
            bail!("{what} did not come true; at last there was {now:?}");
        }
        thread::sleep(Duration::from_millis(50));
    }
}
