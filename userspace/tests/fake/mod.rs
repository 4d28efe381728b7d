//! A daemon without a kernel: a data path and a proxy that remember what they were told.

#![allow(
    dead_code,
    reason = "each test binary uses its own part of what they share"
)]

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use evenkeel::api::server;
use evenkeel::api::types::{Attachment, ModeRequest};
use evenkeel::config::{Config, Mode};
use evenkeel::daemon::{
    FlowView, Handle, Plane, PlaneError, Routes, ServiceView, Snapshot, State, Streams, Verdict,
};
use evenkeel::l7::ProxyStats;

/// What the data path and the proxy were told, in order, and what they answer.
#[derive(Default)]
pub struct Told {
    pub log: Vec<String>,
    pub services: Vec<ServiceView>,
    pub snapshot: Snapshot,
    pub flows: Vec<FlowView>,
    pub figures: ProxyStats,
    /// The next `apply` fails with this.
    pub refuse: Option<String>,
    /// Addresses that this host does not deliver to itself.
    pub not_local: Vec<IpAddr>,
}

#[derive(Clone, Default)]
pub struct Fake(Arc<Mutex<Told>>);

impl Fake {
    pub fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().expect("no test panicked while holding it")
    }
}

fn summary(services: &[ServiceView]) -> String {
    let service = |service: &ServiceView| {
        let weights = service
            .backends
            .iter()
            .map(|b| b.effective_weight().to_string());
        format!(
            "{}={}[{}]",
            service.name,
            service.mode,
            weights.collect::<Vec<_>>().join(",")
        )
    };
    services.iter().map(service).collect::<Vec<_>>().join(" ")
}

impl Plane for Fake {
    fn apply(&mut self, services: &[ServiceView]) -> Result<(), PlaneError> {
        let mut told = self.told();
        if let Some(why) = told.refuse.take() {
            return Err(PlaneError(why));
        }
        told.log.push(format!("kernel {}", summary(services)));
        told.services = services.to_vec();
        Ok(())
    }

    fn counters(&self) -> Result<Snapshot, PlaneError> {
        Ok(self.told().snapshot.clone())
    }

    fn flows(&self) -> Result<Vec<FlowView>, PlaneError> {
        Ok(self.told().flows.clone())
    }

    fn sweep(&mut self) -> Result<(), PlaneError> {
        Ok(())
    }

    fn tend_interfaces(&mut self) -> Result<(), PlaneError> {
        Ok(())
    }

    fn warm(&mut self) -> Result<(), PlaneError> {
        Ok(())
    }

    fn move_flows(&mut self, service: SocketAddr) -> u64 {
        self.told()
            .log
            .push(format!("kernel moves flows of {service}"));
        3
    }

    fn explain(&self, _client: SocketAddr, service: SocketAddr) -> Result<Verdict, PlaneError> {
        Ok(Verdict {
            destination: "nowhere".to_owned(),
            existing: false,
            hash: None,
            slot: None,
            why: vec![format!("asked about {service}")],
        })
    }

    fn is_local(&self, address: IpAddr) -> bool {
        !self.told().not_local.contains(&address)
    }

    fn attachments(&self) -> Vec<Attachment> {
        Vec::new()
    }

    fn detach(self: Box<Self>) -> Result<(), PlaneError> {
        self.told().log.push("kernel detached".to_owned());
        Ok(())
    }
}

impl Streams for Fake {
    fn update(&mut self, services: &[ServiceView]) {
        self.told().log.push(format!("proxy {}", summary(services)));
    }

    fn figures(&self) -> ProxyStats {
        self.told().figures.clone()
    }

    fn drain(&mut self, service: SocketAddr) {
        self.told().log.push(format!("proxy drains {service}"));
    }

    fn shutdown(self: Box<Self>, _grace: Duration) {
        self.told().log.push("proxy stopped".to_owned());
    }
}

/// A directory of this test, removed with it.
pub struct Directory(pub PathBuf);

impl Directory {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("evenkeel-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).expect("a temporary directory");
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Another mode, with the flows that exist left where they are.
pub fn mode(mode: Mode) -> ModeRequest {
    ModeRequest {
        mode,
        move_existing: false,
        deadline_ms: None,
    }
}

/// Two services, `echo` with two backends and `auto` with one, in a file of its own.
pub fn two_services(directory: &Path) -> String {
    format!(
        r#"
[daemon]
socket = "{0}/control.sock"
state_dir = "{0}"
[[interface]]
name = "lo"
[[service]]
name = "echo"
address = "10.0.0.10:80"
[[service.backend]]
address = "10.0.1.1:80"
[[service.backend]]
address = "10.0.1.2:80"
[[service]]
name = "other"
address = "10.0.0.11:80"
mode = "auto"
[[service.backend]]
address = "10.0.2.1:80"
"#,
        directory.display()
    )
}

/// Writes `text` as the configuration and makes a state of it.
pub fn state(directory: &Directory, fake: &Fake, text: &str) -> State {
    let file = directory.0.join("evenkeel.toml");
    std::fs::write(&file, text).expect("written");
    let config = Config::load(&file).expect("a right configuration");
    let started = State::start(
        config,
        Box::new(fake.clone()),
        Box::new(fake.clone()),
        false,
        Instant::now(),
    );
    started.expect("the fake data path takes it")
}

/// A daemon on a control socket, on threads of its own; ends with the process.
pub struct Daemon {
    pub directory: Directory,
    pub fake: Fake,
}

impl Daemon {
    pub fn start(name: &str) -> Self {
        let directory = Directory::new(name);
        let fake = Fake::default();
        let state = state(&directory, &fake, &two_services(&directory.0));
        let socket = directory.0.join("control.sock");
        let (ready, is_ready) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("an event loop");
            runtime.block_on(async {
                let (handle, _end) = Handle::spawn(state).expect("a thread");
                let listener = server::listen(&socket, None).expect("a socket");
                ready.send(()).expect("the test waits");
                server::serve(listener, Arc::new(Routes::new(handle))).await;
            });
        });
        is_ready.recv().expect("the daemon starts");
        Self { directory, fake }
    }

    pub fn socket(&self) -> PathBuf {
        self.directory.0.join("control.sock")
    }

    /// Runs the command line against this daemon.
    pub fn cli(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_evenkeel"))
            .arg("--socket")
            .arg(self.socket())
            .args(arguments)
            .output()
            .expect("the command runs")
    }

    /// Runs it, and returns stdout of a success.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.cli(arguments);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {error}");
        String::from_utf8(output.stdout).expect("text")
    }

    /// Runs it, and returns stderr of a failure.
    pub fn fails(&self, arguments: &[&str]) -> String {
        let output = self.cli(arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        String::from_utf8(output.stderr).expect("text")
    }
}
