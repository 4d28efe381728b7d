//! A place to run the data path in, gone when the test ends, however it ends.

use std::error::Error;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use evenkeel::datapath::{
    BackendEntry, Datapath, DatapathError, FlowHash, Forwarding, HookChoice, InterfaceSpec, Mode,
    Options, ServiceTable, XdpMode,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// How long something may take to become true before a test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// Two network namespaces and a pin directory, whose name says which process made them: where that is killed, the next
/// `cargo xtask test` takes them away (`xtask/src/lab/packets.rs`). The balancer's has `ekd0`, 10.77.0.1/24; the peer's, at the other end
/// of it, `ekd1`, 10.77.0.2/24, and a route to 10.77.1.0/24 (services) over the balancer.
pub struct Lab {
    name: String,
    pub pin_dir: PathBuf,
}

impl Lab {
    /// Makes both and moves this thread (each test has its own) into the balancer's.
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        assert!(
            rustix::process::geteuid().is_root(),
            "these tests need root: run `sudo cargo xtask test`"
        );
        let name = format!(
            "ekd{}t{}x{}",
            std::process::id(),
            start_time(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        let lab = Self {
            pin_dir: Path::new("/sys/fs/bpf").join(&name),
            name,
        };
        run("ip", &["netns", "add", &lab.balancer()]);
        run("ip", &["netns", "add", &lab.peer()]);
        enter(&lab.balancer());
        run("ip", &["link", "set", "lo", "up"]);
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").expect("root may forward");
        lab.wire();
        lab
    }

    fn balancer(&self) -> String {
        format!("{}-balancer", self.name)
    }

    fn peer(&self) -> String {
        format!("{}-peer", self.name)
    }

    /// Makes the veth pair.
    pub fn wire(&self) {
        let (near, peer) = (self.balancer(), self.peer());
        let (near, peer) = (near.as_str(), peer.as_str());
        run(
            "ip",
            &[
                "link", "add", "ekd0", "type", "veth", "peer", "name", "ekd1", "netns", peer,
            ],
        );
        for (namespace, device, address) in [
            (near, "ekd0", "10.77.0.1/24"),
            (peer, "ekd1", "10.77.0.2/24"),
        ] {
            run(
                "ip",
                &["-n", namespace, "addr", "add", address, "dev", device],
            );
            run("ip", &["-n", namespace, "link", "set", device, "up"]);
        }
        run(
            "ip",
            &[
                "-n",
                peer,
                "route",
                "add",
                "10.77.1.0/24",
                "via",
                "10.77.0.1",
            ],
        );
    }

    /// Runs `work` on a thread of its own in the peer's namespace.
    pub fn at_peer<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        let peer = self.peer();
        std::thread::spawn(move || {
            enter(&peer);
            work()
        })
    }

    pub fn options(&self) -> Options {
        Options {
            interfaces: vec![interface("ekd0", HookChoice::Tc)],
            pin_dir: self.pin_dir.clone(),
            max_flows: 4096,
            max_backends: 64,
            max_services: 16,
            ..Options::default()
        }
    }

    pub fn open(&self) -> Datapath {
        open(&self.options())
    }

    /// Names of the pinned links.
    pub fn links(&self) -> Vec<String> {
        let entries = fs::read_dir(self.version().join("links"))
            .into_iter()
            .flatten()
            .flatten();
        let mut names: Vec<String> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// The only directory in the pin directory.
    pub fn version(&self) -> PathBuf {
        let mut entries = fs::read_dir(&self.pin_dir).into_iter().flatten().flatten();
        entries.next().expect("a version directory").path()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Unpinning detaches; the namespace takes its interfaces and filters with it.
        let _ = Command::new("rm").arg("-rf").arg(&self.pin_dir).status();
        for namespace in [self.peer(), self.balancer()] {
            let _ = Command::new("ip")
                .args(["netns", "del", &namespace])
                .status();
        }
    }
}

/// When this process began, in clock ticks since boot: a process id alone may be given out again. Field 22 of
/// /proc/PID/stat, see proc(5); the name, field 2, may hold spaces and ends at the last bracket.
fn start_time() -> String {
    let stat = fs::read_to_string("/proc/self/stat").expect("/proc is mounted");
    let (_, rest) = stat.rsplit_once(')').expect("a name in brackets");
    let started = rest.split_whitespace().nth(19);
    started.expect("a start time").to_owned()
}

/// Moves the calling thread into a namespace.
fn enter(namespace: &str) {
    let file =
        fs::File::open(Path::new("/run/netns").join(namespace)).expect("the namespace was made");
    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
        .expect("root may enter a namespace");
}

/// Runs a command to its end and gives its output.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed for this test: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {}: {errors}",
        arguments.join(" ")
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Waits until `done` says so; no test depends on how long that takes.
pub fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "never came true: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

pub fn open(options: &Options) -> Datapath {
    match Datapath::open(options) {
        Ok((datapath, _)) => datapath,
        Err(error) => panic!("{}", chain(&error)),
    }
}

pub fn refused(options: &Options) -> DatapathError {
    match Datapath::open(options) {
        Ok(_) => panic!("opening was to be refused"),
        Err(error) => error,
    }
}

/// An error and all its causes.
pub fn chain(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

pub fn interface(name: &str, hook: HookChoice) -> InterfaceSpec {
    InterfaceSpec {
        name: name.to_owned(),
        hook,
        xdp_mode: XdpMode::Native,
    }
}

pub fn address(text: &str) -> SocketAddr {
    text.parse().expect("a valid address in the test")
}

pub fn service(at: &str, backends: &[&str]) -> ServiceTable {
    let backends = backends.iter().map(|backend| BackendEntry {
        address: address(backend),
        weight: 1,
        nat_sources: Vec::new(),
    });
    ServiceTable {
        address: address(at),
        protocol: 6,
        mode: Mode::L4,
        forwarding: Forwarding::Nat,
        hash: FlowHash::FiveTuple,
        backends: backends.collect(),
    }
}

/// What `bpftool` shows of a pinned map, as text that can be compared.
pub fn dump(lab: &Lab, map: &str) -> String {
    let path = lab.version().join("maps").join(map);
    run(
        "bpftool",
        &["map", "dump", "pinned", &path.display().to_string()],
    )
}

/// A connection from the peer over the service to a backend at the peer; echoes what is asked for.
pub struct Echo {
    pub client: TcpStream,
    pub backend: TcpStream,
}

impl Echo {
    pub fn connect(lab: &Lab) -> Self {
        let work = || {
            let listener = TcpListener::bind("10.77.0.2:8080").expect("the backend's address");
            let client = TcpStream::connect("10.77.1.1:80").expect("the service answers");
            let (backend, _) = listener.accept().expect("the backend was chosen");
            for stream in [&client, &backend] {
                stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            }
            Self { client, backend }
        };
        lab.at_peer(work).join().expect("connected")
    }

    pub fn exchange(&mut self) {
        let mut word = [0; 4];
        self.client.write_all(b"ping").expect("sent");
        self.backend.read_exact(&mut word).expect("forwarded");
        assert_eq!(&word, b"ping");
        self.backend.write_all(b"pong").expect("sent");
        self.client.read_exact(&mut word).expect("returned");
        assert_eq!(&word, b"pong");
    }
}

pub fn echo_service() -> ServiceTable {
    service("10.77.1.1:80", &["10.77.0.2:8080"])
}
