//! Everything that can go wrong, each with what to do about it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;

use aya::EbpfError;
use aya::maps::MapError;
use aya::programs::ProgramError;
use thiserror::Error;

/// Why the data path could not do what was asked. A failed call changes nothing that packets depend on.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum DatapathError {
    /// Not enough privileges.
    #[error(
        "the data path needs root, or CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON: run evenkeel with sudo or as a system service"
    )]
    NotPermitted,
    /// The binary was built without the BPF program.
    #[error(
        "this evenkeel was built without its BPF program: run `cargo xtask build` and build again"
    )]
    NoObject,
    /// The interface does not exist.
    #[error("interface {name:?} does not exist here; known: {}", known.join(", "))]
    NoInterface {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// The interface carries something else than Ethernet frames.
    #[error(
        "interface {0:?} carries no Ethernet frames (a tunnel?): name the interface that its packets leave by, or observe \
         those of the hosts behind it"
    )]
    NotEthernet(String),
    /// The pin directory is not on a bpffs.
    #[error("{} is not on a BPF file system: run `mount -t bpf bpf {}`, or choose a `pin_dir` below /sys/fs/bpf", .0.display(), .0.display())]
    NotBpffs(PathBuf),
    /// A directory or file operation on the pin directory failed.
    #[error("cannot {action} {}", path.display())]
    Pin {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another process uses the pin directory.
    #[error("another evenkeel uses {}: stop it, or set another `pin_dir`", .0.display())]
    InUse(PathBuf),
    /// A pinned map has another shape than this binary or configuration needs.
    #[error(
        "the pinned map {map} has {property} {found}, {wanted} is needed: set it back, or stop evenkeel and run \
         `rm -r {}` (ends all L4 flows)", directory.display()
    )]
    PinnedMapDiffers {
        /// Name of the map.
        map: &'static str,
        /// What differs.
        property: &'static str,
        /// Its value in the pinned map.
        found: String,
        /// The value needed.
        wanted: String,
        /// Directory of the pins.
        directory: PathBuf,
    },
    /// A pinned link belongs to something else than its name says.
    #[error("{} is attached to another interface or in another network namespace: give each namespace its own `pin_dir`, or remove that file", .0.display())]
    OtherTarget(PathBuf),
    /// The object could not be loaded.
    #[error("cannot load the BPF object")]
    Load(#[source] Box<EbpfError>),
    /// The object lacks a map or a program.
    #[error(
        "the BPF object has no {0:?}: it belongs to another version, run `cargo xtask build` and build again"
    )]
    Missing(&'static str),
    /// A benchmark's packet was not forwarded.
    #[error(
        "the benchmark's packets are not forwarded: the backend needs a route and a resolved neighbour"
    )]
    BenchRoute,
    /// A benchmark measured something else than counting.
    #[error("the benchmark sent {sent} requests, the data path counted {counted} streams")]
    BenchCounts {
        /// Requests of all flows.
        sent: u64,
        /// Streams of all services.
        counted: u64,
    },
    /// A benchmark's flow does not fit.
    #[error("the flow table refused flow {flows} of the benchmark")]
    BenchTable {
        /// Flows that are in it.
        flows: u32,
    },
    /// A rival's program does not do what it is measured for.
    #[error("cannot measure {}: {what}", object.display())]
    BenchRival {
        /// Its object file.
        object: PathBuf,
        /// What it does instead.
        what: String,
    },
    /// A test run failed.
    #[error("a test run of the program failed")]
    Bench(#[source] io::Error),
    /// A program that is measured does not load.
    #[error("the kernel refused the program that is to be measured")]
    BenchProgram(#[source] Box<ProgramError>),
    /// The kernel refused a program.
    #[error("the kernel refused the program {name}: {verdict}")]
    Program {
        /// Name of the program.
        name: &'static str,
        /// The verifier's last word.
        verdict: String,
        /// Why.
        source: io::Error,
    },
    /// Native XDP is not available.
    #[error(
        "native XDP cannot be attached to {interface}: its driver lacks it or its settings forbid it; set \
         `hook = \"tc\"`, or `xdp_mode = \"generic\"` if XDP after the driver is what you want"
    )]
    NativeXdp {
        /// Interface name.
        interface: String,
        /// Why.
        source: Box<ProgramError>,
    },
    /// Attaching failed.
    #[error("cannot attach {program} to {target}")]
    Attach {
        /// Name of the program.
        program: &'static str,
        /// Interface or namespace.
        target: String,
        /// Why.
        source: Box<ProgramError>,
    },
    /// Pinning a link failed.
    #[error("cannot pin {}", path.display())]
    PinLink {
        /// Path of the pin.
        path: PathBuf,
        /// Why.
        source: Box<aya::pin::PinError>,
    },
    /// A `bpf` system call failed.
    #[error("{call} on {object} failed")]
    Bpf {
        /// The command.
        call: &'static str,
        /// The map, program or link.
        object: String,
        /// Why.
        source: io::Error,
    },
    /// A map operation failed.
    #[error("map {map}: {source}")]
    Map {
        /// Name of the map.
        map: &'static str,
        /// Why.
        source: Box<MapError>,
    },
    /// Two services have the same address.
    #[error("service {0} is given twice")]
    DuplicateService(SocketAddr),
    /// A backend is given twice in one service.
    #[error("service {service}: backend {backend} is given twice")]
    DuplicateBackend {
        /// Service address.
        service: SocketAddr,
        /// Backend address.
        backend: SocketAddr,
    },
    /// IPv6 or a protocol other than TCP.
    #[error("{0}: only TCP over IPv4 is balanced yet")]
    Unsupported(SocketAddr),
    /// No free slot for a service or backend.
    #[error(
        "all {limit} {what} slots are in use (removed ones are held until their last flow ends): raise `limits.{what}s`"
    )]
    NoSlot {
        /// `service` or `backend`.
        what: &'static str,
        /// How many there are.
        limit: u32,
    },
    /// No free entries in the NAT source pool.
    #[error("the pool of {limit} NAT source addresses is full: list fewer `nat.addresses`")]
    NatSourcesFull {
        /// Size of the pool.
        limit: u32,
    },
    /// A NAT source has another address family than its backend.
    #[error(
        "NAT source {source_address} cannot reach backend {backend}: it is of another address family"
    )]
    SourceFamily {
        /// The backend.
        backend: SocketAddr,
        /// The source address.
        source_address: IpAddr,
    },
    /// NAT ports overlap those of local sockets.
    #[error(
        "NAT ports {}-{} overlap the ports of local sockets {}-{} (net.ipv4.ip_local_port_range): choose other \
         `nat.ports`, or run `sysctl -w net.ipv4.ip_local_port_range=\"32768 60999\"`",
        ours.start(), ours.end(), local.start(), local.end()
    )]
    NatPortsOverlap {
        /// `nat_ports`.
        ours: RangeInclusive<u16>,
        /// The host's.
        local: RangeInclusive<u16>,
    },
    /// A bad value in the options.
    #[error("{key} is {found}: {allowed} is allowed")]
    Option {
        /// Name of the option.
        key: &'static str,
        /// What was found.
        found: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// The service is not known.
    #[error("no service {service}; known: {}", known.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    UnknownService {
        /// What was asked for.
        service: SocketAddr,
        /// What there is.
        known: Vec<SocketAddr>,
    },
    /// The routing socket failed.
    #[error("cannot {action} through netlink")]
    Netlink {
        /// What was tried.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Some other system call failed.
    #[error("{action} failed")]
    System {
        /// What was tried.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl DatapathError {
    /// Makes a closure that names the map in an error.
    pub(super) fn map(map: &'static str) -> impl Fn(MapError) -> Self {
        move |source| Self::Map {
            map,
            source: Box::new(source),
        }
    }
}
