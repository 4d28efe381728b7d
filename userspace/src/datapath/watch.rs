//! The observing programs: loaded, attached for as long as this process lives, and read.
//!
//! Where the kernel has tcx links (6.6) they belong to the process: however it ends, the kernel closes their
//! descriptors and the programs are gone. Before, filters are attached through netlink and outlast a SIGKILL; the next
//! observer of the interface removes them, and says so in [`Started::leftovers`].

use std::collections::HashMap as StdMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use aya::maps::{Array, HashMap, IterableMap, MapData, PerCpuArray};
use aya::programs::tc::{NlOptions, TcAttachOptions, qdisc_add_clsact, qdisc_detach_program};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType, TcError};
use aya::sys::Stats;
use aya::{Ebpf, EbpfLoader};
use evenkeel_ebpf::abi::{Tuple, http2_phase as phase};
use evenkeel_ebpf::http2::flag;
use evenkeel_ebpf::watch::{
    Half, PeerKey, PeerStats, PortSet, WatchEvent, WatchSettings, Watched, baseline, client,
};

use super::address::{socket_of, socket_of_key};
use super::attach::index_of;
use super::load::loaded;
use super::maps::take;
use super::place::attach_error;
use super::{DatapathError, TcAttach, capabilities, neighbours, object, syscall};
use crate::observe::{Carries, FlowId, FlowReading, Histogram, PeerReading, Reading};

/// Each program with its hook.
const PROGRAMS: [(&str, TcAttachType); 2] = [
    ("ek_watch_in", TcAttachType::Ingress),
    ("ek_watch_out", TcAttachType::Egress),
];
/// `ARPHRD_ETHER` and `ARPHRD_LOOPBACK`: loopback frames have an Ethernet header, too.
const ETHERNET: [u16; 2] = [1, 772];

/// The observing programs; dropping it detaches them.
pub struct Watch {
    ebpf: Ebpf,
    flows: HashMap<MapData, Tuple, Watched>,
    peers: HashMap<MapData, PeerKey, u32>,
    stats: Array<MapData, PeerStats>,
    events: PerCpuArray<MapData, u64>,
    /// As long as it is open the kernel measures programs.
    _measuring: Option<OwnedFd>,
}

/// What to observe, and how.
#[derive(Clone, Copy, Debug)]
pub struct Watching<'a> {
    /// Where.
    pub interfaces: &'a [String],
    /// Servers on these ports, or on any if there are none.
    pub ports: &'a [u16],
    /// Connections that are remembered at once; beyond, the one that was silent for longest is forgotten.
    pub connections: u32,
    /// How to attach.
    pub tc: TcAttach,
    /// Have the kernel time the programs, which itself costs some nanoseconds a packet.
    pub measure: bool,
}

/// What [`Watch::start`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// `tcx` or `clsact`.
    pub mode: &'static str,
    /// Interfaces from which programs of a killed observer were removed.
    pub leftovers: Vec<String>,
}

/// What the programs cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Nanoseconds that they ran.
    pub nanoseconds: u64,
    /// Packets that they ran for.
    pub runs: u64,
}

impl Watch {
    /// Loads and attaches to both directions of the interfaces.
    pub fn start(what: &Watching<'_>) -> Result<(Self, Started), DatapathError> {
        let Watching {
            interfaces,
            ports,
            connections,
            tc,
            measure,
        } = *what;
        for interface in interfaces {
            check(interface)?;
        }
        if !capabilities::sufficient() {
            return Err(DatapathError::NotPermitted);
        }
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("W_FLOWS", connections)
            .load(object::watch()?)
            .map_err(|error| DatapathError::Load(Box::new(error)))?;
        choose(&mut ebpf, ports)?;
        let measuring = if measure {
            Some(measure_programs()?)
        } else {
            None
        };
        let started = attach(&mut ebpf, interfaces, tc)?;
        let watch = Self {
            flows: take(&mut ebpf, "W_FLOWS")?,
            peers: take(&mut ebpf, "W_PEERS")?,
            stats: take(&mut ebpf, "W_STATS")?,
            events: take(&mut ebpf, "W_EVENTS")?,
            ebpf,
            _measuring: measuring,
        };
        Ok((watch, started))
    }

    /// Reads the tables. Connections that have ended are taken out of them.
    pub fn read(&mut self) -> Result<Reading, DatapathError> {
        let mut reading = Reading::default();
        let mut ended = Vec::new();
        let table = self.flows.map().fd().as_fd();
        syscall::read_all(&table, |key: Tuple, flow: Watched| {
            if flow.is_closed() {
                ended.push(key);
            }
            reading.flows.push(flow_reading(&key, &flow));
        })
        .map_err(|source| DatapathError::Bpf {
            call: "BPF_MAP_LOOKUP_BATCH",
            object: "W_FLOWS".to_owned(),
            source,
        })?;
        for key in ended {
            // It may have been replaced by a newer one meanwhile.
            let _ = self.flows.remove(&key);
        }
        let mut indexes = StdMap::new();
        for entry in self.peers.iter() {
            let (server, index) = entry.map_err(DatapathError::map("W_PEERS"))?;
            indexes.insert(index, socket_of_key(&server));
        }
        for (index, server) in indexes {
            let stats = self
                .stats
                .get(&index, 0)
                .map_err(DatapathError::map("W_STATS"))?;
            reading.peers.push(peer_reading(server, &stats));
        }
        for (index, name) in (0..).zip(WatchEvent::NAMES) {
            let counts = self
                .events
                .get(&index, 0)
                .map_err(DatapathError::map("W_EVENTS"))?;
            reading.events.push((name, counts.iter().sum()));
        }
        Ok(reading)
    }

    /// What the programs cost so far; nothing unless they are measured.
    pub fn cost(&self) -> Result<Cost, DatapathError> {
        let mut cost = Cost::default();
        for (name, _) in PROGRAMS {
            let program = self
                .ebpf
                .program(name)
                .ok_or(DatapathError::Missing(name))?;
            let program: &SchedClassifier = program
                .try_into()
                .map_err(|_| DatapathError::Missing(name))?;
            let fd = program.fd().map_err(|_| DatapathError::Missing(name))?;
            let (nanoseconds, runs) =
                syscall::run_time(fd.as_fd()).map_err(|source| DatapathError::Bpf {
                    call: "BPF_OBJ_GET_INFO_BY_FD",
                    object: name.to_owned(),
                    source,
                })?;
            cost.nanoseconds += nanoseconds;
            cost.runs += runs;
        }
        Ok(cost)
    }
}

/// Refuses interfaces that do not exist, and those whose packets have no Ethernet header.
fn check(interface: &str) -> Result<(), DatapathError> {
    let index = index_of(interface)?;
    let kind = neighbours::interface_kind(index).map_err(|source| DatapathError::Netlink {
        action: "ask for an interface",
        source,
    })?;
    if ETHERNET.contains(&kind) {
        Ok(())
    } else {
        Err(DatapathError::NotEthernet(interface.to_owned()))
    }
}

/// Says which ports are observed.
fn choose(ebpf: &mut Ebpf, ports: &[u16]) -> Result<(), DatapathError> {
    let mut set = PortSet { words: [0; 1024] };
    for port in ports {
        set.words[usize::from(port >> 6)] |= 1 << (port & 63);
    }
    let settings = WatchSettings {
        ports_given: u32::from(!ports.is_empty()),
        reserved: 0,
    };
    set_only(ebpf, "W_PORTS", set)?;
    set_only(ebpf, "W_SETTINGS", settings)
}

/// Sets the only value of an array, which stays with the object: programs that are not loaded yet refer to it.
fn set_only<V: aya::Pod>(
    ebpf: &mut Ebpf,
    name: &'static str,
    value: V,
) -> Result<(), DatapathError> {
    let map = ebpf.map_mut(name).ok_or(DatapathError::Missing(name))?;
    Array::<_, V>::try_from(map)
        .and_then(|mut array| array.set(0, value, 0))
        .map_err(DatapathError::map(name))
}

fn measure_programs() -> Result<OwnedFd, DatapathError> {
    aya::sys::enable_stats(Stats::RunTime).map_err(|error| DatapathError::System {
        action: "measuring BPF programs",
        source: error.io_error,
    })
}

fn attach(ebpf: &mut Ebpf, interfaces: &[String], tc: TcAttach) -> Result<Started, DatapathError> {
    let first = interfaces.first().map_or("lo", String::as_str);
    let tcx =
        tc == TcAttach::Auto && SchedClassifier::query_tcx(first, TcAttachType::Ingress).is_ok();
    let mut started = Started {
        mode: if tcx { "tcx" } else { "clsact" },
        leftovers: Vec::new(),
    };
    for interface in interfaces {
        if remove_leftovers(interface)? {
            started.leftovers.push(interface.clone());
        }
        if !tcx {
            match qdisc_add_clsact(interface) {
                Ok(()) => {}
                Err(TcError::NetlinkError(error)) if error.raw_os_error() == Some(libc::EEXIST) => {
                }
                Err(error) => {
                    return Err(attach_error("the clsact qdisc", interface)(error.into()));
                }
            }
        }
        for (name, hook) in PROGRAMS {
            let program: &mut SchedClassifier = loaded(ebpf, name)?;
            // First of all: whoever comes before may send packets elsewhere.
            let options = if tcx {
                TcAttachOptions::TcxOrder(LinkOrder::first())
            } else {
                TcAttachOptions::Netlink(NlOptions {
                    priority: 1,
                    ..NlOptions::default()
                })
            };
            program
                .attach_with_options(interface, hook, options)
                .map_err(attach_error(name, interface))?;
        }
    }
    Ok(started)
}

/// Removes filters of an observer that was killed; true if there were any.
fn remove_leftovers(interface: &str) -> Result<bool, DatapathError> {
    let mut found = false;
    for (name, hook) in PROGRAMS {
        // No clsact qdisc, no filter of this name: either way there is nothing to remove.
        found |= qdisc_detach_program(interface, hook, name).is_ok();
    }
    Ok(found)
}

fn peer_reading(server: SocketAddr, stats: &PeerStats) -> PeerReading {
    let PeerStats {
        streams,
        reset,
        nanoseconds,
        buckets,
    } = stats;
    PeerReading {
        server,
        streams: *streams,
        reset: *reset,
        latency: Histogram {
            buckets: buckets.to_vec(),
            nanoseconds: *nanoseconds,
        },
    }
}

fn flow_reading(key: &Tuple, flow: &Watched) -> FlowReading {
    let source = socket_of(&key.source, key.source_port);
    let destination = socket_of(&key.destination, key.destination_port);
    let from_source = match flow.client {
        client::SOURCE => true,
        client::DESTINATION => false,
        // A guess, for connections that nothing is counted of: servers mostly have the lower port.
        _ => source.port() >= destination.port(),
    };
    let (to_server, to_client) = if from_source {
        (&flow.forward, &flow.backward)
    } else {
        (&flow.backward, &flow.forward)
    };
    let (client, server) = if from_source {
        (source, destination)
    } else {
        (destination, source)
    };
    let certain = flow.client != client::UNKNOWN;
    let carries = carries(to_server, certain);
    let http2 = carries == Carries::Http2;
    let (before, since) = to_server.before_and_since();
    FlowReading {
        id: FlowId {
            client,
            server,
            tag: flow.tag,
        },
        certain,
        carries,
        received: is_received(to_server, to_client),
        opened: flow.opened != 0,
        closed: flow.is_closed(),
        streams: if http2 { since.into() } else { 0 },
        before: if http2 { before.into() } else { 0 },
        in_flight: u64::from(
            to_server
                .begun
                .saturating_sub(to_client.ended)
                .saturating_sub(to_client.reset)
                .saturating_sub(to_server.reset),
        ),
        bytes_to_server: to_server.bytes,
        bytes_to_client: to_client.bytes,
    }
}

/// Whether the client's packets come in where the flow was first seen; if none was, whether its server's go out.
fn is_received(to_server: &Half, to_client: &Half) -> bool {
    const OUT: u32 = 1;
    if to_server.place == 0 {
        to_client.place & OUT != 0
    } else {
        to_server.place & OUT == 0
    }
}

/// What the client's direction says.
fn carries(to_server: &Half, certain: bool) -> Carries {
    let state = &to_server.http2;
    match state.phase {
        phase::TLS => Carries::Tls,
        phase::OTHER => Carries::Other,
        _ if certain
            && to_server.baseline != baseline::NONE
            && state.flags & flag::RECOGNISED != 0 =>
        {
            Carries::Http2
        }
        _ => Carries::Unknown,
    }
}
