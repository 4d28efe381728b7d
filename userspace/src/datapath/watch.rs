//! The observing programs: loaded, attached for as long as this process lives, and read.
//!
//! Where the kernel has tcx links (6.6) they belong to the process: however it ends, the kernel closes their
//! descriptors and the programs are gone. Before, filters are attached through netlink and outlast a SIGKILL; the next
//! observer of the interface removes them, and says so in [`Started::leftovers`].

mod reading;
mod waiting;

use std::collections::HashMap as StdMap;
use std::os::fd::{AsFd, OwnedFd};

use aya::maps::{Array, HashMap, IterableMap, MapData, PerCpuArray};
use aya::programs::tc::{NlOptions, TcAttachOptions, qdisc_add_clsact, qdisc_detach_program};
use aya::programs::{LinkOrder, SchedClassifier, TcAttachType, TcError};
use aya::sys::Stats;
use aya::{Ebpf, EbpfLoader};
use evenkeel_ebpf::abi::Tuple;
use evenkeel_ebpf::watch::{
    PeerKey, PeerStats, PortSet, StreamBucket, WatchEvent, WatchSettings, Watched,
};
use rustix::time::{ClockId, clock_gettime};

use super::address::socket_of_key;
use super::attach::index_of;
use super::load::loaded;
use super::maps::take;
use super::place::attach_error;
use super::{DatapathError, TcAttach, capabilities, neighbours, object, syscall};
use crate::observe::Reading;

use reading::{flow_reading, peer_reading};
use waiting::Doubts;

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
    streams: Array<MapData, StreamBucket>,
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
    /// Peers that have figures of their own.
    pub peers: u32,
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
            peers,
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
            .map_max_entries("W_PEERS", peers)
            // The first entry is nobody's.
            .map_max_entries("W_STATS", peers.saturating_add(1))
            .load(object::watch()?)
            .map_err(|error| DatapathError::Load(Box::new(error)))?;
        choose(&mut ebpf, ports, peers)?;
        let measuring = if measure {
            Some(measure_programs()?)
        } else {
            None
        };
        let started = attach(&mut ebpf, interfaces, tc)?;
        let watch = Self {
            flows: take(&mut ebpf, "W_FLOWS")?,
            streams: take(&mut ebpf, "W_STREAMS")?,
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
        let mut reading = Reading {
            events: self.events()?,
            ..Reading::default()
        };
        self.read_flows(&mut reading)?;
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
        Ok(reading)
    }

    fn events(&self) -> Result<Vec<(&'static str, u64)>, DatapathError> {
        let count = |(index, name)| {
            let counts = self.events.get(&index, 0);
            let counts = counts.map_err(DatapathError::map("W_EVENTS"))?;
            Ok((name, counts.iter().sum()))
        };
        (0..).zip(WatchEvent::NAMES).map(count).collect()
    }

    fn read_flows(&mut self, reading: &mut Reading) -> Result<(), DatapathError> {
        let refused = |object: &str| {
            let object = object.to_owned();
            move |source| DatapathError::Bpf {
                call: "BPF_MAP_LOOKUP_BATCH",
                object,
                source,
            }
        };
        let mut ended = Vec::new();
        let mut doubts = Doubts::new(&reading.events);
        let table = self.flows.map().fd().as_fd();
        syscall::read_all(&table, |key: Tuple, flow: Watched| {
            if flow.is_closed() {
                ended.push(key);
            }
            let found = flow_reading(&key, &flow);
            doubts.consider(&flow, &found, reading.flows.len());
            reading.flows.push(found);
        })
        .map_err(refused("W_FLOWS"))?;
        for key in ended {
            // It may have been replaced by a newer one meanwhile.
            let _ = self.flows.remove(&key);
        }
        if doubts.are_any() {
            let now = monotonic();
            let table = self.streams.map().fd().as_fd();
            syscall::read_all(&table, |_: u32, bucket: StreamBucket| {
                bucket.slots.iter().for_each(|slot| doubts.take(slot, now));
            })
            .map_err(refused("W_STREAMS"))?;
            doubts.resolve(&mut reading.flows);
        }
        Ok(())
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

/// ns of the clock by which streams begin.
fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
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

/// Says which ports are observed, and how many peers have figures of their own.
fn choose(ebpf: &mut Ebpf, ports: &[u16], peers: u32) -> Result<(), DatapathError> {
    let mut set = PortSet { words: [0; 1024] };
    for port in ports {
        set.words[usize::from(port >> 6)] |= 1 << (port & 63);
    }
    let settings = WatchSettings {
        ports_given: u32::from(!ports.is_empty()),
        peers,
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
