//! What goes over the control socket. Field names are stable; fields may be added.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::balance::Policy;
use crate::config::{Forwarding, HashChoice, Mode};
pub use crate::datapath::Counters;
use crate::l7::ProxyStats;

/// Answer to `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Seconds since it started.
    pub uptime_seconds: u64,
    /// Whether it took over flows of an earlier run.
    pub adopted: bool,
    /// The configuration file.
    pub config: String,
    /// What is attached where.
    pub attachments: Vec<Attachment>,
    /// Open flows.
    pub flows: u64,
    /// Size of the flow table.
    pub max_flows: u64,
    /// Services.
    pub services: usize,
    /// Backends over all services.
    pub backends: usize,
    /// Drops, and passes worth knowing of, by reason; counted since load.
    pub events: BTreeMap<String, u64>,
    /// Checks of backends that were due while `limits.checks` others were under way, and waited; counted since the start.
    #[serde(default)]
    pub checks_waited: u64,
    /// What the proxy counts; absent while no proxy runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy: Option<ProxyStats>,
    /// Why a part of the daemon does not work as configured; empty if all is well.
    pub warnings: Vec<String>,
}

/// A program at a hook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Interface, or the network namespace for `sk_lookup`.
    pub interface: String,
    /// `xdp`, `tc` or `sk_lookup`.
    pub hook: String,
    /// `native`, `generic`, `tcx`, `clsact`, ...
    pub mode: String,
    /// Name of the program.
    pub program: String,
}

/// Answer to `GET /v1/services`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Services {
    /// In the order of the configuration.
    pub services: Vec<Service>,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// Name.
    pub name: String,
    /// Virtual address.
    pub address: SocketAddr,
    /// `tcp`.
    pub protocol: String,
    /// Mode in force for new flows: `l4` or `l7`.
    pub mode: Mode,
    /// Mode asked for, by the file or by `evenkeel mode`: `l4`, `l7` or `auto`.
    pub configured_mode: Mode,
    /// Policy for streams.
    pub policy: Policy,
    /// Forwarding for flows.
    pub forwarding: Forwarding,
    /// What decides the backend of a new flow at L4: `5-tuple` or `source-ip`.
    pub hash: HashChoice,
    /// Number of backends.
    pub backends: usize,
    /// How long flows on backends are left before they are moved to the proxy; absent where that was not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moves_in_seconds: Option<f64>,
    /// Counters.
    pub counters: Counters,
}

/// Answer to `GET /v1/backends`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backends {
    /// By service, in the order of the configuration.
    pub backends: Vec<Backend>,
}

/// What a backend may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BackendState {
    /// Takes new flows and streams.
    Active,
    /// Keeps what it has, takes nothing new.
    Draining,
    /// It fails its checks (`[service.health]`). Or, of a service at `l7`: the proxy tried to connect to it in vain, has no
    /// connection to it, and goes on trying. It takes nothing meanwhile, unless all backends fail their checks. Without checks
    /// nothing is known of it at `l4`, or before the proxy has tried.
    Down,
}

impl BackendState {
    /// The name in reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Draining => "draining",
            Self::Down => "down",
        }
    }
}

/// One backend of one service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Backend {
    /// Name of the service.
    pub service: String,
    /// Address of the backend.
    pub address: SocketAddr,
    /// State.
    pub state: BackendState,
    /// Weight; a draining backend keeps the one it will have again.
    pub weight: u32,
    /// Open flows: clients' at L4, the proxy's connections at L7, once they have carried anything.
    pub flows: u64,
    /// Streams.
    pub streams: u64,
    /// Packets client -> backend.
    pub packets: u64,
    /// Bytes client -> backend.
    pub bytes: u64,
    /// What its checks say; absent where it is not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Check>,
    /// All counters.
    pub counters: Counters,
}

/// What the checks of a backend say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Whether it is up; `null` before its first check is over.
    pub up: Option<bool>,
    /// Seconds since that was found out.
    pub for_seconds: f64,
    /// Why the last check failed, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// States of a [`Flow`] that may be asked for; `open` is any of the next three.
pub const FLOW_STATES: [&str; 6] = [
    "open",
    "opening",
    "established",
    "closing",
    "closed",
    "reset",
];

/// Answer to `GET /v1/flows`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flows {
    /// Those asked for, most streams (then bytes) first.
    pub flows: Vec<Flow>,
    /// How many matched before `top` cut the list.
    pub total: usize,
}

/// One flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Flow {
    /// The client's address.
    pub client: SocketAddr,
    /// Name of the service.
    pub service: String,
    /// Address of the backend, or `local` for a flow that the proxy serves.
    pub backend: String,
    /// `opening`, `established`, `closing`, `closed`, `reset`.
    pub state: String,
    /// Seconds since it was recorded.
    pub age_seconds: f64,
    /// Seconds since its last packet from the client.
    pub idle_seconds: f64,
    /// Packets client -> service.
    pub packets: u64,
    /// Bytes client -> service.
    pub bytes: u64,
    /// Packets backend -> client.
    pub reply_packets: u64,
    /// Bytes backend -> client.
    pub reply_bytes: u64,
    /// HTTP/2 streams.
    pub streams: u64,
    /// `http2`, `tls`, `other` or `unknown`.
    pub protocol: String,
}

/// Answer to `GET /v1/explain`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explanation {
    /// The client asked about.
    pub client: SocketAddr,
    /// Name of the service.
    pub service: String,
    /// Virtual address.
    pub address: SocketAddr,
    /// Where the flow goes: a backend's address, `local` (the proxy) or `nowhere`.
    pub destination: String,
    /// Whether that flow exists now; otherwise this is where it would go.
    pub existing: bool,
    /// The flow's hash in hexadecimal (JSON numbers lose 64 bits), where one decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// The slot of the Maglev table, where one decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<u32>,
    /// The reasons, in the order in which the data path asks.
    pub why: Vec<String>,
}

/// Body of `PUT /v1/services/NAME/mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModeRequest {
    /// The mode wanted.
    pub mode: Mode,
    /// Whether flows that exist are moved too, instead of living out where they are.
    #[serde(default)]
    pub move_existing: bool,
    /// How long flows that exist are left on their backends before they are reset; for mode `l7` with `move_existing`, and
    /// 30,000 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
}

/// Body of `POST /v1/services/NAME/backends`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendRequest {
    /// `IP:PORT`.
    pub address: String,
    /// Weight; 1 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
}

/// Body of `PATCH /v1/services/NAME/backends/IP:PORT`; absent fields stay as they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BackendPatch {
    /// New weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// Whether it takes nothing new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining: Option<bool>,
}

/// Answer to a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// What changed, in one sentence.
    pub done: String,
}

/// Answer to a request that failed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Why, in one sentence.
    pub error: String,
    /// What there is, where something unknown was named.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub known: Vec<String>,
}
