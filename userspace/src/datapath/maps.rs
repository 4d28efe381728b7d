//! Typed handles of every map of the BPF object.

use std::collections::BTreeMap;
use std::os::fd::AsFd as _;

use aya::maps::{Array, ArrayOfMaps, HashMap, Map, MapData, PerCpuArray, SockMap};
use aya::{Ebpf, Pod};
use evenkeel_ebpf::abi::{
    Address, Backend, BackendIndex, Counters, Filter, Flow, MaglevTable, NextHop, Reply, Service,
    ServiceInfo, ServiceKey, Settings, Tuple,
};
use evenkeel_ebpf::table::{self, Entry};

use super::table::FlowTable;
use super::{DatapathError, Options, syscall};

/// The inner map of `MAGLEV`.
pub(super) type Table = Array<MapData, MaglevTable>;

/// One field a map, named like the map.
pub(super) struct Maps {
    pub(super) settings: Array<MapData, Settings>,
    pub(super) filters: Array<MapData, Filter>,
    pub(super) services: HashMap<MapData, ServiceKey, Service>,
    pub(super) service_epoch: Array<MapData, u64>,
    pub(super) service_info: Array<MapData, ServiceInfo>,
    pub(super) maglev: ArrayOfMaps<MapData, Table>,
    /// What makes the tables in it.
    maglev_table: syscall::MapTemplate,
    pub(super) backends: Array<MapData, Backend>,
    pub(super) backend_by_addr: HashMap<MapData, ServiceKey, BackendIndex>,
    pub(super) nat_sources: Array<MapData, Address>,
    pub(super) flows: FlowTable<Flow>,
    pub(super) replies: FlowTable<Reply>,
    pub(super) upstreams: HashMap<MapData, Tuple, Flow>,
    pub(super) xdp_ports: HashMap<MapData, u32, u32>,
    pub(super) next_hops: PerCpuArray<MapData, NextHop>,
    pub(super) service_counts: PerCpuArray<MapData, Counters>,
    pub(super) backend_counts: PerCpuArray<MapData, Counters>,
    pub(super) events: PerCpuArray<MapData, u64>,
    pub(super) steer_sockets: SockMap<MapData>,
}

impl Maps {
    /// Takes the maps out of a loaded object.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, DatapathError> {
        Ok(Self {
            settings: take(ebpf, "SETTINGS")?,
            filters: take(ebpf, "FILTERS")?,
            services: take(ebpf, "SERVICES")?,
            service_epoch: take(ebpf, "SERVICE_EPOCH")?,
            service_info: take(ebpf, "SERVICE_INFO")?,
            maglev: take(ebpf, "MAGLEV")?,
            maglev_table: table_maker(ebpf)?,
            backends: take(ebpf, "BACKENDS")?,
            backend_by_addr: take(ebpf, "BACKEND_BY_ADDR")?,
            nat_sources: take(ebpf, "NAT_SOURCES")?,
            flows: flow_table(ebpf, "FLOW_INDEX", "FLOWS")?,
            replies: flow_table(ebpf, "REPLY_INDEX", "REPLIES")?,
            upstreams: take(ebpf, "UPSTREAMS")?,
            xdp_ports: take(ebpf, "XDP_PORTS")?,
            next_hops: take(ebpf, "NEXT_HOPS")?,
            service_counts: take(ebpf, "SERVICE_COUNTS")?,
            backend_counts: take(ebpf, "BACKEND_COUNTS")?,
            events: take(ebpf, "EVENTS")?,
            steer_sockets: take(ebpf, "STEER_SOCKETS")?,
        })
    }
}

/// The two arrays of a flow table, mapped. They stay in the object, whose programs are still to be loaded with them.
fn flow_table<V: Pod + Entry>(
    ebpf: &Ebpf,
    index: &'static str,
    slots: &'static str,
) -> Result<FlowTable<V>, DatapathError> {
    let array = |name| match ebpf.map(name) {
        Some(Map::Array(data)) => Ok(data),
        _ => Err(DatapathError::Missing(name)),
    };
    FlowTable::open(array(index)?, array(slots)?, array("RINGS")?).map_err(|source| {
        DatapathError::System {
            action: "mapping the flow table",
            source,
        }
    })
}

/// Makes tables like the object's `MAGLEV_TABLE`, which `MAGLEV` takes.
fn table_maker(ebpf: &mut Ebpf) -> Result<syscall::MapTemplate, DatapathError> {
    const NAME: &str = "MAGLEV_TABLE";
    let map: MapData = match ebpf.take_map(NAME) {
        Some(Map::Array(data)) => data,
        _ => return Err(DatapathError::Missing(NAME)),
    };
    syscall::MapTemplate::of(map.fd().as_fd()).map_err(|source| DatapathError::System {
        action: "asking the kernel about map MAGLEV_TABLE",
        source,
    })
}

impl Maps {
    /// Makes what was changed in `SERVICES` count for every packet from here on: see `ebpf/src/service.rs`.
    pub(super) fn renew_services(&mut self) -> Result<(), DatapathError> {
        let wrong = || DatapathError::map("SERVICE_EPOCH");
        let epoch = self.service_epoch.get(&0, 0).map_err(wrong())?;
        self.service_epoch
            .set(0, epoch.wrapping_add(1), 0)
            .map_err(wrong())
    }

    /// An empty table for `MAGLEV`.
    pub(super) fn new_table(&self) -> Result<Table, DatapathError> {
        let created = self.maglev_table.create();
        let created = created.map_err(|source| DatapathError::System {
            action: "making a Maglev table",
            source,
        })?;
        let wrong = DatapathError::map("MAGLEV");
        let data = MapData::from_fd(created).map_err(&wrong)?;
        Table::try_from(Map::Array(data)).map_err(&wrong)
    }
}

/// A map of the object, in its type.
pub(super) fn take<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, DatapathError>
where
    M: TryFrom<Map, Error = aya::maps::MapError>,
{
    let map = ebpf.take_map(name).ok_or(DatapathError::Missing(name))?;
    M::try_from(map).map_err(DatapathError::map(name))
}

/// Names of the maps, all pinned: a restart finds every one of them again.
pub(super) const NAMES: [&str; 22] = [
    "SETTINGS",
    "FILTERS",
    "SERVICES",
    "SERVICE_EPOCH",
    "SERVICE_INFO",
    "MAGLEV",
    "BACKENDS",
    "BACKEND_BY_ADDR",
    "NAT_SOURCES",
    "FLOWS",
    "FLOW_INDEX",
    "REPLIES",
    "REPLY_INDEX",
    "RINGS",
    "RING_POSITIONS",
    "UPSTREAMS",
    "XDP_PORTS",
    "NEXT_HOPS",
    "SERVICE_COUNTS",
    "BACKEND_COUNTS",
    "EVENTS",
    "STEER_SOCKETS",
];

/// `max_entries` of the maps that an option sizes.
pub(super) fn sizes(options: &Options) -> BTreeMap<&'static str, u32> {
    let slots = table::slots(options.max_flows);
    let buckets = table::buckets(slots);
    BTreeMap::from([
        ("SERVICES", options.max_services),
        ("SERVICE_INFO", options.max_services),
        ("MAGLEV", options.max_services),
        ("SERVICE_COUNTS", options.max_services),
        ("BACKENDS", options.max_backends),
        ("BACKEND_BY_ADDR", options.max_backends),
        ("NEXT_HOPS", options.max_backends),
        ("BACKEND_COUNTS", options.max_backends),
        ("UPSTREAMS", options.max_upstreams),
        ("FLOWS", slots),
        ("FLOW_INDEX", buckets),
        ("REPLIES", slots),
        ("REPLY_INDEX", buckets),
    ])
}

/// Clears `index` on every CPU.
pub(super) fn zero<V: Pod + Default>(
    map: &mut PerCpuArray<MapData, V>,
    name: &'static str,
    index: u32,
) -> Result<(), DatapathError> {
    let wrong = DatapathError::map(name);
    let cpus = map.get(&index, 0).map_err(&wrong)?.len();
    let zeroes = aya::maps::PerCpuValues::try_from(vec![V::default(); cpus])
        .map_err(|source| wrong(source.into()))?;
    map.set(index, zeroes, 0).map_err(&wrong)
}
