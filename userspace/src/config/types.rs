//! The configuration once it is known to be right; plain data.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::balance::Policy;
use crate::health::Settings;
use crate::l7::Limits;

/// A value chosen by name.
pub(super) trait Named: Copy + 'static {
    /// All values with their names.
    const NAMES: &'static [(&'static str, Self)];
}

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$variant_doc])* #[serde(rename = $text)] $variant),* }

        impl $name {
            /// The name in configuration, reports and the control API.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }

        impl Named for $name {
            const NAMES: &'static [(&'static str, Self)] = &[$(($text, Self::$variant)),*];
        }
    };
}

named! {
    /// What a service balances.
    Mode {
        /// Flows.
        #[default]
        L4 = "l4",
        /// Streams.
        L7 = "l7",
        /// Evenkeel chooses between the two by what it measures.
        Auto = "auto",
    }
}

named! {
    /// How L4 reaches a backend.
    Forwarding {
        /// Source and destination rewritten; works with unprepared backends.
        #[default]
        Nat = "nat",
        /// Destination rewritten; the client's address is kept, the balancer is the backends' gateway.
        Dnat = "dnat",
    }
}

named! {
    /// What decides the backend of a new flow at L4.
    HashChoice {
        /// Addresses, ports and protocol: every flow is chosen for by itself.
        #[default]
        FiveTuple = "5-tuple",
        /// The client's address: its flows stay together, whatever ports they come from.
        SourceIp = "source-ip",
    }
}

named! {
    /// Where packets are taken.
    HookChoice {
        /// XDP where the driver has it, else TC.
        #[default]
        Auto = "auto",
        /// XDP, or an error.
        Xdp = "xdp",
        /// TC.
        Tc = "tc",
    }
}

named! {
    /// How XDP is attached.
    XdpMode {
        /// In the driver.
        #[default]
        Native = "native",
        /// In the stack; works everywhere and gains nothing over TC.
        Generic = "generic",
    }
}

impl Named for Policy {
    const NAMES: &'static [(&'static str, Self)] = &[
        (Self::RoundRobin.name(), Self::RoundRobin),
        (Self::LeastRequest.name(), Self::LeastRequest),
        (Self::P2c.name(), Self::P2c),
    ];
}

/// The whole file.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The file it came from, as it was named.
    pub file: String,
    /// `[daemon]`.
    pub daemon: Daemon,
    /// `[[interface]]`, at least one.
    pub interfaces: Vec<Interface>,
    /// `[flows]`.
    pub flows: Flows,
    /// `[nat]`.
    pub nat: Nat,
    /// `[limits]`.
    pub limits: Sizes,
    /// `[auto]`.
    pub auto: Auto,
    /// `[l7]`.
    pub l7: Limits,
    /// `[[service]]`, at least one.
    pub services: Vec<Service>,
    /// Where the keys are that only the host can judge.
    pub lines: Lines,
}

/// `[daemon]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Daemon {
    /// The control socket.
    pub socket: PathBuf,
    /// Group that may use the control socket besides root.
    pub socket_group: Option<String>,
    /// Where overrides made by the CLI are kept.
    pub state_dir: PathBuf,
    /// Directory on a bpffs where the data path is pinned.
    pub pin_dir: PathBuf,
}

impl Default for Daemon {
    fn default() -> Self {
        Self {
            socket: PathBuf::from(super::DEFAULT_SOCKET),
            socket_group: None,
            state_dir: PathBuf::from("/run/evenkeel"),
            pin_dir: PathBuf::from("/sys/fs/bpf/evenkeel"),
        }
    }
}

/// One `[[interface]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Which hook.
    pub hook: HookChoice,
    /// How, where the hook is XDP.
    pub xdp_mode: XdpMode,
}

/// `[flows]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flows {
    /// Size of the flow table.
    pub max: u32,
    /// How long a closed flow stays in the table, and keeps its NAT port where ports are scarce.
    pub closed_hold: Duration,
    /// How long an established flow may be silent before it is forgotten, and its NAT port is free.
    pub idle_timeout: Duration,
    /// The same for one that was never established, is half closed, or is on a removed backend.
    pub transitory_timeout: Duration,
    /// Whether HTTP/2 streams are counted.
    pub count_streams: bool,
}

impl Default for Flows {
    fn default() -> Self {
        Self {
            max: 1 << 20,
            closed_hold: Duration::from_secs(1),
            // The least that RFC 5382 (REQ-5) lets a NAT wait for: two hours are the usual interval of TCP keepalives.
            idle_timeout: Duration::from_secs(124 * 60),
            transitory_timeout: Duration::from_secs(4 * 60),
            count_streams: true,
        }
    }
}

/// `[nat]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nat {
    /// Ports that NAT uses as source.
    pub ports: RangeInclusive<u16>,
    /// Addresses that NAT uses as source; empty: the host's own towards each backend.
    pub addresses: Vec<Ipv4Addr>,
    /// How long a closed flow keeps its NAT port while there are others: the backend may remember the connection.
    pub port_hold: Duration,
}

impl Default for Nat {
    fn default() -> Self {
        Self {
            ports: 10_240..=32_767,
            addresses: Vec::new(),
            // TCP_TIMEWAIT_LEN of Linux (include/net/tcp.h).
            port_hold: Duration::from_secs(60),
        }
    }
}

/// `[limits]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Backend slots, over all services; a slot is reused once no flow refers to it.
    pub backends: u32,
    /// Services.
    pub services: u32,
    /// Connections of the proxy to backends whose streams are counted at once. Where there are more, the one that was silent
    /// for longest is forgotten, and with its next request all its streams count once more.
    pub upstreams: u32,
    /// Checks of backends that are under way at once. Where more are due, they wait for each other.
    pub checks: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Self {
            backends: 4096,
            services: 1024,
            upstreams: 1 << 16,
            checks: 128,
        }
    }
}

/// `[auto]`: when a service of mode `auto` changes between `l4` and `l7`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Auto {
    /// Hot factor above which streams should be balanced.
    pub hot_factor: f64,
    /// Fewer streams than this in an interval decide nothing.
    pub min_streams: u64,
    /// How often the decision is taken.
    pub interval: Duration,
}

impl Default for Auto {
    fn default() -> Self {
        Self {
            hot_factor: 1.5,
            min_streams: 100,
            interval: Duration::from_secs(5),
        }
    }
}

/// One `[[service]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name, unique.
    pub name: String,
    /// Virtual address, unique.
    pub address: SocketAddr,
    /// Mode.
    pub mode: Mode,
    /// Policy for streams.
    pub policy: Policy,
    /// Forwarding for flows.
    pub forwarding: Forwarding,
    /// What decides the backend of a new flow.
    pub hash: HashChoice,
    /// How its backends are checked; `None`: not at all.
    pub health: Option<Settings>,
    /// Backends, at least one.
    pub backends: Vec<Backend>,
}

/// One `[[service.backend]]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its address, unique within the service.
    pub address: SocketAddr,
    /// Share of new flows and streams relative to the other backends; 0 takes none.
    pub weight: u32,
}

/// Lines of the keys that only the host can judge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// Of each interface's name.
    pub interfaces: Vec<usize>,
    /// Of `nat.ports`, if set.
    pub nat_ports: Option<usize>,
    /// Of `daemon.socket_group`, if set.
    pub socket_group: Option<usize>,
}
