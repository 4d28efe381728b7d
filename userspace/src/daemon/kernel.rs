//! [`Plane`] by the real data path.

use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, OwnedFd};

use super::desired::ServiceView;
use super::plane::{FlowView, Plane, PlaneError, Snapshot, Verdict};
use crate::api::types;
use crate::config::{self, Config};
use crate::datapath::preflight::{Finding, Status};
use crate::datapath::{
    self, BackendEntry, Datapath, FlowHash, FlowRecord, FlowState, Forwarding, HookChoice,
    InterfaceSpec, Mode, Options, PayloadProtocol, ServiceTable, TcAttach, XdpMode,
};
use evenkeel_ebpf::abi::PROTOCOL_TCP;

/// The data path, and what of the configuration each table needs.
pub(super) struct Kernel {
    datapath: Datapath,
    nat_sources: Vec<IpAddr>,
    /// The proxy's listening socket, until connections are handed to it.
    listener: Option<OwnedFd>,
}

/// The data path's options as the configuration has them.
pub(super) fn options(config: &Config) -> Options {
    Options {
        interfaces: config
            .interfaces
            .iter()
            .map(|interface| InterfaceSpec {
                name: interface.name.clone(),
                hook: match interface.hook {
                    config::HookChoice::Auto => HookChoice::Auto,
                    config::HookChoice::Xdp => HookChoice::Xdp,
                    config::HookChoice::Tc => HookChoice::Tc,
                },
                xdp_mode: match interface.xdp_mode {
                    config::XdpMode::Native => XdpMode::Native,
                    config::XdpMode::Generic => XdpMode::Generic,
                },
            })
            .collect(),
        pin_dir: config.daemon.pin_dir.clone(),
        max_flows: config.flows.max,
        max_backends: config.limits.backends,
        max_services: config.limits.services,
        max_upstreams: config.limits.upstreams,
        nat_ports: config.nat.ports.clone(),
        closed_hold: config.flows.closed_hold,
        port_hold: config.nat.port_hold,
        idle_timeout: config.flows.idle_timeout,
        transitory_timeout: config.flows.transitory_timeout,
        count_streams: config.flows.count_streams,
        tc_attach: TcAttach::Auto,
    }
}

/// Looks at this host, and at what `config` needs of it besides.
#[must_use]
pub fn preflight(config: Option<&Config>) -> Vec<Finding> {
    let mut findings = datapath::preflight::check();
    let Some(config) = config else {
        return findings;
    };
    findings.extend(datapath::preflight::check_options(&options(config)));
    for service in &config.services {
        let address = service.address.ip();
        if service.mode == config::Mode::L4 || is_local(address) {
            continue;
        }
        findings.push(Finding {
            name: format!("service {}", service.name),
            status: Status::Warn,
            found: format!(
                "{address} is no address of this host, so connections cannot reach the proxy"
            ),
            remedy: format!("ip address add {address}/32 dev lo"),
        });
    }
    findings
}

impl Kernel {
    /// `listener` is steered to with the first services, when the proxy knows them: an adopted data path may be
    /// handing connections over already.
    pub(super) fn new(datapath: Datapath, config: &Config, listener: OwnedFd) -> Self {
        Self {
            datapath,
            listener: Some(listener),
            nat_sources: config
                .nat
                .addresses
                .iter()
                .copied()
                .map(IpAddr::V4)
                .collect(),
        }
    }

    fn table(&self, service: &ServiceView) -> ServiceTable {
        let backends = service.backends.iter().map(|backend| BackendEntry {
            address: backend.address,
            weight: backend.effective_weight(),
            nat_sources: self.nat_sources.clone(),
        });
        ServiceTable {
            address: service.address,
            protocol: PROTOCOL_TCP,
            mode: match service.mode {
                config::Mode::L7 => Mode::L7,
                config::Mode::L4 | config::Mode::Auto => Mode::L4,
            },
            forwarding: match service.forwarding {
                config::Forwarding::Nat => Forwarding::Nat,
                config::Forwarding::Dnat => Forwarding::Dnat,
            },
            hash: match service.hash {
                config::HashChoice::FiveTuple => FlowHash::FiveTuple,
                config::HashChoice::SourceIp => FlowHash::SourceIp,
            },
            backends: backends.collect(),
        }
    }
}

impl Plane for Kernel {
    fn apply(&mut self, services: &[ServiceView]) -> Result<(), PlaneError> {
        let tables: Vec<ServiceTable> =
            services.iter().map(|service| self.table(service)).collect();
        if let Some(listener) = &self.listener {
            self.datapath
                .steer_to(listener.as_fd())
                .map_err(PlaneError::new)?;
            // The proxy holds the socket open; a second holder would keep it so after the proxy is gone.
            self.listener = None;
        }
        self.datapath.apply(&tables).map_err(PlaneError::new)
    }

    fn counters(&self) -> Result<Snapshot, PlaneError> {
        let counted = self.datapath.counters().map_err(PlaneError::new)?;
        Ok(Snapshot {
            services: counted.services.into_iter().collect(),
            backends: counted
                .backends
                .into_iter()
                .map(|(service, backend, counters)| ((service, backend), counters))
                .collect(),
            events: counted
                .events
                .into_iter()
                .map(|(name, number)| (name.to_owned(), number))
                .collect(),
        })
    }

    fn flows(&self) -> Result<Vec<FlowView>, PlaneError> {
        let flows = self.datapath.flows().map_err(PlaneError::new)?;
        Ok(flows.into_iter().map(|flow| view(&flow)).collect())
    }

    fn sweep(&mut self) -> Result<(), PlaneError> {
        self.datapath.sweep().map(|_| ()).map_err(PlaneError::new)
    }

    fn warm(&mut self) -> Result<(), PlaneError> {
        let warmed = self.datapath.warm_neighbours();
        warmed.map(|_| ()).map_err(PlaneError::new)
    }

    fn tend_interfaces(&mut self) -> Result<(), PlaneError> {
        self.datapath.tend_interfaces().map_err(PlaneError::new)
    }

    fn move_flows(&mut self, service: SocketAddr) -> u64 {
        self.datapath.move_flows(service)
    }

    fn explain(&self, client: SocketAddr, service: SocketAddr) -> Result<Verdict, PlaneError> {
        let explained = self
            .datapath
            .explain(client, service)
            .map_err(PlaneError::new)?;
        let ended = |flow: &FlowRecord| matches!(flow.state, FlowState::Closed | FlowState::Reset);
        let existing = explained.existing.is_some_and(|flow| !ended(&flow));
        let by_hash = !existing && !explained.local;
        Ok(Verdict {
            destination: match explained.backend {
                _ if explained.local => "local".to_owned(),
                Some(backend) => backend.to_string(),
                None => "nowhere".to_owned(),
            },
            existing,
            hash: by_hash.then_some(explained.hash),
            slot: by_hash.then_some(explained.slot),
            why: explained.reasons,
        })
    }

    fn is_local(&self, address: IpAddr) -> bool {
        is_local(address)
    }

    fn attachments(&self) -> Vec<types::Attachment> {
        let attachments = self.datapath.attachments().into_iter();
        let wire = attachments.map(|attachment| types::Attachment {
            interface: attachment.interface,
            hook: attachment.hook,
            mode: attachment.mode,
            program: attachment.program,
        });
        wire.collect()
    }

    fn detach(self: Box<Self>) -> Result<(), PlaneError> {
        self.datapath.detach().map_err(PlaneError::new)
    }
}

/// The kernel's own answer. Where it gives none nothing is known against the address.
fn is_local(address: IpAddr) -> bool {
    datapath::is_local(address).unwrap_or_else(|error| {
        tracing::debug!(%address, %error, "no answer to whether it is local");
        true
    })
}

fn view(flow: &FlowRecord) -> FlowView {
    FlowView {
        client: flow.client,
        service: flow.service,
        backend: flow.backend,
        state: match flow.state {
            FlowState::Opening => "opening",
            FlowState::Established => "established",
            FlowState::Closing => "closing",
            FlowState::Closed => "closed",
            FlowState::Reset => "reset",
        },
        age: flow.age,
        idle: flow.idle,
        sent: (flow.packets, flow.bytes),
        received: (flow.reply_packets, flow.reply_bytes),
        streams: flow.streams,
        protocol: match flow.payload {
            PayloadProtocol::Http2 => "http2",
            PayloadProtocol::Tls => "tls",
            PayloadProtocol::Other => "other",
            PayloadProtocol::Unknown => "unknown",
        },
    }
}
