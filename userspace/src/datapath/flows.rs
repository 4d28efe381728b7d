//! The flow table as records: both halves joined, indexes turned into addresses.

use std::net::SocketAddr;
use std::time::Duration;

use aya::maps::{IterableMap, MapData};
use evenkeel_ebpf::abi::{CREATED_SHIFT, Flow, Reply, Tuple, flag, forwarding, http2_phase, state};
use evenkeel_ebpf::http2::{self, Front};
use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use super::address::{ip_of, socket_of, socket_of_key};
use super::plan::BackendId;
use super::{Datapath, DatapathError, syscall};

/// Where a flow is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FlowState {
    /// SYN seen, not yet answered and acknowledged.
    Opening,
    /// Both sides may send.
    Established,
    /// One side sent FIN.
    Closing,
    /// Closed; the entry goes away soon.
    Closed,
    /// Closed by RST.
    Reset,
}

impl FlowState {
    fn of(bits: u8) -> Self {
        match bits {
            bits if bits & state::RESET != 0 => Self::Reset,
            bits if bits & state::CLOSED != 0 => Self::Closed,
            bits if bits & (state::CLIENT_FIN | state::BACKEND_FIN) != 0 => Self::Closing,
            bits if bits & state::SYN != 0 && bits & state::ESTABLISHED == 0 => Self::Opening,
            // A flow without a SYN was adopted in the middle.
            _ => Self::Established,
        }
    }
}

/// What a flow carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PayloadProtocol {
    /// HTTP/2: streams are counted.
    Http2,
    /// TLS: opaque.
    Tls,
    /// Something else, HTTP/1.x for example.
    Other,
    /// No payload yet, or not yet told.
    Unknown,
}

impl PayloadProtocol {
    fn of(flow: &Flow) -> Self {
        match flow.http2.phase {
            http2_phase::SYNCHRONISED => Self::Http2,
            http2_phase::SEARCHING if streams(flow) > 0 => Self::Http2,
            http2_phase::TLS => Self::Tls,
            http2_phase::OTHER => Self::Other,
            _ => Self::Unknown,
        }
    }
}

/// One flow, both directions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FlowRecord {
    /// Client address.
    pub client: SocketAddr,
    /// Service address.
    pub service: SocketAddr,
    /// IANA protocol number.
    pub protocol: u8,
    /// The backend; `None` if the flow belongs to the local proxy.
    pub backend: Option<SocketAddr>,
    /// The source that the backend sees, where NAT rewrites it.
    pub nat: Option<SocketAddr>,
    /// It is being moved to the proxy: the next packet of its client is answered with a reset.
    pub moved: bool,
    /// State.
    pub state: FlowState,
    /// The flow was recorded in the middle (no SYN was seen).
    pub adopted: bool,
    /// Time since it was recorded.
    pub age: Duration,
    /// Time since the last packet in either direction.
    pub idle: Duration,
    /// Packets client -> service.
    pub packets: u64,
    /// Bytes client -> service, from the IP header.
    pub bytes: u64,
    /// Packets backend -> client; 0 for flows of the local proxy.
    pub reply_packets: u64,
    /// Bytes backend -> client, from the IP header; 0 for flows of the local proxy.
    pub reply_bytes: u64,
    /// HTTP/2 streams opened since the connection was born.
    pub streams: u64,
    /// What it carries.
    pub payload: PayloadProtocol,
}

/// One connection of the local proxy to a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpstreamRecord {
    /// The proxy's address.
    pub local: SocketAddr,
    /// The service, if it still exists.
    pub service: Option<SocketAddr>,
    /// The backend.
    pub backend: SocketAddr,
    /// State.
    pub state: FlowState,
    /// Time since it was recorded.
    pub age: Duration,
    /// Time since the last packet towards the backend.
    pub idle: Duration,
    /// Packets towards the backend.
    pub packets: u64,
    /// Bytes towards the backend, from the IP header.
    pub bytes: u64,
    /// HTTP/2 streams opened.
    pub streams: u64,
    /// What it carries.
    pub payload: PayloadProtocol,
}

/// Client stream ids are odd and only grow (RFC 9113 section 5.1.1), so the highest one tells how many there were.
fn streams(flow: &Flow) -> u64 {
    u64::from(http2::streams(Front::of(&flow.http2).free().highest))
}

/// Now, on the clock of the data path.
pub(super) fn now() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    part(now.tv_sec) * 1_000_000_000 + part(now.tv_nsec)
}

/// How long ago a flow was recorded that has this `created`. The data path's clock may be a little ahead of ours: then just
/// now.
fn age(created: u32, now: u64) -> Duration {
    /// 1.07 s; an age that is so close to 2.3 years is a clock that is ahead.
    const AHEAD: u32 = 64;
    // Ticks wrap, and so does their difference.
    let ticks = ((now >> CREATED_SHIFT) as u32).wrapping_sub(created);
    let ticks = if ticks > u32::MAX - AHEAD { 0 } else { ticks };
    Duration::from_nanos(u64::from(ticks) << CREATED_SHIFT)
}

/// Reads every entry of a flow map.
pub(super) fn read<V: aya::Pod + Default>(
    map: &impl IterableMap<Tuple, V>,
    name: &'static str,
    each: impl FnMut(Tuple, V),
) -> Result<(), DatapathError> {
    let data: &MapData = map.map();
    syscall::read_all(data.fd(), each).map_err(|source| DatapathError::Bpf {
        call: "BPF_MAP_LOOKUP_BATCH",
        object: name.to_owned(),
        source,
    })
}

impl Datapath {
    /// Every flow in the table. A flow whose service was removed and forgotten is left out.
    pub fn flows(&self) -> Result<Vec<FlowRecord>, DatapathError> {
        let now = now();
        let mut records = Vec::new();
        self.maps.flows.read(|key, flow| {
            let reply = self.reply_of(&key, &flow);
            records.extend(self.record(&key, &flow, reply.as_ref(), now));
        });
        Ok(records)
    }

    /// Every connection of the local proxy to a backend.
    pub fn upstreams(&self) -> Result<Vec<UpstreamRecord>, DatapathError> {
        let now = now();
        let mut records = Vec::new();
        read(
            &self.maps.upstreams,
            "UPSTREAMS",
            |key: Tuple, flow: Flow| {
                records.push(UpstreamRecord {
                    local: socket_of(&key.source, key.source_port),
                    service: self
                        .indexes
                        .services
                        .key(flow.service.into())
                        .map(socket_of_key),
                    backend: socket_of(&key.destination, key.destination_port),
                    state: FlowState::of(flow.state),
                    age: age(flow.created, now),
                    idle: Duration::from_nanos(now.saturating_sub(flow.last_seen)),
                    packets: flow.packets,
                    bytes: flow.bytes,
                    streams: streams(&flow),
                    payload: PayloadProtocol::of(&flow),
                });
            },
        )?;
        Ok(records)
    }

    /// The other half of a flow. None for flows of the local proxy.
    pub(super) fn reply_of(&self, key: &Tuple, flow: &Flow) -> Option<Reply> {
        let key = self.reply_key(key, flow)?;
        self.maps.replies.get(&key, self.settings.seed)
    }

    /// The key of the other half: the tuple of what the backend answers with. None for flows of the local proxy.
    fn reply_key(&self, key: &Tuple, flow: &Flow) -> Option<Tuple> {
        let id = self.backend_of(flow)?;
        let destination = if id.forwarding == forwarding::NAT {
            self.indexes.sources.get(flow.nat_source)?
        } else {
            key.source
        };
        Some(Tuple {
            source: id.address.address,
            destination,
            source_port: id.address.port,
            destination_port: flow.nat_port,
            protocol: key.protocol,
            reserved: [0; 3],
        })
    }

    fn backend_of(&self, flow: &Flow) -> Option<&BackendId> {
        if flow.flags & flag::LOCAL != 0 {
            return None;
        }
        self.indexes.backends.key(flow.backend)
    }

    pub(super) fn record(
        &self,
        key: &Tuple,
        flow: &Flow,
        reply: Option<&Reply>,
        now: u64,
    ) -> Option<FlowRecord> {
        self.indexes.services.key(flow.service.into())?;
        let backend = self.backend_of(flow);
        let nat = backend
            .filter(|id| id.forwarding == forwarding::NAT)
            .and_then(|_| self.indexes.sources.get(flow.nat_source))
            .map(|source| SocketAddr::new(ip_of(&source), u16::from_be(flow.nat_port)));
        let last_seen = reply.map_or(flow.last_seen, |reply| reply.last_seen.max(flow.last_seen));
        // Each half learns of its own direction's flags first.
        let bits = flow.state | reply.map_or(0, |reply| reply.state);
        Some(FlowRecord {
            client: socket_of(&key.source, key.source_port),
            service: socket_of(&key.destination, key.destination_port),
            protocol: key.protocol,
            backend: backend.map(|id| socket_of_key(&id.address)),
            nat,
            moved: flow.flags & flag::MOVED != 0,
            state: FlowState::of(bits),
            adopted: flow.state & state::SYN == 0,
            age: age(flow.created, now),
            idle: Duration::from_nanos(now.saturating_sub(last_seen)),
            packets: flow.packets,
            bytes: flow.bytes,
            reply_packets: reply.map_or(0, |reply| reply.packets),
            reply_bytes: reply.map_or(0, |reply| reply.bytes),
            streams: streams(flow),
            payload: PayloadProtocol::of(flow),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_stream_id_tells_the_number_of_streams() {
        for (highest, expected) in [
            (0, 0),
            (1, 1),
            (3, 2),
            (19_999, 10_000),
            (0x7fff_ffff, 1 << 30),
            // A processor is at work on it.
            (1 << 31 | 3, 2),
        ] {
            let mut flow = Flow::default();
            flow.http2.highest = highest;
            assert_eq!(streams(&flow), expected);
        }
    }

    #[test]
    fn a_flow_recorded_by_a_clock_that_is_ahead_is_new() {
        let now = 5 << 24;
        assert_eq!(age(6, now), Duration::ZERO);
        assert_eq!(age(5, now), Duration::ZERO);
        assert_eq!(age(2, now), Duration::from_nanos(3 << 24));
        // Ticks wrapped since.
        assert_eq!(age(u32::MAX, now), Duration::from_nanos(6 << 24));
    }

    #[test]
    fn state_bits_of_both_halves_name_one_state() {
        use state::{BACKEND_FIN, CLIENT_FIN, CLOSED, ESTABLISHED, RESET, SYN};
        for (bits, expected) in [
            (SYN, FlowState::Opening),
            (SYN | ESTABLISHED, FlowState::Established),
            (0, FlowState::Established),
            (SYN | ESTABLISHED | CLIENT_FIN, FlowState::Closing),
            (
                SYN | ESTABLISHED | CLIENT_FIN | BACKEND_FIN | CLOSED,
                FlowState::Closed,
            ),
            (SYN | RESET | CLOSED, FlowState::Reset),
        ] {
            assert_eq!(FlowState::of(bits), expected);
        }
    }
}
