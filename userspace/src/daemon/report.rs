//! What the state says of itself: the answers to reading requests.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::time::Instant;

use super::desired::ServiceView;
use super::plane::{FlowView, Snapshot};
use super::state::{ChangeError, State};
use crate::api::types::{
    Backend, BackendState, Backends, Check, Explanation, Flow, Flows, Service, Services, Status,
};
use crate::config::Mode;
use crate::health::Health;
use crate::pinning::report::{Observed, ObservedBackend, ObservedFlow};
use crate::pinning::{PinningReport, ServicePinning};

/// Which flows are asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct FlowQuery {
    pub(super) service: Option<String>,
    /// Part of the client's address.
    pub(super) client: Option<String>,
    /// Part of the backend's address, or of `local`.
    pub(super) backend: Option<String>,
    /// One of [`FLOW_STATES`](crate::api::types::FLOW_STATES).
    pub(super) state: Option<String>,
    pub(super) top: Option<usize>,
}

impl FlowQuery {
    /// Whether a flow is asked for; its service is looked at elsewhere.
    fn matches(&self, flow: &FlowView) -> bool {
        let has = |part: &Option<String>, text: String| {
            let part = part.as_deref();
            part.is_none_or(|part| text.contains(part))
        };
        let state = match self.state.as_deref() {
            None => true,
            Some("open") => is_open(flow),
            Some(state) => state == flow.state,
        };
        state && has(&self.client, flow.client.to_string()) && has(&self.backend, place(flow))
    }
}

/// Counters and streams by flow at one moment.
pub(super) struct Observation {
    snapshot: Snapshot,
    streams: HashMap<(SocketAddr, SocketAddr), u64>,
}

/// Heaviest flows in a pinning report, for each service.
const TOP_FLOWS: usize = 10;

impl State {
    pub(super) fn status(&self, now: Instant) -> Result<Status, ChangeError> {
        let snapshot = self.plane.counters()?;
        // From the table, not from the counters: a flow that the table evicted was opened and never closed.
        let open = self
            .plane
            .flows()?
            .iter()
            .filter(|flow| is_open(flow))
            .count();
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: now.saturating_duration_since(self.started).as_secs(),
            adopted: self.adopted,
            config: self.config.file.clone(),
            attachments: self.plane.attachments(),
            flows: open as u64,
            max_flows: self.config.flows.max.into(),
            services: self.services.len(),
            backends: self
                .services
                .iter()
                .map(|service| service.backends.len())
                .sum(),
            events: snapshot.events.into_iter().collect(),
            checks_waited: self.checks.waited(),
            proxy: Some(self.streams.figures()),
            warnings: self.warnings().map(str::to_owned).collect(),
        })
    }

    pub(super) fn list_services(&self, now: Instant) -> Result<Services, ChangeError> {
        let snapshot = self.plane.counters()?;
        let services = self.services.iter().map(|service| Service {
            name: service.name.clone(),
            address: service.address,
            protocol: "tcp".to_owned(),
            mode: service.mode,
            configured_mode: service.configured_mode,
            policy: service.policy,
            forwarding: service.forwarding,
            hash: service.hash,
            backends: service.backends.len(),
            moves_in_seconds: self
                .moves_in(&service.name, now)
                .map(|left| left.as_secs_f64()),
            counters: snapshot
                .services
                .get(&service.address)
                .copied()
                .unwrap_or_default(),
        });
        Ok(Services {
            services: services.collect(),
        })
    }

    pub(super) fn list_backends(
        &self,
        service: Option<&str>,
        now: Instant,
    ) -> Result<Backends, ChangeError> {
        let chosen = self.chosen(service)?;
        let snapshot = self.plane.counters()?;
        let unreachable = self.unreachable();
        let behind = self.is_behind_checks();
        let mut backends = Vec::new();
        for service in chosen {
            for backend in &service.backends {
                let key = (service.address, backend.address);
                let counters = snapshot.backends.get(&key).copied().unwrap_or_default();
                let check = self.check_of(service, backend.address, now);
                let fails = check.as_ref().is_some_and(|check| check.up == Some(false));
                // Until the next tick what is in force is what was found out before.
                let down = if behind { backend.down } else { fails };
                backends.push(Backend {
                    service: service.name.clone(),
                    address: backend.address,
                    // What its owner asked for comes first: nobody waits for a draining backend to come up.
                    state: match service.mode {
                        _ if backend.draining => BackendState::Draining,
                        _ if down => BackendState::Down,
                        Mode::L7 if unreachable.contains(&key) => BackendState::Down,
                        _ => BackendState::Active,
                    },
                    weight: backend.weight,
                    flows: counters.open(),
                    streams: counters.streams,
                    packets: counters.packets,
                    bytes: counters.bytes,
                    check,
                    counters,
                });
            }
        }
        Ok(Backends { backends })
    }

    fn check_of(&self, service: &ServiceView, backend: SocketAddr, now: Instant) -> Option<Check> {
        let known = self.checks.of(&service.name, backend)?;
        Some(Check {
            up: match known.health {
                Health::Unknown => None,
                Health::Up => Some(true),
                Health::Down => Some(false),
            },
            for_seconds: now.saturating_duration_since(known.since).as_secs_f64(),
            failure: known.failure.map(|failure| failure.to_string()),
        })
    }

    /// What the proxy cannot reach, by service address and backend address.
    fn unreachable(&self) -> HashSet<(SocketAddr, SocketAddr)> {
        let services = self.streams.figures().services;
        let down = services.into_iter().flat_map(|service| {
            let down = service.backends.into_iter().filter(|backend| backend.down);
            down.map(move |backend| (service.address, backend.address))
        });
        down.collect()
    }

    pub(super) fn list_flows(&self, query: &FlowQuery) -> Result<Flows, ChangeError> {
        let chosen = self.chosen(query.service.as_deref())?;
        let names: HashMap<SocketAddr, &str> = chosen
            .iter()
            .map(|s| (s.address, s.name.as_str()))
            .collect();
        let mut matching: Vec<(FlowView, &str)> = self
            .plane
            .flows()?
            .into_iter()
            .filter_map(|flow| names.get(&flow.service).map(|name| (flow, *name)))
            .filter(|(flow, _)| query.matches(flow))
            .collect();
        let total = matching.len();
        matching.sort_by_cached_key(|(flow, _)| {
            let bytes = flow.sent.1 + flow.received.1;
            (u64::MAX - flow.streams, u64::MAX - bytes, flow.client)
        });
        matching.truncate(query.top.unwrap_or(usize::MAX));
        let flows = matching
            .iter()
            .map(|(flow, name)| wire(flow, name))
            .collect();
        Ok(Flows { flows, total })
    }

    pub(super) fn explain(
        &self,
        client: SocketAddr,
        service: &str,
    ) -> Result<Explanation, ChangeError> {
        let service = self.service(service)?;
        let verdict = self.plane.explain(client, service.address)?;
        Ok(Explanation {
            client,
            service: service.name.clone(),
            address: service.address,
            destination: verdict.destination,
            existing: verdict.existing,
            hash: verdict.hash.map(|hash| format!("{hash:#018x}")),
            slot: verdict.slot,
            why: verdict.why,
        })
    }

    /// What [`State::pinning`] subtracts later, to report on an interval.
    pub(super) fn observe(&self) -> Result<Observation, ChangeError> {
        let flows = self.plane.flows()?;
        Ok(Observation {
            snapshot: self.plane.counters()?,
            streams: flows
                .iter()
                .map(|f| ((f.client, f.service), f.streams))
                .collect(),
        })
    }

    /// The pinning report, since `before` or since load.
    pub(super) fn pinning(
        &self,
        service: Option<&str>,
        before: Option<&Observation>,
    ) -> Result<PinningReport, ChangeError> {
        let chosen = self.chosen(service)?;
        let mut flows: HashMap<SocketAddr, Vec<FlowView>> = HashMap::new();
        for flow in self.plane.flows()? {
            flows.entry(flow.service).or_default().push(flow);
        }
        let snapshot = self.plane.counters()?;
        let services = chosen.into_iter().map(|service| {
            let flows = flows.remove(&service.address).unwrap_or_default();
            ServicePinning::new(observed(service, &flows, &snapshot, before), TOP_FLOWS)
        });
        Ok(PinningReport {
            services: services.collect(),
        })
    }

    fn chosen(&self, service: Option<&str>) -> Result<Vec<&ServiceView>, ChangeError> {
        match service {
            Some(wanted) => Ok(vec![self.service(wanted)?]),
            None => Ok(self.services.iter().collect()),
        }
    }
}

fn is_open(flow: &FlowView) -> bool {
    !matches!(flow.state, "closed" | "reset")
}

fn wire(flow: &FlowView, service: &str) -> Flow {
    Flow {
        client: flow.client,
        service: service.to_owned(),
        backend: place(flow),
        state: flow.state.to_owned(),
        age_seconds: flow.age.as_secs_f64(),
        idle_seconds: flow.idle.as_secs_f64(),
        packets: flow.sent.0,
        bytes: flow.sent.1,
        reply_packets: flow.received.0,
        reply_bytes: flow.received.1,
        streams: flow.streams,
        protocol: flow.protocol.to_owned(),
    }
}

fn place(flow: &FlowView) -> String {
    flow.backend
        .map_or_else(|| "local".to_owned(), |backend| backend.to_string())
}

fn observed(
    service: &ServiceView,
    flows: &[FlowView],
    snapshot: &Snapshot,
    before: Option<&Observation>,
) -> Observed {
    let streams_before = |flow: &FlowView| {
        let known = before.and_then(|b| b.streams.get(&(flow.client, flow.service)));
        // Fewer than before: another connection on the same port.
        known
            .copied()
            .filter(|streams| *streams <= flow.streams)
            .unwrap_or(0)
    };
    let backends = service.backends.iter().map(|backend| {
        let key = (service.address, backend.address);
        let counters = snapshot.backends.get(&key).copied().unwrap_or_default();
        let earlier = before
            .and_then(|b| b.snapshot.backends.get(&key))
            .map_or(0, |c| c.streams);
        ObservedBackend {
            address: backend.address.to_string(),
            // A draining backend is meant to get nothing: it makes nothing uneven.
            weight: backend.effective_weight(),
            flows: counters.open(),
            streams: counters.streams.saturating_sub(earlier),
        }
    });
    Observed {
        name: service.name.clone(),
        address: service.address.to_string(),
        mode: match service.mode {
            Mode::L7 => "l7",
            Mode::L4 | Mode::Auto => "l4",
        }
        .to_owned(),
        flows: flows.iter().filter(|flow| is_open(flow)).count() as u64,
        backends: backends.collect(),
        streams_by_flow: flows
            .iter()
            .map(|flow| ObservedFlow {
                client: flow.client.to_string(),
                backend: place(flow),
                streams: flow.streams - streams_before(flow),
            })
            .collect(),
    }
}
