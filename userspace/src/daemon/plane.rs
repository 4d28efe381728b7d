//! The data path and the proxy as [`super::State`] uses them: small traits, so that the daemon is tested without
//! root, and so that aya and h2 stay in their rooms.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::desired::ServiceView;
use crate::api::types::{Attachment, Counters};
use crate::l7::ProxyStats;

/// Why the data path or the proxy refused, in one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PlaneError(pub String);

impl PlaneError {
    /// The error and its causes, in one line.
    pub fn new(error: impl Into<anyhow::Error>) -> Self {
        Self(format!("{:#}", error.into()))
    }
}

/// All counters at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// By service address.
    pub services: HashMap<SocketAddr, Counters>,
    /// By service address and backend address.
    pub backends: HashMap<(SocketAddr, SocketAddr), Counters>,
    /// Drops and noteworthy passes by reason.
    pub events: Vec<(String, u64)>,
}

/// One flow as the data path knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct FlowView {
    /// The client.
    pub client: SocketAddr,
    /// The service's address.
    pub service: SocketAddr,
    /// The backend; `None` for a flow that the proxy serves.
    pub backend: Option<SocketAddr>,
    /// `opening`, `established`, `closing`, `closed` or `reset`.
    pub state: &'static str,
    /// Since it was recorded.
    pub age: Duration,
    /// Since the last packet from the client.
    pub idle: Duration,
    /// Packets and bytes client -> service.
    pub sent: (u64, u64),
    /// Packets and bytes backend -> client.
    pub received: (u64, u64),
    /// Streams.
    pub streams: u64,
    /// `http2`, `tls`, `other` or `unknown`.
    pub protocol: &'static str,
}

/// Where a flow goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// A backend's address, `local` or `nowhere`.
    pub destination: String,
    /// Whether the flow exists.
    pub existing: bool,
    /// The hash that decided, if one did.
    pub hash: Option<u64>,
    /// The slot that decided, if one did.
    pub slot: Option<u32>,
    /// The reasons, in order.
    pub why: Vec<String>,
}

/// The data path.
pub trait Plane: Send {
    /// Makes these the services. Failing, it changes nothing that packets depend on.
    ///
    /// # Errors
    /// The kernel or a limit refused.
    fn apply(&mut self, services: &[ServiceView]) -> Result<(), PlaneError>;
    /// All counters.
    ///
    /// # Errors
    /// The kernel refused.
    fn counters(&self) -> Result<Snapshot, PlaneError>;
    /// All flows, in no order.
    ///
    /// # Errors
    /// The kernel refused.
    fn flows(&self) -> Result<Vec<FlowView>, PlaneError>;
    /// Frees what closed flows hold.
    ///
    /// # Errors
    /// The kernel refused.
    fn sweep(&mut self) -> Result<(), PlaneError>;
    /// Has the kernel resolve the backends' neighbours before packets need them.
    ///
    /// # Errors
    /// The kernel refused.
    fn warm(&mut self) -> Result<(), PlaneError>;
    /// Attaches to interfaces that were made anew, and looks at what they can do by now.
    ///
    /// # Errors
    /// An interface is gone, or the kernel refused.
    fn tend_interfaces(&mut self) -> Result<(), PlaneError>;
    /// Has the clients of a service reset whose flows are on backends, so that they come again; returns how many there are.
    fn move_flows(&mut self, service: SocketAddr) -> u64;
    /// Where a flow of `client` to `service` goes.
    ///
    /// # Errors
    /// The kernel refused.
    fn explain(&self, client: SocketAddr, service: SocketAddr) -> Result<Verdict, PlaneError>;
    /// Whether this host delivers packets for `address` to itself: only then do flows that the data path passes up
    /// reach the proxy.
    fn is_local(&self, address: IpAddr) -> bool;
    /// What is attached where.
    fn attachments(&self) -> Vec<Attachment>;
    /// Takes the data path off the host: flows of mode `l4` end. Without this it stays when the daemon ends.
    ///
    /// # Errors
    /// The kernel refused.
    fn detach(self: Box<Self>) -> Result<(), PlaneError>;
}

/// The proxy.
pub trait Streams: Send {
    /// Makes these the services; streams in flight carry on.
    fn update(&mut self, services: &[ServiceView]);
    /// What it counts, and which backends it cannot reach.
    fn figures(&self) -> ProxyStats;
    /// Asks the clients of a service, gently, to connect again (GOAWAY).
    fn drain(&mut self, service: SocketAddr);
    /// Stops; streams in flight get `grace`.
    fn shutdown(self: Box<Self>, grace: Duration);
}
