//! The pinning report: what `evenkeel pinning` prints and the control API returns.

use serde::{Deserialize, Serialize};

use super::skew::{self, Load};

/// The answer to "what is the balancer doing with those multiplexed streams?", for each service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PinningReport {
    /// One entry a service.
    pub services: Vec<ServicePinning>,
}

/// Skew of one service, over one interval or since load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServicePinning {
    /// Name of the service.
    pub name: String,
    /// Virtual address.
    pub address: String,
    /// Mode in force: `l4` or `l7`.
    pub mode: String,
    /// Streams.
    pub streams: u64,
    /// Open flows.
    pub flows: u64,
    /// Max / mean of streams per backend; absent where there were no streams.
    pub hot_factor: Option<f64>,
    /// Jain's index over the same; absent where there were no streams.
    pub fairness: Option<f64>,
    /// The hot factor that no balancing of flows can beat with these flows; absent where none carried streams.
    pub flow_floor: Option<f64>,
    /// Every backend, in the order of the configuration.
    pub backends: Vec<BackendShare>,
    /// The flows that carried most streams, heaviest first.
    pub top_flows: Vec<FlowShare>,
}

/// What one backend got.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendShare {
    /// Address of the backend.
    pub address: String,
    /// Weight.
    pub weight: u32,
    /// Open flows.
    pub flows: u64,
    /// Streams.
    pub streams: u64,
    /// Share of the service's streams, 0 to 1.
    pub share: f64,
}

/// What one flow carried.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FlowShare {
    /// The client's address.
    pub client: String,
    /// Address of the backend, or `local` for a flow that the proxy serves.
    pub backend: String,
    /// Streams.
    pub streams: u64,
    /// Share of the service's streams, 0 to 1.
    pub share: f64,
}

/// What is known of a service before the figures are taken.
#[derive(Clone, Debug, Default)]
pub struct Observed {
    /// Name of the service.
    pub name: String,
    /// Virtual address.
    pub address: String,
    /// Mode in force.
    pub mode: String,
    /// Open flows.
    pub flows: u64,
    /// Backends in the order of the configuration.
    pub backends: Vec<ObservedBackend>,
    /// Flows with the streams that they carried.
    pub streams_by_flow: Vec<ObservedFlow>,
}

/// A backend before the figures are taken.
#[derive(Clone, Debug)]
pub struct ObservedBackend {
    /// Address of the backend.
    pub address: String,
    /// Weight.
    pub weight: u32,
    /// Open flows.
    pub flows: u64,
    /// Streams.
    pub streams: u64,
}

/// A flow before the figures are taken.
#[derive(Clone, Debug)]
pub struct ObservedFlow {
    /// The client's address.
    pub client: String,
    /// Address of the backend, or `local`.
    pub backend: String,
    /// Streams.
    pub streams: u64,
}

impl ServicePinning {
    /// Takes the figures; keeps the `top` heaviest flows.
    #[must_use]
    pub fn new(observed: Observed, top: usize) -> Self {
        let Observed {
            name,
            address,
            mode,
            flows,
            backends,
            mut streams_by_flow,
        } = observed;
        let loads: Vec<Load> = backends
            .iter()
            .map(|backend| Load {
                streams: backend.streams,
                weight: backend.weight,
            })
            .collect();
        let streams: u64 = backends.iter().map(|backend| backend.streams).sum();
        let per_flow: Vec<u64> = streams_by_flow.iter().map(|flow| flow.streams).collect();
        let carried: u64 = per_flow.iter().sum();
        streams_by_flow.retain(|flow| flow.streams > 0);
        streams_by_flow.sort_by(|a, b| b.streams.cmp(&a.streams).then(a.client.cmp(&b.client)));
        streams_by_flow.truncate(top);
        Self {
            name,
            address,
            mode,
            streams,
            flows,
            hot_factor: skew::hot_factor(&loads),
            fairness: skew::fairness(&loads),
            flow_floor: skew::flow_floor(&per_flow, streams, &loads),
            backends: backends
                .into_iter()
                .map(|backend| BackendShare {
                    share: skew::share(backend.streams, streams),
                    address: backend.address,
                    weight: backend.weight,
                    flows: backend.flows,
                    streams: backend.streams,
                })
                .collect(),
            top_flows: streams_by_flow
                .into_iter()
                .map(|flow| FlowShare {
                    share: skew::share(flow.streams, streams.max(carried)),
                    client: flow.client,
                    backend: flow.backend,
                    streams: flow.streams,
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Observed, ObservedBackend, ObservedFlow, ServicePinning};

    fn backend(address: &str, streams: u64) -> ObservedBackend {
        ObservedBackend {
            address: address.to_owned(),
            weight: 1,
            flows: 1,
            streams,
        }
    }

    #[test]
    fn one_connection_on_one_of_four_backends_is_reported_as_pinned() {
        let report = ServicePinning::new(
            Observed {
                backends: vec![
                    backend("a", 0),
                    backend("b", 100),
                    backend("c", 0),
                    backend("d", 0),
                ],
                streams_by_flow: vec![ObservedFlow {
                    client: "1.2.3.4:5".to_owned(),
                    backend: "b".to_owned(),
                    streams: 100,
                }],
                ..Observed::default()
            },
            3,
        );
        assert_eq!(report.hot_factor, Some(4.0));
        assert_eq!(report.fairness, Some(0.25));
        assert_eq!(report.flow_floor, Some(4.0));
        assert!((report.backends[1].share - 1.0).abs() < 1e-9);
        assert_eq!(report.top_flows[0].client, "1.2.3.4:5");
    }

    #[test]
    fn only_the_heaviest_flows_that_carried_streams_are_listed() {
        let flow = |client: &str, streams| ObservedFlow {
            client: client.to_owned(),
            backend: "a".to_owned(),
            streams,
        };
        let report = ServicePinning::new(
            Observed {
                backends: vec![backend("a", 60)],
                streams_by_flow: vec![flow("x", 10), flow("y", 0), flow("z", 50)],
                ..Observed::default()
            },
            2,
        );
        let clients: Vec<_> = report
            .top_flows
            .iter()
            .map(|flow| flow.client.as_str())
            .collect();
        assert_eq!(clients, ["z", "x"]);
    }

    #[test]
    fn without_streams_the_report_claims_nothing() {
        let report = ServicePinning::new(
            Observed {
                backends: vec![backend("a", 0)],
                ..Observed::default()
            },
            3,
        );
        assert_eq!(
            (report.hot_factor, report.fairness, report.flow_floor),
            (None, None, None)
        );
    }
}
