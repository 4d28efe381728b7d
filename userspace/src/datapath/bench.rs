//! What one packet costs in the data path, measured with `BPF_PROG_TEST_RUN`: the kernel times the program alone.
//!
//! `repeat` is 1 and every packet is made afresh: with more, the kernel would feed the rewritten packet back.
//! Cases take turns, so that what else happens on the machine happens to all; of the rounds the median counts. The
//! timing itself costs something, so an XDP program that only passes is measured in the same turns.
//!
//! Next hops are real: the caller provides a route to the backend with a resolved neighbour, and to the client
//! nothing is sent.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use aya::maps::Array;
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader};
use evenkeel_ebpf::abi::{
    Address, Backend, FILTER_BACKENDS, FILTER_SERVICES, Filter, Flow, MaglevTable, NO_BACKEND,
    PROTOCOL_TCP, Reply, Service, ServiceKey, Settings, Tuple, filter_bit, forwarding, mode, state,
};
use evenkeel_ebpf::packet::tcp;
use serde::Serialize;

use super::flows::now;
use super::maps::Maps;
use super::{DatapathError, capabilities, object, syscall};

mod frame;

use frame::FrameBuilder;

/// The service that is measured (RFC 5737, TEST-NET-3).
const SERVICE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// Its neighbour, which is none of ours.
const OTHER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
const PORT: u16 = 443;
/// NAT source (TEST-NET-2).
const NAT_SOURCE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// Backends: one host, so many ports. Every round opens as many flows as it has packets, and a backend takes 22,528.
const BACKENDS: u16 = 256;
/// The sizes of flow table that are compared.
const SMALL: u32 = 1_000;
const LARGE: u32 = 1_000_000;
/// `XDP_PASS` of `enum xdp_action`.
const XDP_PASS: u32 = 2;
/// Rounds that the median is taken of.
const ROUNDS: usize = 5;

/// What was found; all in nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Packets of each case in each round.
    pub packets: u32,
    /// An XDP program that passes everything; all cases include it.
    pub pass: f64,
    /// The cases.
    pub cases: Vec<Case>,
}

/// One kind of packet.
#[derive(Clone, Debug, Serialize)]
pub struct Case {
    /// Stable name.
    pub name: &'static str,
    /// What kind of packet.
    pub about: &'static str,
    /// Median time of the program.
    pub nanoseconds: f64,
    /// The same without what a passing program takes.
    pub above_pass: f64,
}

/// Measures, with `packets` packets a case and round. `backend` must be routed, with its neighbour resolved.
pub fn run(backend: Ipv4Addr, packets: u32) -> Result<Report, DatapathError> {
    if !capabilities::sufficient() {
        return Err(DatapathError::NotPermitted);
    }
    let mut cases = cases();
    let mut bench = Bench::load(backend, packets)?;
    bench.begin()?;
    let mut passing = Vec::new();
    for _ in 0..ROUNDS {
        passing.push(bench.round(Kind::Pass)?);
        for case in &mut cases {
            let time = bench.round(case.kind)?;
            case.times.push(time);
        }
    }
    // In tables of their own: with the flows that were opened above, a million would not fit and the LRU would evict.
    let mut bench = Bench::load(backend, packets)?;
    for (index, size) in [(0, SMALL), (SMALL, LARGE)] {
        insert_flows(&mut bench.maps, backend, index, size)?;
        let kind = Kind::Flows(size);
        // Once around, so that most flows are at what they do between two looks at their other half.
        for _ in 0..=size / packets.max(1) {
            bench.round(kind)?;
        }
        let times = (0..ROUNDS)
            .map(|_| bench.round(kind))
            .collect::<Result<Vec<f64>, _>>()?;
        let (name, about) = if size == SMALL {
            ("flows_1k", "ACK of one of 1,000 flows at random")
        } else {
            ("flows_1m", "ACK of one of 1,000,000 flows at random")
        };
        cases.push(Measured {
            name,
            about,
            kind,
            times,
        });
    }
    let pass = median(&mut passing);
    Ok(Report {
        packets,
        pass,
        cases: cases
            .into_iter()
            .map(|mut case| {
                let nanoseconds = median(&mut case.times);
                Case {
                    name: case.name,
                    about: case.about,
                    nanoseconds,
                    above_pass: nanoseconds - pass,
                }
            })
            .collect(),
    })
}

/// Kinds of packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Any, for the program that passes.
    Pass,
    /// The next gRPC request of one flow.
    Established,
    /// A bare acknowledgement of it.
    Acknowledgement,
    /// A SYN nobody saw before.
    Opening,
    /// To the service's port at another address.
    Unrelated,
    /// An acknowledgement of one of so many flows.
    Flows(u32),
}

struct Measured {
    name: &'static str,
    about: &'static str,
    kind: Kind,
    times: Vec<f64>,
}

fn cases() -> Vec<Measured> {
    [
        (
            "established",
            "gRPC request (HEADERS + DATA) of a known flow, streams counted",
            Kind::Established,
        ),
        (
            "acknowledgement",
            "bare ACK of a known flow",
            Kind::Acknowledgement,
        ),
        (
            "opening",
            "SYN: backend chosen, NAT port claimed, both halves recorded",
            Kind::Opening,
        ),
        (
            "unrelated",
            "same port as the service, other address",
            Kind::Unrelated,
        ),
    ]
    .into_iter()
    .map(|(name, about, kind)| Measured {
        name,
        about,
        kind,
        times: Vec::new(),
    })
    .collect()
}

/// The programs, and where the flow under test is.
struct Bench {
    pass: OwnedFd,
    path: OwnedFd,
    maps: Maps,
    packets: u32,
    /// Flows opened by [`Kind::Opening`].
    opened: u32,
    /// State of a linear congruential generator (Knuth's MMIX): cheap, so that it leaves the caches alone.
    random: u64,
    frame: FrameBuilder,
}

impl Bench {
    /// The programs on maps of their own, with one service.
    fn load(backend: Ipv4Addr, packets: u32) -> Result<Self, DatapathError> {
        let mut ebpf = EbpfLoader::new()
            .load(object::bytes()?)
            .map_err(|error| DatapathError::Load(Box::new(error)))?;
        let mut maps = Maps::take(&mut ebpf)?;
        fill(&mut maps, backend)?;
        Ok(Self {
            pass: program(&mut ebpf, "ek_xdp_pass")?,
            path: program(&mut ebpf, "ek_xdp")?,
            maps,
            packets,
            opened: 0,
            random: 0x853c_49e6_748f_ea9b,
            frame: FrameBuilder::new(),
        })
    }

    /// Opens the flow under test and sends what an HTTP/2 client sends first.
    fn begin(&mut self) -> Result<(), DatapathError> {
        let path = self.path.as_fd();
        let forwarded = time(path, self.frame.opening(u32::MAX))?;
        if forwarded.verdict == XDP_PASS {
            return Err(DatapathError::BenchRoute);
        }
        time(path, self.frame.preface())?;
        self.frame.begin_requests();
        Ok(())
    }

    /// Mean time of a round of packets of one kind.
    fn round(&mut self, kind: Kind) -> Result<f64, DatapathError> {
        let mut total = 0_u64;
        for _ in 0..self.packets {
            self.random = self
                .random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let program = if kind == Kind::Pass {
                &self.pass
            } else {
                &self.path
            };
            let frame = match kind {
                Kind::Pass | Kind::Unrelated => self.frame.unrelated(),
                Kind::Established => self.frame.request(),
                Kind::Acknowledgement => self.frame.acknowledgement(),
                Kind::Opening => {
                    self.opened += 1;
                    self.frame.opening(self.opened)
                }
                Kind::Flows(count) => {
                    // Scaled from 32 bits to `count`, which fits again.
                    self.frame
                        .of_flow((((self.random >> 32) * u64::from(count)) >> 32) as u32)
                }
            };
            total += u64::from(time(program.as_fd(), frame)?.nanoseconds);
        }
        Ok(total as f64 / f64::from(self.packets))
    }
}

fn time(program: BorrowedFd<'_>, frame: &[u8]) -> Result<syscall::TestRun, DatapathError> {
    syscall::test_run(program, frame).map_err(DatapathError::Bench)
}

fn program(ebpf: &mut Ebpf, name: &'static str) -> Result<OwnedFd, DatapathError> {
    let program: &mut Xdp = ebpf
        .program_mut(name)
        .ok_or(DatapathError::Missing(name))?
        .try_into()
        .map_err(|error| DatapathError::BenchProgram(Box::new(error)))?;
    program
        .load()
        .map_err(|error| DatapathError::BenchProgram(Box::new(error)))?;
    let fd = program
        .fd()
        .map_err(|error| DatapathError::BenchProgram(Box::new(error)))?;
    fd.as_fd()
        .try_clone_to_owned()
        .map_err(DatapathError::Bench)
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

/// One service, its backends, and everything that leads to them.
fn fill(maps: &mut Maps, backend: Ipv4Addr) -> Result<(), DatapathError> {
    let wrong = |name| DatapathError::map(name);
    let settings = Settings {
        seed: 0x5eed,
        nat_port_first: 10_240,
        nat_port_last: 32_767,
        count_streams: 1,
        closed_hold: 1_000_000_000,
        port_hold: 60_000_000_000,
    };
    maps.settings
        .set(0, settings, 0)
        .map_err(wrong("SETTINGS"))?;
    maps.nat_sources
        .set(0, address(NAT_SOURCE), 0)
        .map_err(wrong("NAT_SOURCES"))?;
    let service = key(SERVICE, PORT);
    let mut table = MaglevTable {
        slots: [NO_BACKEND; _],
    };
    for (slot, index) in table.slots.iter_mut().zip((0..BACKENDS).cycle()) {
        *slot = index;
    }
    let mut backends = Filter { words: [0; _] };
    for index in 0..BACKENDS {
        let port = backend_port(index.into());
        let value = Backend {
            address: address(backend),
            port: port.to_be(),
            nat_count: 1,
            forwarding: forwarding::NAT,
            used: 1,
            ..Backend::default()
        };
        maps.backends
            .set(index.into(), value, 0)
            .map_err(wrong("BACKENDS"))?;
        set_bit(&mut backends, &key(backend, port));
    }
    let mut services = Filter { words: [0; _] };
    set_bit(&mut services, &service);
    for (index, filter) in [(FILTER_SERVICES, services), (FILTER_BACKENDS, backends)] {
        maps.filters
            .set(index, filter, 0)
            .map_err(wrong("FILTERS"))?;
    }
    let mut inner = Array::create(1, 0).map_err(wrong("MAGLEV"))?;
    inner.set(0, table, 0).map_err(wrong("MAGLEV"))?;
    maps.maglev.set(0, &inner, 0).map_err(wrong("MAGLEV"))?;
    maps.service_info
        .set(0, service, 0)
        .map_err(wrong("SERVICE_INFO"))?;
    let value = Service {
        mode: mode::L4,
        forwarding: forwarding::NAT,
        ..Service::default()
    };
    maps.services
        .insert(service, value, 0)
        .map_err(wrong("SERVICES"))
}

/// The port of the `index`-th backend.
fn backend_port(index: u32) -> u16 {
    1 + u16::try_from(index).unwrap_or(0)
}

fn set_bit(filter: &mut Filter, key: &ServiceKey) {
    let bit = filter_bit(&key.address, key.port, key.protocol);
    filter.words[bit as usize / 64] |= 1 << (bit % 64);
}

/// Records flows `first..last`, as they would be after a handshake.
fn insert_flows(
    maps: &mut Maps,
    route: Ipv4Addr,
    first: u32,
    last: u32,
) -> Result<(), DatapathError> {
    for index in first..last {
        let (client, port) = frame::client(index);
        let tuple = Tuple {
            source: address(client),
            destination: address(SERVICE),
            source_port: port.to_be(),
            destination_port: PORT.to_be(),
            protocol: PROTOCOL_TCP,
            reserved: [0; 3],
        };
        let backend = index % u32::from(BACKENDS);
        let nat_port = 10_240 + u16::try_from(index / u32::from(BACKENDS)).unwrap_or(0);
        let state = state::SYN | state::ESTABLISHED;
        let flow = Flow {
            backend,
            nat_port: nat_port.to_be(),
            state,
            last_seen: now(),
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
            last_seen: now(),
            ..Reply::default()
        };
        maps.replies
            .insert(answer, reply, 0)
            .map_err(DatapathError::map("REPLIES"))?;
        maps.flows
            .insert(tuple, flow, 0)
            .map_err(DatapathError::map("FLOWS"))?;
    }
    Ok(())
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Flags of the packets, for the frames.
const ACK: u8 = tcp::ACK;
/// See [`ACK`].
const SYN: u8 = tcp::SYN;
