//! From [`ServiceTable`]s to maps.
//!
//! First everything is planned on copies (indexes, sources), which is all that can fail for reasons of the caller's.
//! Then the maps are written in an order in which every packet in between finds something whole:
//!
//! 1. NAT sources and backends, which nothing refers to yet;
//! 2. filter bits of what is coming;
//! 3. the service's Maglev table, whole, then the service itself;
//! 4. services that are gone;
//! 5. the epoch, without which a processor may go by what it remembers of a service.
//!
//! What existing flows need (a removed backend's entry, its filter bit, a removed service's address) stays until
//! [`super::sweep`] finds no flow that refers to it.

use std::collections::{HashMap, HashSet};
use std::os::fd::AsFd;

use evenkeel_ebpf::abi::{
    Backend, BackendIndex, FILTER_BACKENDS, FILTER_BITS, FILTER_SERVICES, Filter, MAGLEV_SLOTS,
    MaglevTable, NO_BACKEND, ServiceKey, filter_bit, forwarding,
};

use super::address::socket_of_key;
use super::maps::{Table, zero};
use super::plan::{Indexes, Planned, id_of, plan, validate};
use super::{DatapathError, ServiceTable};
use crate::balance::maglev;

/// The Maglev table of a service, and what it was computed from.
pub(super) struct Installed {
    choices: Vec<(u16, u32)>,
    pub(super) table: Table,
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
        let written = self.write_services(&planned);
        // Also after a refusal: what was changed before it counts.
        let renewed = self.maps.renew_services();
        written.and(renewed)?;
        self.note_sourceless(services, &planned);
        Ok(())
    }

    /// Remembers backends that this host has no source address towards, so that the sweep tries again.
    fn note_sourceless(&mut self, services: &[ServiceTable], planned: &[Planned]) {
        let backends = planned.iter().flat_map(|service| &service.backends);
        let sourceless: Vec<_> = backends
            .filter(|backend| {
                backend.value.forwarding == forwarding::NAT && backend.value.nat_count == 0
            })
            .map(|backend| socket_of_key(&id_of(&backend.value).address))
            .collect();
        for backend in sourceless
            .iter()
            .filter(|backend| !self.sourceless.contains(backend))
        {
            tracing::warn!(%backend, "no route to this backend: mode l4 drops its flows until there is one");
        }
        self.applied = if sourceless.is_empty() {
            Vec::new()
        } else {
            services.to_vec()
        };
        self.sourceless = sourceless;
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

    /// What packets of the services find, and of what they were.
    fn write_services(&mut self, planned: &[Planned]) -> Result<(), DatapathError> {
        for service in planned {
            self.write_service(service)?;
        }
        self.write_upstreams(planned)?;
        self.remove_services(planned)
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
            let mut table = self.maps.new_table()?;
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
