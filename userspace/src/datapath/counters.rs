//! Counters, summed over CPUs.

use std::net::SocketAddr;

use aya::Pod;
use aya::maps::{MapData, PerCpuArray};
use evenkeel_ebpf::abi::{Counters as Raw, Event};
use serde::{Deserialize, Serialize};

use super::address::socket_of_key;
use super::{Datapath, DatapathError};

/// What was counted for a service or a backend. Every field only grows as long as the maps are pinned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Flows recorded.
    pub flows_opened: u64,
    /// Flows closed by FIN in both directions or by RST.
    pub flows_closed: u64,
    /// Packets client -> service.
    pub packets: u64,
    /// Bytes client -> service, from the IP header.
    pub bytes: u64,
    /// Packets backend -> client (L4 only).
    pub reply_packets: u64,
    /// Bytes backend -> client, from the IP header (L4 only).
    pub reply_bytes: u64,
    /// HTTP/2 streams opened.
    pub streams: u64,
    /// Flows without a SYN that fell back to the hash.
    pub flows_adopted: u64,
    /// Flows that were handed to the local proxy (services only).
    pub flows_local: u64,
    /// Flows found to carry HTTP/2.
    pub flows_http2: u64,
}

impl Counters {
    /// Flows recorded and not yet closed.
    #[must_use]
    pub const fn open(&self) -> u64 {
        self.flows_opened.saturating_sub(self.flows_closed)
    }

    fn add(&mut self, raw: &Raw) {
        // Exhaustive on purpose: a new counter does not compile until it is summed.
        let Raw {
            flows_opened,
            flows_closed,
            packets,
            bytes,
            reply_packets,
            reply_bytes,
            streams,
            flows_adopted,
            flows_local,
            flows_http2,
        } = raw;
        self.flows_opened += flows_opened;
        self.flows_closed += flows_closed;
        self.packets += packets;
        self.bytes += bytes;
        self.reply_packets += reply_packets;
        self.reply_bytes += reply_bytes;
        self.streams += streams;
        self.flows_adopted += flows_adopted;
        self.flows_local += flows_local;
        self.flows_http2 += flows_http2;
    }
}

/// All counters at one moment (each consistent in itself, not with each other).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CounterSnapshot {
    /// `(service, counters)`, services of the configuration.
    pub services: Vec<(SocketAddr, Counters)>,
    /// `(service, backend, counters)`, including removed backends that still have flows.
    pub backends: Vec<(SocketAddr, SocketAddr, Counters)>,
    /// `(name, count)` of every drop and noteworthy pass.
    pub events: Vec<(&'static str, u64)>,
}

impl Datapath {
    /// Reads every counter.
    pub fn counters(&self) -> Result<CounterSnapshot, DatapathError> {
        let mut snapshot = CounterSnapshot::default();
        for (index, key, live) in self.indexes.services.occupied() {
            if live {
                let counters = sum(&self.maps.service_counts, "SERVICE_COUNTS", index)?;
                snapshot.services.push((socket_of_key(key), counters));
            }
        }
        for (index, id, _) in self.indexes.backends.occupied() {
            let Some(service) = self.indexes.services.key(id.service).map(socket_of_key) else {
                continue;
            };
            let backend = socket_of_key(&id.address);
            let counters = per_cpu(&self.maps.backend_counts, "BACKEND_COUNTS", index)?;
            // A backend whose forwarding changed has two indexes for a while; their sum is its count.
            let known = snapshot
                .backends
                .iter_mut()
                .find(|(s, b, _)| *s == service && *b == backend);
            let total = match known {
                Some((_, _, total)) => total,
                None => {
                    &mut snapshot
                        .backends
                        .push_mut((service, backend, Counters::default()))
                        .2
                }
            };
            counters.iter().for_each(|counters| total.add(counters));
        }
        for (index, name) in (0..).zip(Event::NAMES) {
            let counts = per_cpu(&self.maps.events, "EVENTS", index)?;
            snapshot.events.push((name, counts.iter().sum()));
        }
        Ok(snapshot)
    }

    /// Flows opened and closed so far, over all services.
    pub(super) fn turnover(&self) -> Result<(u64, u64), DatapathError> {
        let mut total = Counters::default();
        for (index, ..) in self.indexes.services.occupied() {
            let counters = sum(&self.maps.service_counts, "SERVICE_COUNTS", index)?;
            total.flows_opened += counters.flows_opened;
            total.flows_closed += counters.flows_closed;
        }
        Ok((total.flows_opened, total.flows_closed))
    }
}

pub(super) fn sum(
    map: &PerCpuArray<MapData, Raw>,
    name: &'static str,
    index: u32,
) -> Result<Counters, DatapathError> {
    let mut total = Counters::default();
    per_cpu(map, name, index)?
        .iter()
        .for_each(|counters| total.add(counters));
    Ok(total)
}

fn per_cpu<V: Pod>(
    map: &PerCpuArray<MapData, V>,
    name: &'static str,
    index: u32,
) -> Result<Vec<V>, DatapathError> {
    let values = map.get(&index, 0).map_err(DatapathError::map(name))?;
    Ok(values.to_vec())
}
