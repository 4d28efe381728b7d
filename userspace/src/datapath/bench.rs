//! What one packet costs in the data path, measured with `BPF_PROG_TEST_RUN`: the kernel times the program alone.
//!
//! `repeat` is 1 and every packet is made afresh: with more, the kernel would feed the rewritten packet back.
//! Cases take short turns, so that what else happens on the machine happens to all; of the rounds the median counts. The
//! timing itself costs something, so an XDP program that only passes is measured in the same turns.
//!
//! Next hops are real: the caller provides a route to the backend with a resolved neighbour, and to the client
//! nothing is sent.
//!
//! Where the caller has Katran's object, its program takes the same packets in the same turns ([`katran`]): a ratio holds
//! on a busy machine, where nanoseconds do not.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader};
use evenkeel_ebpf::packet::tcp;
use serde::Serialize;

use super::maps::Maps;
use super::{DatapathError, capabilities, clock, object, syscall};

mod frame;
mod katran;
mod measured;
mod million;
mod sweep;
mod tables;

use frame::FrameBuilder;
use katran::Katran;
use measured::Measured;
pub use sweep::{Point, Sweep};
use tables::{Size, fill};

/// The service that is measured (RFC 5737, TEST-NET-3).
const SERVICE: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// Its neighbour, which is none of ours.
const OTHER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
const PORT: u16 = 443;
/// NAT source (TEST-NET-2).
const NAT_SOURCE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// Every round opens as many flows as it has packets, and a backend takes 22,528.
const SIZE: Size = Size {
    backends: 256,
    services: 1,
};
/// `XDP_PASS` of `enum xdp_action`.
const XDP_PASS: u32 = 2;

/// What was found; all in nanoseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Packets of each case in each round.
    pub packets: u32,
    /// An XDP program that passes everything; all cases include it.
    pub pass: f64,
    /// The cases.
    pub cases: Vec<Case>,
    /// The same packet on tables of other sizes, with and without counting streams; empty unless asked for.
    pub sweeps: Vec<Sweep>,
}

/// What to measure.
#[derive(Clone, Debug)]
pub struct Plan {
    /// An address with a route and a resolved neighbour.
    pub backend: Ipv4Addr,
    /// Packets of each case in each round.
    pub packets: u32,
    /// Rounds that the median is taken of.
    pub rounds: usize,
    /// Also measure on tables of other sizes.
    pub sweeps: bool,
    /// Katran's object, to be measured beside ours.
    pub katran: Option<PathBuf>,
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
    /// [`Self::nanoseconds`] of every round; with a thousand and a million flows, of every turn.
    pub rounds: Vec<f64>,
}

/// Measures as `plan` says.
pub fn run(plan: &Plan) -> Result<Report, DatapathError> {
    if !capabilities::sufficient() {
        return Err(DatapathError::NotPermitted);
    }
    let mut cases = vec![Measured::new("pass", "", Program::Pass, Kind::Unrelated)];
    cases.extend(measured::cases(plan.katran.is_some()));
    let mut bench = Bench::load(plan, SIZE)?.beside_katran(plan)?;
    bench.begin()?;
    for _ in 0..plan.rounds {
        measured::round(&mut bench, &mut cases)?;
    }
    if let Some(katran) = &bench.katran {
        // The flow under test, and those of its rounds.
        katran.verify(1 + plan.rounds * plan.packets as usize)?;
    }
    drop(bench);
    // In tables of their own: with the flows that were opened above, more would not fit and others would be evicted.
    cases.push(opening_floor(plan)?);
    cases.push(opening_again(plan)?);
    let (many, sweeps) = sweep::run(plan)?;
    cases.extend(many);
    let pass = median(&mut cases.remove(0).times);
    Ok(Report {
        packets: plan.packets,
        pass,
        cases: cases.into_iter().map(|case| case.report(pass)).collect(),
        sweeps,
    })
}

fn opening_floor(plan: &Plan) -> Result<Measured, DatapathError> {
    let mut measured = Measured::new(
        "opening_floor",
        "SYN, for a program that makes one new entry in the flow table and nothing else",
        Program::Floor,
        Kind::Opening,
    );
    let mut bench = Bench::load(plan, SIZE)?;
    for _ in 0..plan.rounds {
        measured.measure(&mut bench)?;
    }
    Ok(measured)
}

/// SYNs in tables that had as many flows before: new ones get the slots of those, as on every host that runs for a while.
fn opening_again(plan: &Plan) -> Result<Measured, DatapathError> {
    let mut measured = Measured::new(
        "opening_again",
        "SYN, which gets the memory of flows that are over",
        Program::Path,
        Kind::Opening,
    );
    let mut bench = Bench::load(plan, SIZE)?;
    bench.round(Program::Path, Kind::Opening)?;
    for _ in 0..plan.rounds {
        tables::clear(&bench.maps);
        measured.measure(&mut bench)?;
    }
    Ok(measured)
}

/// What is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Program {
    /// One that passes everything.
    Pass,
    /// The data path.
    Path,
    /// One that only makes or looks up an entry of the flow table.
    Floor,
    /// Katran's.
    Katran,
}

/// Kinds of packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
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
    /// An acknowledgement of one of so many flows, which are anywhere in a table with so many.
    FlowsOf(u32, u32),
}

/// The programs, and where the flow under test is.
struct Bench {
    pass: OwnedFd,
    path: OwnedFd,
    floor: OwnedFd,
    maps: Maps,
    katran: Option<Katran>,
    packets: u32,
    /// Flows opened by [`Kind::Opening`].
    opened: u32,
    /// State of a linear congruential generator (Knuth's MMIX): cheap, so that it leaves the caches alone.
    random: u64,
    frame: FrameBuilder,
}

impl Bench {
    /// The programs on maps of their own, filled so far.
    fn load(plan: &Plan, size: Size) -> Result<Self, DatapathError> {
        let mut ebpf = EbpfLoader::new()
            .load(object::bytes()?)
            .map_err(|error| DatapathError::Load(Box::new(error)))?;
        let mut maps = Maps::take(&mut ebpf)?;
        fill(&mut maps, plan.backend, size)?;
        clock::calibrate(&mut ebpf)?;
        Ok(Self {
            pass: program(&mut ebpf, "ek_xdp_pass")?,
            path: program(&mut ebpf, "ek_xdp")?,
            floor: program(&mut ebpf, "ek_xdp_floor")?,
            maps,
            katran: None,
            packets: plan.packets,
            opened: 0,
            random: 0x853c_49e6_748f_ea9b,
            frame: FrameBuilder::new(),
        })
    }

    /// With Katran's program beside ours, if the plan has it.
    fn beside_katran(mut self, plan: &Plan) -> Result<Self, DatapathError> {
        self.katran = plan.katran.as_deref().map(Katran::load).transpose()?;
        Ok(self)
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
        if let Some(katran) = &self.katran {
            katran.take(self.frame.opening(u32::MAX))?;
        }
        Ok(())
    }

    /// A number below `count`, at random.
    fn any(&mut self, count: u32) -> u32 {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        // Scaled from 32 bits to `count`, which fits again.
        (((self.random >> 32) * u64::from(count)) >> 32) as u32
    }

    /// Mean time of a round of packets of one kind.
    fn round(&mut self, program: Program, kind: Kind) -> Result<f64, DatapathError> {
        self.some(self.packets, program, kind)
    }

    /// Mean time of so many packets of one kind.
    fn some(&mut self, packets: u32, program: Program, kind: Kind) -> Result<f64, DatapathError> {
        let mut total = 0_u64;
        for _ in 0..packets {
            let frame = match kind {
                Kind::Unrelated => self.frame.unrelated(),
                Kind::Established => self.frame.request(),
                Kind::Acknowledgement => self.frame.acknowledgement(),
                Kind::Opening => {
                    self.opened += 1;
                    self.frame.opening(self.opened)
                }
                Kind::Flows(count) => {
                    let index = self.any(count);
                    self.frame.of_flow(index)
                }
                Kind::FlowsOf(count, of) => {
                    let which = self.any(count);
                    self.frame.of_flow(million::spread(which, of / count))
                }
            };
            let program = match program {
                Program::Pass => &self.pass,
                Program::Path => &self.path,
                Program::Floor => &self.floor,
                Program::Katran => katran::program(self.katran.as_ref())?,
            };
            total += u64::from(time(program.as_fd(), frame)?.nanoseconds);
        }
        Ok(total as f64 / f64::from(packets))
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

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Flags of the packets, for the frames.
const ACK: u8 = tcp::ACK;
/// See [`ACK`].
const SYN: u8 = tcp::SYN;
