//! From [`ServiceTable`]s to maps.
//!
//! First everything is planned on copies (indexes, sources), which is all that can fail for reasons of the caller's.
//! Then the maps are written in an order in which every packet in between finds something whole:
//!
//! 1. NAT sources and backends, which nothing refers to yet;
//! 2. filter bits of what is coming;
//! 3. the service's Maglev table, whole, then the service itself;
//! 4. services that are gone.
//!
//! What existing flows need (a removed backend's entry, its filter bit, a removed service's address) stays until
//! [`super::sweep`] finds no flow that refers to it.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;

use aya::maps::Array;
use evenkeel_ebpf::abi::{
    self, Backend, BackendIndex, FILTER_BACKENDS, FILTER_BITS, FILTER_SERVICES, Filter,
    MAGLEV_SLOTS, MaglevTable, NO_BACKEND, PROTOCOL_TCP, Service, ServiceKey, filter_bit,
};

use super::address::{address_of, key_of, socket_of_key};
use super::maps::{Maps, Table, zero};
use super::nat::{self, Pool};
use super::slots::Slots;
use super::{DatapathError, Forwarding, Mode, ServiceTable};
use crate::balance::maglev;

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

/// The Maglev table of a service, and what it was computed from.
pub(super) struct Installed {
    choices: Vec<(u16, u32)>,
    pub(super) table: Table,
}

/// A service with its index and its backends with theirs.
struct Planned {
    key: ServiceKey,
    index: u32,
    fresh: bool,
    value: Service,
    backends: Vec<PlannedBackend>,
}

struct PlannedBackend {
    index: u32,
    fresh: bool,
    value: Backend,
    weight: u32,
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

fn id_of(backend: &Backend) -> BackendId {
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
fn validate(tables: &[ServiceTable]) -> Result<(), DatapathError> {
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
fn plan(tables: &[ServiceTable], indexes: &mut Indexes) -> Result<Vec<Planned>, DatapathError> {
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
            reserved: [0; 10],
        },
        backends: Vec::with_capacity(table.backends.len()),
    };
    for backend in &table.backends {
        let address = key_of(backend.address, table.protocol);
        let id = BackendId {
            service: claim.index,
            address,
            forwarding,
        };
        let limit = indexes.backends.limit();
        let slot = indexes
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
        planned.backends.push(PlannedBackend {
            index: slot.index,
            fresh: slot.fresh,
            weight: backend.weight,
            value: Backend {
                address: address_of(backend.address.ip()),
                port: backend.address.port().to_be(),
                nat_first,
                nat_count,
                forwarding,
                used: 1,
                service: claim.index,
                reserved: [0; 3],
            },
        });
    }
    Ok(planned)
}

impl super::Datapath {
    /// Balances these services from now on, and no others. On error nothing changed, unless the kernel refused a
    /// map update half way; then applying again completes it.
    pub fn apply(&mut self, services: &[ServiceTable]) -> Result<(), DatapathError> {
        validate(services)?;
        let mut indexes = self.indexes.clone();
        let planned = match plan(services, &mut indexes) {
            Err(DatapathError::NoSlot { .. } | DatapathError::NatSourcesFull { .. }) => {
                // Indexes of what was removed may be free by now.
                self.release_unreferred()?;
                indexes = self.indexes.clone();
                plan(services, &mut indexes)?
            }
            result => result?,
        };
        self.write_backends(&planned, &indexes)?;
        let old = std::mem::replace(&mut self.indexes, indexes);
        self.write_filters(Some(&old))?;
        for service in &planned {
            self.write_service(service)?;
        }
        self.write_upstreams(&planned)?;
        self.remove_services(&planned)
    }

    fn write_backends(
        &mut self,
        planned: &[Planned],
        indexes: &Indexes,
    ) -> Result<(), DatapathError> {
        for (index, source) in indexes.sources.changes(&self.indexes.sources) {
            self.maps
                .nat_sources
                .set(index, source, 0)
                .map_err(DatapathError::map("NAT_SOURCES"))?;
        }
        for backend in planned.iter().flat_map(|service| &service.backends) {
            if backend.fresh {
                zero(
                    &mut self.maps.backend_counts,
                    "BACKEND_COUNTS",
                    backend.index,
                )?;
                zero(&mut self.maps.next_hops, "NEXT_HOPS", backend.index)?;
            }
            self.maps
                .backends
                .set(backend.index, backend.value, 0)
                .map_err(DatapathError::map("BACKENDS"))?;
        }
        Ok(())
    }

    fn write_service(&mut self, service: &Planned) -> Result<(), DatapathError> {
        if service.fresh {
            zero(
                &mut self.maps.service_counts,
                "SERVICE_COUNTS",
                service.index,
            )?;
            self.maps
                .service_info
                .set(service.index, service.key, 0)
                .map_err(DatapathError::map("SERVICE_INFO"))?;
        }
        let choices: Vec<(u16, u32)> = service
            .backends
            .iter()
            // `max_backends` is at most NO_BACKEND, see `Options::check`.
            .map(|backend| {
                (
                    u16::try_from(backend.index).unwrap_or(NO_BACKEND),
                    backend.weight,
                )
            })
            .collect();
        if self
            .tables
            .get(&service.index)
            .is_none_or(|installed| installed.choices != choices)
        {
            let wrong = DatapathError::map("MAGLEV");
            let mut table = Array::create(1, 0).map_err(&wrong)?;
            table
                .set(0, build(service, &choices).as_ref(), 0)
                .map_err(&wrong)?;
            self.maps
                .maglev
                .set(service.index, &table, 0)
                .map_err(&wrong)?;
            self.tables
                .insert(service.index, Installed { choices, table });
        }
        self.maps
            .services
            .insert(service.key, service.value, 0)
            .map_err(DatapathError::map("SERVICES"))
    }

    /// `BACKEND_BY_ADDR`. An address that serves several services stands for the first of them.
    fn write_upstreams(&mut self, planned: &[Planned]) -> Result<(), DatapathError> {
        let wrong = DatapathError::map("BACKEND_BY_ADDR");
        let mut wanted = HashMap::new();
        for backend in planned.iter().flat_map(|service| &service.backends) {
            let value = BackendIndex {
                backend: backend.index,
                service: backend.value.service,
            };
            wanted.entry(id_of(&backend.value).address).or_insert(value);
        }
        for (key, value) in &wanted {
            self.maps
                .backend_by_addr
                .insert(key, value, 0)
                .map_err(&wrong)?;
        }
        let stale: Vec<ServiceKey> = self
            .maps
            .backend_by_addr
            .keys()
            .filter(|key| key.as_ref().map_or(true, |key| !wanted.contains_key(key)))
            .collect::<Result<_, _>>()
            .map_err(&wrong)?;
        stale
            .iter()
            .try_for_each(|key| self.maps.backend_by_addr.remove(key).map_err(&wrong))
    }

    fn remove_services(&mut self, planned: &[Planned]) -> Result<(), DatapathError> {
        let wrong = DatapathError::map("SERVICES");
        let wanted: HashSet<ServiceKey> = planned.iter().map(|service| service.key).collect();
        let stale: Vec<ServiceKey> = self
            .maps
            .services
            .keys()
            .filter(|key| key.as_ref().map_or(true, |key| !wanted.contains(key)))
            .collect::<Result<_, _>>()
            .map_err(&wrong)?;
        stale
            .iter()
            .try_for_each(|key| self.maps.services.remove(key).map_err(&wrong))
    }

    /// Writes the filters for all that [`Indexes`] holds, and `also`: retired indexes keep their bits, because their
    /// flows live on.
    pub(super) fn write_filters(&mut self, also: Option<&Indexes>) -> Result<(), DatapathError> {
        let all = || std::iter::once(&self.indexes).chain(also);
        let services =
            filter(all().flat_map(|indexes| indexes.services.occupied().map(|(_, key, _)| *key)));
        let backends = filter(
            all().flat_map(|indexes| indexes.backends.occupied().map(|(_, id, _)| id.address)),
        );
        let wrong = DatapathError::map("FILTERS");
        self.maps
            .filters
            .set(FILTER_SERVICES, services.as_ref(), 0)
            .map_err(&wrong)?;
        self.maps
            .filters
            .set(FILTER_BACKENDS, backends.as_ref(), 0)
            .map_err(&wrong)
    }

    /// Frees an index and clears what the maps hold there.
    pub(super) fn release(
        &mut self,
        backends: &[u32],
        services: &[u32],
    ) -> Result<(), DatapathError> {
        for &index in backends {
            self.indexes.backends.release(index);
        }
        for &index in services {
            self.indexes.services.release(index);
            self.tables.remove(&index);
        }
        self.write_filters(None)?;
        for &index in backends {
            self.maps
                .backends
                .set(index, Backend::default(), 0)
                .map_err(DatapathError::map("BACKENDS"))?;
        }
        for &index in services {
            self.maps
                .service_info
                .set(index, ServiceKey::default(), 0)
                .map_err(DatapathError::map("SERVICE_INFO"))?;
            super::syscall::delete(self.maglev_pin.as_fd(), index).map_err(|source| {
                DatapathError::Bpf {
                    call: "BPF_MAP_DELETE_ELEM",
                    object: "MAGLEV".to_owned(),
                    source,
                }
            })?;
        }
        Ok(())
    }
}

/// The table of `service`; boxed, as it is 128 KiB.
fn build(service: &Planned, choices: &[(u16, u32)]) -> Box<MaglevTable> {
    // The backend's address is its identity, so that every balancer with the same backends has the same table.
    let names: Vec<String> = service
        .backends
        .iter()
        .map(|backend| socket_of_key(&id_of(&backend.value).address).to_string())
        .collect();
    let keys: Vec<(&[u8], u32)> = names
        .iter()
        .zip(choices)
        .map(|(name, (_, weight))| (name.as_bytes(), *weight))
        .collect();
    let mut table = Box::new(MaglevTable {
        slots: [NO_BACKEND; MAGLEV_SLOTS + 3],
    });
    for (slot, position) in table.slots.iter_mut().zip(maglev::table(&keys)) {
        *slot = choices
            .get(usize::from(position))
            .map_or(NO_BACKEND, |(index, _)| *index);
    }
    table
}

fn filter(keys: impl Iterator<Item = ServiceKey>) -> Box<Filter> {
    let mut filter = Box::new(Filter {
        words: [0; FILTER_BITS as usize / 64],
    });
    for key in keys {
        let bit = filter_bit(&key.address, key.port, key.protocol);
        filter.words[bit as usize / 64] |= 1 << (bit % 64);
    }
    filter
}
