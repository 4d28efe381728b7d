//! What an index stands for, and which service and backend gets which.

use std::collections::HashSet;

use evenkeel_ebpf::abi::{self, Backend, PROTOCOL_TCP, Service, ServiceKey};

use super::address::key_of;
use super::maps::Maps;
use super::nat::{self, Pool};
use super::slots::Slots;
use super::{BackendEntry, DatapathError, FlowHash, Forwarding, Mode, ServiceTable};

/// What a backend index stands for. Forwarding is part of it: a flow keeps the kind it began with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct BackendId {
    /// Service index.
    pub(super) service: u32,
    /// Address of the backend.
    pub(super) address: ServiceKey,
    /// One of [`abi::forwarding`].
    pub(super) forwarding: u8,
}

/// What userspace knows of the maps it wrote.
#[derive(Clone)]
pub(super) struct Indexes {
    pub(super) services: Slots<ServiceKey>,
    pub(super) backends: Slots<BackendId>,
    pub(super) sources: Pool,
}

/// A service with its index and its backends with theirs.
pub(super) struct Planned {
    pub(super) key: ServiceKey,
    pub(super) index: u32,
    pub(super) fresh: bool,
    pub(super) value: Service,
    pub(super) backends: Vec<PlannedBackend>,
}

pub(super) struct PlannedBackend {
    pub(super) index: u32,
    pub(super) fresh: bool,
    pub(super) value: Backend,
    pub(super) weight: u32,
}

impl Indexes {
    /// Reads back what an earlier run left in the maps (nothing, if they are new).
    pub(super) fn adopt(maps: &Maps) -> Result<Self, DatapathError> {
        let mut services = Slots::new(maps.service_info.len());
        for (index, key) in (0..).zip(maps.service_info.iter()) {
            let key = key.map_err(DatapathError::map("SERVICE_INFO"))?;
            if key.protocol != 0 {
                let live =
                    matches!(maps.services.get(&key, 0), Ok(service) if service.index == index);
                services.adopt(index, key, live);
            }
        }
        let mut backends = Slots::new(maps.backends.len());
        for (index, backend) in (0..).zip(maps.backends.iter()) {
            let backend = backend.map_err(DatapathError::map("BACKENDS"))?;
            if backend.used != 0 {
                // Which of them are wanted is known once the configuration is applied.
                backends.adopt(index, id_of(&backend), services.is_live(backend.service));
            }
        }
        let sources = maps.nat_sources.iter().collect::<Result<_, _>>();
        Ok(Self {
            services,
            backends,
            sources: Pool::new(sources.map_err(DatapathError::map("NAT_SOURCES"))?),
        })
    }
}

pub(super) fn id_of(backend: &Backend) -> BackendId {
    BackendId {
        service: backend.service,
        address: ServiceKey {
            address: backend.address,
            port: backend.port,
            protocol: PROTOCOL_TCP,
            reserved: [0; 5],
        },
        forwarding: backend.forwarding,
    }
}

/// Refuses what cannot be balanced.
pub(super) fn validate(tables: &[ServiceTable]) -> Result<(), DatapathError> {
    let mut services = HashSet::new();
    for table in tables {
        if table.protocol != PROTOCOL_TCP || !table.address.is_ipv4() {
            return Err(DatapathError::Unsupported(table.address));
        }
        if !services.insert(table.address) {
            return Err(DatapathError::DuplicateService(table.address));
        }
        let mut backends = HashSet::new();
        for backend in &table.backends {
            if !backend.address.is_ipv4() {
                return Err(DatapathError::Unsupported(backend.address));
            }
            if !backends.insert(backend.address) {
                return Err(DatapathError::DuplicateBackend {
                    service: table.address,
                    backend: backend.address,
                });
            }
        }
    }
    Ok(())
}

/// Gives every service and backend its index. `indexes` is a copy; the caller keeps the old one if this fails.
pub(super) fn plan(
    tables: &[ServiceTable],
    indexes: &mut Indexes,
) -> Result<Vec<Planned>, DatapathError> {
    let wanted: HashSet<ServiceKey> = tables
        .iter()
        .map(|table| key_of(table.address, table.protocol))
        .collect();
    indexes.services.retain(|key| wanted.contains(key));
    indexes.backends.retain(|_| false);
    tables
        .iter()
        .map(|table| plan_service(table, indexes))
        .collect()
}

fn plan_service(table: &ServiceTable, indexes: &mut Indexes) -> Result<Planned, DatapathError> {
    let key = key_of(table.address, table.protocol);
    let limit = indexes.services.limit();
    let claim = indexes
        .services
        .claim(key)
        .map_err(|_| DatapathError::NoSlot {
            what: "service",
            limit,
        })?;
    let forwarding = match table.forwarding {
        Forwarding::Nat => abi::forwarding::NAT,
        Forwarding::Dnat => abi::forwarding::DNAT,
    };
    let mut planned = Planned {
        key,
        index: claim.index,
        fresh: claim.fresh,
        value: Service {
            index: claim.index,
            mode: match table.mode {
                Mode::L4 => abi::mode::L4,
                Mode::L7 => abi::mode::L7,
            },
            forwarding,
            hash: match table.hash {
                FlowHash::FiveTuple => abi::hash::FIVE_TUPLE,
                FlowHash::SourceIp => abi::hash::SOURCE_IP,
            },
            reserved: [0; 9],
        },
        backends: Vec::with_capacity(table.backends.len()),
    };
    for backend in &table.backends {
        let backend = plan_backend(table, backend, &planned.value, indexes)?;
        planned.backends.push(backend);
    }
    Ok(planned)
}

fn plan_backend(
    table: &ServiceTable,
    backend: &BackendEntry,
    service: &Service,
    indexes: &mut Indexes,
) -> Result<PlannedBackend, DatapathError> {
    let id = BackendId {
        service: service.index,
        address: key_of(backend.address, table.protocol),
        forwarding: service.forwarding,
    };
    let limit = indexes.backends.limit();
    let claim = indexes
        .backends
        .claim(id)
        .map_err(|_| DatapathError::NoSlot {
            what: "backend",
            limit,
        })?;
    let sources = match table.forwarding {
        Forwarding::Nat => nat::sources(backend)?,
        Forwarding::Dnat => Vec::new(),
    };
    let (nat_first, nat_count) =
        indexes
            .sources
            .claim(&sources)
            .ok_or(DatapathError::NatSourcesFull {
                limit: abi::MAX_NAT_SOURCES,
            })?;
    Ok(PlannedBackend {
        index: claim.index,
        fresh: claim.fresh,
        weight: backend.weight,
        value: Backend {
            address: id.address.address,
            port: id.address.port,
            nat_first,
            nat_count,
            forwarding: service.forwarding,
            used: 1,
            service: service.index,
            reserved: [0; 3],
        },
    })
}
