//! The tables that the programs are measured on: services, backends, and flows as they are after a handshake.

use std::net::Ipv4Addr;

use evenkeel_ebpf::abi::{
    Address, Backend, FILTER_BACKENDS, FILTER_SERVICES, Filter, Flow, Http2, MaglevTable,
    NO_BACKEND, PROTOCOL_TCP, Reply, Service, ServiceKey, Settings, Tuple, filter_bit, forwarding,
    http2_phase, mode, state,
};
use evenkeel_ebpf::http2;

use super::super::attach::index_of;
use super::super::flows::now;
use super::super::maps::Maps;
use super::super::{DatapathError, clock, neighbours};
use super::frame::{self, FIRST_SEQUENCE};
use super::{NAT_SOURCE, PORT, SERVICE};

/// Seed of the hash.
const SEED: u64 = 0x5eed;

/// How much is in the tables.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    /// Backends of every service: one host, so many ports.
    pub(super) backends: u16,
    /// Services: one address, so many ports, all with the same backends.
    pub(super) services: u16,
}

fn address(ip: Ipv4Addr) -> Address {
    Address::from_v4_word(u32::from_ne_bytes(ip.octets()))
}

fn key(ip: Ipv4Addr, port: u16) -> ServiceKey {
    ServiceKey {
        address: address(ip),
        port: port.to_be(),
        protocol: PROTOCOL_TCP,
        reserved: [0; 5],
    }
}

/// The settings, with streams counted or not. The clock stays as it was set.
pub(super) fn settings(maps: &mut Maps, count_streams: bool) -> Result<(), DatapathError> {
    let wrong = DatapathError::map("SETTINGS");
    let old = maps.settings.get(&0, 0).map_err(&wrong)?;
    let settings = Settings {
        seed: SEED,
        nat_port_first: 10_240,
        nat_port_last: 32_767,
        count_streams: count_streams.into(),
        closed_hold: 1_000_000_000,
        port_hold: 60_000_000_000,
        clock_offset: old.clock_offset,
        tick_ns: clock::tick_ns(),
        flow_buckets: maps.flows.buckets(),
        flow_slots: maps.flows.slots(),
        reserved: 0,
    };
    maps.settings.set(0, settings, 0).map_err(wrong)
}

/// Services, their backends at `route`, and everything that leads to them.
pub(super) fn fill(maps: &mut Maps, route: Ipv4Addr, size: Size) -> Result<(), DatapathError> {
    settings(maps, true)?;
    maps.nat_sources
        .set(0, address(NAT_SOURCE), 0)
        .map_err(DatapathError::map("NAT_SOURCES"))?;
    // Whether it leaves is not measured.
    for name in neighbours::interfaces().unwrap_or_default() {
        maps.xdp_ports
            .insert(index_of(&name)?, 1, 0)
            .map_err(DatapathError::map("XDP_PORTS"))?;
    }
    let mut backends = Filter { words: [0; _] };
    for index in 0..size.backends {
        let port = backend_port(index.into());
        let value = Backend {
            address: address(route),
            port: port.to_be(),
            nat_count: 1,
            forwarding: forwarding::NAT,
            used: 1,
            ..Backend::default()
        };
        maps.backends
            .set(index.into(), value, 0)
            .map_err(DatapathError::map("BACKENDS"))?;
        set_bit(&mut backends, &key(route, port));
    }
    let services = fill_services(maps, size)?;
    for (index, filter) in [(FILTER_SERVICES, services), (FILTER_BACKENDS, backends)] {
        maps.filters
            .set(index, filter, 0)
            .map_err(DatapathError::map("FILTERS"))?;
    }
    Ok(())
}

/// Removes all flows.
pub(super) fn clear(maps: &Maps) {
    maps.flows.remove_where(SEED, |_| true);
    maps.replies.remove_where(SEED, |_| true);
}

fn fill_services(maps: &mut Maps, size: Size) -> Result<Filter, DatapathError> {
    let mut table = MaglevTable {
        slots: [NO_BACKEND; _],
    };
    for (slot, index) in table.slots.iter_mut().zip((0..size.backends).cycle()) {
        *slot = index;
    }
    let wrong = || DatapathError::map("MAGLEV");
    let mut inner = maps.new_table()?;
    inner.set(0, table, 0).map_err(wrong())?;
    let mut filter = Filter { words: [0; _] };
    for index in 0..u32::from(size.services) {
        let service = key(SERVICE, service_port(index));
        set_bit(&mut filter, &service);
        maps.maglev.set(index, &inner, 0).map_err(wrong())?;
        maps.service_info
            .set(index, service, 0)
            .map_err(DatapathError::map("SERVICE_INFO"))?;
        let value = Service {
            index,
            mode: mode::L4,
            forwarding: forwarding::NAT,
            ..Service::default()
        };
        maps.services
            .insert(service, value, 0)
            .map_err(DatapathError::map("SERVICES"))?;
    }
    maps.renew_services()?;
    Ok(filter)
}

/// The port of the `index`-th backend.
fn backend_port(index: u32) -> u16 {
    1 + u16::try_from(index).unwrap_or(0)
}

/// The port of the `index`-th service.
pub(super) fn service_port(index: u32) -> u16 {
    PORT + u16::try_from(index).unwrap_or(0)
}

fn set_bit(filter: &mut Filter, key: &ServiceKey) {
    let bit = filter_bit(&key.address, key.port, key.protocol);
    filter.words[bit as usize / 64] |= 1 << (bit % 64);
}

/// Records flows `first..last`, as they would be after a handshake and the connection preface; they take turns with
/// services and backends.
pub(super) fn insert_flows(
    maps: &mut Maps,
    route: Ipv4Addr,
    size: Size,
    (first, last): (u32, u32),
) -> Result<(), DatapathError> {
    let backends = u32::from(size.backends);
    for index in first..last {
        let (client, port) = frame::client(index);
        let service = index % u32::from(size.services);
        let tuple = Tuple {
            source: address(client),
            destination: address(SERVICE),
            source_port: port.to_be(),
            destination_port: service_port(service).to_be(),
            protocol: PROTOCOL_TCP,
            reserved: [0; 3],
        };
        let backend = index % backends;
        let nat_port = 10_240 + u16::try_from(index / backends).unwrap_or(0);
        let state = state::USED | state::SYN | state::ESTABLISHED;
        let flow = Flow {
            backend,
            service: u16::try_from(service).unwrap_or(0),
            nat_port: nat_port.to_be(),
            state,
            last_seen: now(),
            http2: in_step(),
            ..Flow::default()
        };
        let answer = Tuple {
            source: address(route),
            destination: address(NAT_SOURCE),
            source_port: backend_port(backend).to_be(),
            destination_port: nat_port.to_be(),
            protocol: PROTOCOL_TCP,
            reserved: [0; 3],
        };
        let reply = Reply {
            client: address(client),
            client_port: port.to_be(),
            state,
            backend,
            service,
            last_seen: now(),
            ..Reply::default()
        };
        if !maps.replies.insert(&answer, reply, SEED) || !maps.flows.insert(&tuple, flow, SEED) {
            return Err(DatapathError::BenchTable { flows: index });
        }
    }
    Ok(())
}

/// A stream counter that has read the preface and waits for the first request.
fn in_step() -> Http2 {
    Http2 {
        next: FIRST_SEQUENCE,
        phase: http2_phase::SYNCHRONISED,
        flags: http2::flag::FROM_START | http2::flag::RECOGNISED,
        ..Http2::default()
    }
}
