//! The same packet on tables of other sizes, with and without counting streams.
//!
//! Every packet carries payload: the next gRPC request of its flow, or the next full segment of an upload. A round with
//! counting and one without take turns; the switch is the one that the configuration has. Without counting a flow's
//! stream counter stands still, so those rounds send a flow's next request without going on to the one after: the
//! round with counting then finds every flow in step.

use serde::Serialize;

use super::tables::{Size, insert_flows, service_port, settings};
use super::{Bench, DatapathError, FrameBuilder, Plan, XDP_PASS, time};
use std::os::fd::AsFd;

/// Sizes that are compared.
const FLOWS: [u32; 7] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000];
const BACKENDS: [u16; 4] = [1, 16, 256, 4_096];
const SERVICES: [u16; 4] = [1, 10, 100, 1_000];
/// Flows while the number of backends or services is what changes.
const SOME: u32 = 10_000;
/// SYNs of a round. A single backend has 22,528 NAT ports, of which [`SOME`] are taken.
const OPENINGS: u32 = 1_000;
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

/// One size; times in nanoseconds, one of each round.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Point {
    /// How many flows, backends or services.
    pub size: u32,
    /// A program that passes everything.
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
enum Payload {
    /// A gRPC request each.
    Request,
    /// Full segments of an upload.
    Upload,
}

pub(super) fn run(plan: Plan) -> Result<Vec<Sweep>, DatapathError> {
    let mut sweeps = vec![
        flows(plan)?,
        Sweep {
            name: "upload",
            about: "one flow; a full segment of an upload, of which one in eight begins a request",
            points: vec![upload(plan)?],
        },
    ];
    let sizes = BACKENDS.map(|backends| Size {
        backends,
        services: 1,
    });
    sweeps.push(Sweep {
        name: "backends",
        about: "10,000 flows; a gRPC request of one at random",
        points: points(plan, sizes, |size| size.backends)?,
    });
    let sizes = SERVICES.map(|services| Size {
        backends: 256,
        services,
    });
    sweeps.push(Sweep {
        name: "services",
        about: "10,000 flows; a gRPC request of one at random",
        points: points(plan, sizes, |size| size.services)?,
    });
    Ok(sweeps)
}

fn flows(plan: Plan) -> Result<Sweep, DatapathError> {
    let mut world = World::new(plan, super::SIZE)?;
    let mut points = Vec::new();
    for size in FLOWS {
        world.grow(size)?;
        points.push(world.measure(size, Payload::Request)?);
    }
    Ok(Sweep {
        name: "flows",
        about: "256 backends; a gRPC request of one flow at random",
        points,
    })
}

fn upload(plan: Plan) -> Result<Point, DatapathError> {
    let mut world = World::new(plan, super::SIZE)?;
    world.grow(1)?;
    world.measure(1, Payload::Upload)
}

fn points(
    plan: Plan,
    sizes: [Size; 4],
    what: impl Fn(Size) -> u16,
) -> Result<Vec<Point>, DatapathError> {
    sizes
        .into_iter()
        .map(|size| {
            let mut world = World::new(plan, size)?;
            world.grow(SOME)?;
            let mut point = world.measure(what(size).into(), Payload::Request)?;
            for _ in 0..plan.rounds.min(OPENING_ROUNDS) {
                point.opening.push(world.openings()?);
            }
            Ok(point)
        })
        .collect()
}

/// Tables of one size, and how far every flow has come.
struct World {
    bench: Bench,
    plan: Plan,
    size: Size,
    frame: FrameBuilder,
    /// Packets that each flow has sent.
    sent: Vec<u32>,
}

impl World {
    fn new(plan: Plan, size: Size) -> Result<Self, DatapathError> {
        let mut frame = FrameBuilder::new();
        frame.begin_requests();
        Ok(Self {
            bench: Bench::load(plan.backend, plan.packets, size)?,
            plan,
            size,
            frame,
            sent: Vec::new(),
        })
    }

    /// Up to so many flows in all.
    fn grow(&mut self, flows: u32) -> Result<(), DatapathError> {
        let first = u32::try_from(self.sent.len()).unwrap_or(u32::MAX);
        let range = (first, flows);
        insert_flows(&mut self.bench.maps, self.plan.backend, self.size, range)?;
        self.sent.resize(flows as usize, 0);
        Ok(())
    }

    fn measure(&mut self, size: u32, payload: Payload) -> Result<Point, DatapathError> {
        let mut point = Point {
            size,
            ..Point::default()
        };
        settings(&mut self.bench.maps, true)?;
        // Every flow once, so that most are at what they do between two looks at their other half.
        for flow in 0..self.sent.len() {
            self.send(flow as u32, payload, true)?;
        }
        for _ in 0..self.plan.rounds {
            point.pass.push(self.bench.round(super::Kind::Pass)?);
            for counting in [true, false] {
                settings(&mut self.bench.maps, counting)?;
                let mut total = 0_u64;
                for _ in 0..self.plan.packets {
                    let flow = self.bench.any(self.sent.len() as u32);
                    total += u64::from(self.send(flow, payload, counting)?);
                }
                let mean = total as f64 / f64::from(self.plan.packets);
                if counting {
                    point.counted.push(mean);
                } else {
                    point.uncounted.push(mean);
                }
            }
        }
        Ok(point)
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
