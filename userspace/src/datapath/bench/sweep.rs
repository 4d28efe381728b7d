//! The same packet on tables of other sizes, with and without counting streams.
//!
//! Every packet carries payload: the next gRPC request of its flow, or the next full segment of an upload. Some packets with
//! counting and some without take turns; the switch is the one that the configuration has. Without counting a flow's
//! stream counter stands still, so those turns send a flow's next request without going on to the one after: the
//! turn with counting then finds every flow in step.

use std::os::fd::AsFd;

use serde::Serialize;

use super::super::counters::sum;
use super::frame::SEGMENTS;
use super::tables::{Size, insert_flows, service_port, settings};
use super::{
    Bench, DatapathError, FrameBuilder, Kind, Measured, Plan, Program, XDP_PASS, million, time,
};

/// Sizes that are compared.
const FLOWS: [u32; 7] = [1, 10, 100, 1_000, 10_000, 100_000, million::MANY];
const BACKENDS: [u16; 4] = [1, 16, 256, 4_096];
const SERVICES: [u16; 4] = [1, 10, 100, 1_000];
/// Flows while the number of backends or services is what changes.
const SOME: u32 = 10_000;
/// SYNs of a round. A single backend has 22,528 NAT ports, of which [`SOME`] are taken.
const OPENINGS: u32 = 1_000;
/// Most packets of a turn. What counting adds is a tenth or less of what a packet takes where flows are many, and a shared host changes
/// its speed by more than that from turn to turn if these are long: with 100,000 packets intervals were up to 460 ns wide, with 5,000
/// up to 80, now up to 13.
const TURN: u32 = 500;
/// Rounds with SYNs, for the same reason.
const OPENING_ROUNDS: usize = 11;

/// One kind of size.
#[derive(Clone, Debug, Serialize)]
pub struct Sweep {
    /// Stable name.
    pub name: &'static str,
    /// What changes, and what the packets are.
    pub about: &'static str,
    /// From small to large.
    pub points: Vec<Point>,
}

/// One size; times in nanoseconds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Point {
    /// How many flows, backends or services.
    pub size: u32,
    /// A program that passes everything, in each turn.
    pub pass: Vec<f64>,
    /// A packet with payload, its streams counted.
    pub counted: Vec<f64>,
    /// The same packet with counting switched off.
    pub uncounted: Vec<f64>,
    /// A SYN; empty where it is not measured.
    pub opening: Vec<f64>,
}

/// What the packets with payload are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payload {
    /// A gRPC request each.
    Request,
    /// Full segments of an upload.
    Upload,
}

/// What depends on how many flows there are; and the sweeps, if the plan has them.
pub(super) fn run(plan: &Plan) -> Result<(Vec<Measured>, Vec<Sweep>), DatapathError> {
    let (cases, flows) = flows(plan)?;
    if !plan.sweeps {
        return Ok((cases, Vec::new()));
    }
    let upload = Sweep {
        name: "upload",
        about: "one flow; a full segment of an upload, of which one in eight begins a request",
        points: vec![upload(plan)?],
    };
    let sizes = BACKENDS.map(|backends| Size {
        backends,
        services: 1,
    });
    let backends = Sweep {
        name: "backends",
        about: "10,000 flows; a gRPC request of one at random",
        points: points(plan, sizes, |size| size.backends)?,
    };
    let sizes = SERVICES.map(|services| Size {
        backends: 256,
        services,
    });
    let services = Sweep {
        name: "services",
        about: "10,000 flows; a gRPC request of one at random",
        points: points(plan, sizes, |size| size.services)?,
    };
    Ok((cases, vec![flows, upload, backends, services]))
}

fn flows(plan: &Plan) -> Result<(Vec<Measured>, Sweep), DatapathError> {
    let mut world = World::new(plan, super::SIZE)?.beside_katran()?;
    let mut points = Vec::new();
    let sizes = if plan.sweeps {
        &FLOWS[..]
    } else {
        &[million::MANY]
    };
    for size in sizes.iter().copied() {
        world.grow(size)?;
        world.go_round(Payload::Request)?;
        if plan.sweeps {
            points.push(world.measure(size, Payload::Request)?);
        }
    }
    let cases = million::compare(plan, &mut world)?;
    let sweep = Sweep {
        name: "flows",
        about: "256 backends; a gRPC request of one flow at random",
        points,
    };
    Ok((cases, sweep))
}

fn upload(plan: &Plan) -> Result<Point, DatapathError> {
    let mut world = World::new(plan, super::SIZE)?;
    world.grow(1)?;
    world.go_round(Payload::Upload)?;
    world.measure(1, Payload::Upload)
}

fn points(
    plan: &Plan,
    sizes: [Size; 4],
    what: impl Fn(Size) -> u16,
) -> Result<Vec<Point>, DatapathError> {
    sizes
        .into_iter()
        .map(|size| {
            let mut world = World::new(plan, size)?;
            world.grow(SOME)?;
            world.go_round(Payload::Request)?;
            let mut point = world.measure(what(size).into(), Payload::Request)?;
            for _ in 0..plan.rounds.min(OPENING_ROUNDS) {
                point.opening.push(world.openings()?);
            }
            Ok(point)
        })
        .collect()
}

/// Tables of one size, and how far every flow has come.
pub(super) struct World {
    pub(super) bench: Bench,
    plan: Plan,
    size: Size,
    frame: FrameBuilder,
    /// Packets that each flow has sent.
    sent: Vec<u32>,
}

impl World {
    pub(super) fn new(plan: &Plan, size: Size) -> Result<Self, DatapathError> {
        let mut frame = FrameBuilder::new();
        frame.begin_requests();
        Ok(Self {
            bench: Bench::load(plan, size)?,
            plan: plan.clone(),
            size,
            frame,
            sent: Vec::new(),
        })
    }

    /// With Katran's program beside ours, if the plan has it.
    pub(super) fn beside_katran(mut self) -> Result<Self, DatapathError> {
        self.bench = self.bench.beside_katran(&self.plan)?;
        Ok(self)
    }

    /// Up to so many flows in all.
    pub(super) fn grow(&mut self, flows: u32) -> Result<(), DatapathError> {
        let first = u32::try_from(self.sent.len()).unwrap_or(u32::MAX);
        let range = (first, flows);
        insert_flows(&mut self.bench.maps, self.plan.backend, self.size, range)?;
        if let Some(katran) = &self.bench.katran {
            // It has no entry of ours: a packet makes one.
            for index in first..flows {
                katran.take(self.frame.of_flow(index))?;
            }
        }
        self.sent.resize(flows as usize, 0);
        Ok(())
    }

    /// A packet of every flow, so that none is at what it does after a long silence.
    pub(super) fn go_round(&mut self, payload: Payload) -> Result<(), DatapathError> {
        settings(&mut self.bench.maps, true)?;
        for flow in 0..self.sent.len() {
            self.send(flow as u32, payload, true)?;
        }
        Ok(())
    }

    fn measure(&mut self, size: u32, payload: Payload) -> Result<Point, DatapathError> {
        let mut point = Point {
            size,
            ..Point::default()
        };
        let turn = self.plan.packets.clamp(1, TURN);
        let turns = self.plan.rounds * (self.plan.packets / turn) as usize;
        for number in 0..turns {
            let passed = self.bench.some(turn, Program::Pass, Kind::Unrelated)?;
            point.pass.push(passed);
            let first = number % 2 == 0;
            for counting in [first, !first] {
                let mean = self.turn(turn, payload, counting)?;
                if counting {
                    point.counted.push(mean);
                } else {
                    point.uncounted.push(mean);
                }
            }
        }
        self.counted(payload)?;
        Ok(point)
    }

    /// Mean time of so many packets of any flows.
    fn turn(
        &mut self,
        packets: u32,
        payload: Payload,
        counting: bool,
    ) -> Result<f64, DatapathError> {
        settings(&mut self.bench.maps, counting)?;
        let mut total = 0_u64;
        for _ in 0..packets {
            let flow = self.bench.any(self.sent.len() as u32);
            total += u64::from(self.send(flow, payload, counting)?);
        }
        Ok(total as f64 / f64::from(packets))
    }

    /// Fails unless every request was counted: it is the walker in step that is measured, not one that searches.
    fn counted(&self, payload: Payload) -> Result<(), DatapathError> {
        let requests = |packets: &u32| match payload {
            Payload::Request => u64::from(*packets),
            Payload::Upload => u64::from(packets.div_ceil(SEGMENTS)),
        };
        let sent = self.sent.iter().map(requests).sum();
        let mut counted = 0;
        for service in 0..u32::from(self.size.services) {
            let counts = &self.bench.maps.service_counts;
            counted += sum(counts, "SERVICE_COUNTS", service)?.streams;
        }
        if sent == counted {
            Ok(())
        } else {
            Err(DatapathError::BenchCounts { sent, counted })
        }
    }

    /// The next packet of a flow; how long it took.
    fn send(&mut self, flow: u32, payload: Payload, counting: bool) -> Result<u32, DatapathError> {
        let Some(sent) = self.sent.get_mut(flow as usize) else {
            return Ok(0);
        };
        let frame = match payload {
            Payload::Request => {
                let service = flow % u32::from(self.size.services);
                self.frame.request_of(flow, service_port(service), *sent)
            }
            Payload::Upload => self.frame.upload_of(flow, *sent),
        };
        *sent = sent.wrapping_add(counting.into());
        let run = time(self.bench.path.as_fd(), frame)?;
        if run.verdict == XDP_PASS {
            return Err(DatapathError::BenchRoute);
        }
        Ok(run.nanoseconds)
    }

    /// Mean time of a round of SYNs, to all services.
    fn openings(&mut self) -> Result<f64, DatapathError> {
        let mut total = 0_u64;
        for _ in 0..OPENINGS {
            self.bench.opened += 1;
            let service = self.bench.opened % u32::from(self.size.services);
            let frame = self
                .frame
                .opening_to(self.bench.opened, service_port(service));
            total += u64::from(time(self.bench.path.as_fd(), frame)?.nanoseconds);
        }
        Ok(total as f64 / f64::from(OPENINGS))
    }
}
