//! What the data path is asked to do; plain data.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use evenkeel_ebpf::abi;
use serde::{Deserialize, Serialize};

/// Which hook is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookChoice {
    /// XDP (and TC) on a physical interface whose driver has native XDP, else TC.
    #[default]
    Auto,
    /// XDP, the fast path, and TC for what XDP cannot finish; or an error.
    Xdp,
    /// TC only: it keeps GSO and GRO packets whole.
    Tc,
}

/// How XDP is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum XdpMode {
    /// In the driver.
    #[default]
    Native,
    /// After the driver, in the stack: works everywhere, gains nothing over TC. Never chosen, only asked for.
    Generic,
}

/// How TC programs are attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TcAttach {
    /// tcx where the kernel has it (6.6), else clsact.
    #[default]
    Auto,
    /// The clsact qdisc, even where tcx exists: for hosts that order programs by `tc filter` priority.
    Clsact,
}

/// One interface to attach to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceSpec {
    /// Interface name.
    pub name: String,
    /// Which hook.
    pub hook: HookChoice,
    /// How, where the hook is XDP.
    pub xdp_mode: XdpMode,
}

/// How to open the data path. Everything that sizes a map is fixed as long as that map is pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Interfaces to attach to.
    pub interfaces: Vec<InterfaceSpec>,
    /// A directory of ours on a bpffs; maps and links live below `v<ABI_VERSION>`.
    pub pin_dir: PathBuf,
    /// Size of the flow table.
    pub max_flows: u32,
    /// Backend slots over all services.
    pub max_backends: u32,
    /// Services.
    pub max_services: u32,
    /// Connections of the proxy to backends that are watched at once.
    pub max_upstreams: u32,
    /// Ports that NAT uses; must not overlap `net.ipv4.ip_local_port_range`.
    pub nat_ports: RangeInclusive<u16>,
    /// How long a closed flow stays in the table, and keeps its NAT port where ports are scarce.
    pub closed_hold: Duration,
    /// How long a closed flow keeps its NAT port while there are others.
    pub port_hold: Duration,
    /// How long an established flow may be silent before it is forgotten.
    pub idle_timeout: Duration,
    /// The same for one that was never established, is half closed, or is on a removed backend.
    pub transitory_timeout: Duration,
    /// Whether HTTP/2 streams are counted.
    pub count_streams: bool,
    /// How TC programs are attached.
    pub tc_attach: TcAttach,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            interfaces: Vec::new(),
            pin_dir: PathBuf::from("/sys/fs/bpf/evenkeel"),
            max_flows: abi::DEFAULT_MAX_FLOWS,
            max_backends: abi::DEFAULT_MAX_BACKENDS,
            max_services: abi::DEFAULT_MAX_SERVICES,
            max_upstreams: abi::DEFAULT_MAX_UPSTREAMS,
            nat_ports: 10_240..=32_767,
            closed_hold: Duration::from_secs(1),
            // TCP_TIMEWAIT_LEN of Linux (include/net/tcp.h): the backend may remember the connection for so long.
            port_hold: Duration::from_secs(60),
            // The least that RFC 5382 (REQ-5) lets a NAT wait for.
            idle_timeout: Duration::from_secs(124 * 60),
            transitory_timeout: Duration::from_secs(4 * 60),
            count_streams: true,
            tc_attach: TcAttach::Auto,
        }
    }
}

/// How a service treats new flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Flows are balanced.
    L4,
    /// Streams are balanced: new flows go to the local proxy.
    L7,
}

/// How L4 reaches a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Forwarding {
    /// Source and destination rewritten.
    Nat,
    /// Destination rewritten; the balancer is the backends' gateway.
    Dnat,
}

/// What decides the backend of a new flow at L4.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowHash {
    /// The whole 5-tuple.
    #[default]
    FiveTuple,
    /// The client's address.
    SourceIp,
}

/// One service and its backends, as the data path should balance it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceTable {
    /// Virtual address.
    pub address: SocketAddr,
    /// IANA protocol number.
    pub protocol: u8,
    /// Mode for new flows.
    pub mode: Mode,
    /// How backends are reached at L4.
    pub forwarding: Forwarding,
    /// What decides the backend of a new flow.
    pub hash: FlowHash,
    /// Backends.
    pub backends: Vec<BackendEntry>,
}

/// One backend of a [`ServiceTable`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendEntry {
    /// Address of the backend.
    pub address: SocketAddr,
    /// Share of new flows relative to the other backends; 0 takes none (draining, down).
    pub weight: u32,
    /// Addresses that NAT may use as source; empty: the host's own towards this backend.
    pub nat_sources: Vec<IpAddr>,
}
