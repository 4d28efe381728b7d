//! The kernel's tables at one moment, in terms of `std`.

use std::net::SocketAddr;

use super::Histogram;

/// What a connection carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Carries {
    /// HTTP/2 in clear text: streams are counted.
    Http2,
    /// TLS: opaque.
    Tls,
    /// Something else.
    Other,
    /// No payload yet, or not told yet.
    Unknown,
}

/// One connection; the tag tells it from a later one between the same ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowId {
    /// Who opened it.
    pub client: SocketAddr,
    /// Who answers: the peer.
    pub server: SocketAddr,
    /// Drawn by the kernel side.
    pub tag: u32,
}

/// What is known of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowReading {
    /// Which.
    pub id: FlowId,
    /// Who is the client was seen, and not guessed from the ports.
    pub certain: bool,
    /// What it carries.
    pub carries: Carries,
    /// The client's packets were first seen as they came in, not as they went out.
    pub received: bool,
    /// The handshake was seen.
    pub opened: bool,
    /// It has ended.
    pub closed: bool,
    /// Streams opened while it was observed.
    pub streams: u64,
    /// Streams opened before.
    pub before: u64,
    /// Streams that wait for their answer, of those whose beginning was seen.
    pub in_flight: u64,
    /// Of those, streams whose end may have been in a segment that was passed over.
    pub in_flight_unsure: u64,
    /// Such streams that began over 69 s ago: they ended, most likely, and are not in flight.
    pub unfinished: u64,
    /// Bytes to the server, from the IP header, without bare acknowledgements.
    pub bytes_to_server: u64,
    /// Bytes to the client, likewise.
    pub bytes_to_client: u64,
}

/// What is known of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerReading {
    /// Its address.
    pub server: SocketAddr,
    /// Streams opened at it.
    pub streams: u64,
    /// Streams that either side gave up.
    pub reset: u64,
    /// How long answers took.
    pub latency: Histogram,
}

/// Everything at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Connections.
    pub flows: Vec<FlowReading>,
    /// Servers with HTTP/2.
    pub peers: Vec<PeerReading>,
    /// What went wrong, by name.
    pub events: Vec<(&'static str, u64)>,
}
