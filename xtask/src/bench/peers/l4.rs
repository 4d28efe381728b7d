//! What balancing flows costs: CPU of the whole host per request, requests and connections a second, and p99, with
//! evenkeel (`nat`, at the TC and the XDP hook), nftables doing the same, the TCP proxies of HAProxy and nginx, and
//! without any balancer.
//!
//! Client, balancer and server are on one host and all of them part of the CPU per request, as the work of a balancer
//! in the kernel is charged to whoever it interrupts; so only differences and ratios say something about the balancer.
//!
//! Two groups, as hooks can be compared only where the network cards do the same: with all that virtual cards do by
//! themselves, and without checksums by the card, which native XDP redirection between them needs.

use std::{fs, path::PathBuf};

use anyhow::Result;

use super::super::{
    Context, Outcome,
    host::{Stopwatch, idle},
    result::{Axis, Claim, Column, Measured, Plot, PlotKind, Point, Row, Series, Table},
};
use super::{
    contest::{Contestant, OURS, contest, rounds},
    failure,
    h2load::Load,
    ways::{FLOWTABLE, Kind, NFTABLES, Way},
};
use crate::{lab::Offloads, term::Progress};

/// Indices of the figures of a visit.
const CPU: usize = 0;
const RATE: usize = 1;
const CONNECTS: usize = 2;
const P99: usize = 3;

/// Most that evenkeel may spend, as a multiple of nftables.
const GOAL: f64 = 1.0;
/// Connections under load, and streams at a time on each.
const BUSY: (u32, u32) = (10, 10);
/// The same while the p99 is taken: so few that it shows the way and not a queue.
const CALM: (u32, u32) = (4, 1);

/// Who is measured with the same cards.
struct Group {
    id: &'static str,
    title: &'static str,
    offloads: Offloads,
    /// The first one is what the others are compared with.
    ways: &'static [(&'static str, Kind)],
}

static GROUPS: [Group; 2] = [
    Group {
        id: "offloads",
        title: "Virtual cards as they come: packets of up to 64 KiB, no checksums",
        offloads: Offloads::All,
        ways: &[
            ("nftables, DNAT and masquerade", NFTABLES),
            ("evenkeel nat, TC", Kind::Evenkeel("tc")),
            ("nftables with a flowtable", FLOWTABLE),
            ("HAProxy, mode tcp", Kind::Haproxy),
            ("nginx, stream", Kind::Nginx),
            ("routed, no balancer", Kind::Routed),
        ],
    },
    Group {
        id: "checksums",
        title: "Checksums written and checked, no segmentation by the card: what native XDP redirection needs",
        offloads: Offloads::NoChecksums,
        ways: &[
            ("nftables, DNAT and masquerade", NFTABLES),
            ("evenkeel nat, XDP", Kind::Evenkeel("xdp")),
            ("evenkeel nat, TC", Kind::Evenkeel("tc")),
            ("routed, no balancer", Kind::Routed),
        ],
    },
];

/// Connections made at once: fewer than the ring of a virtual card that XDP is attached to has places (`VETH_RING_SIZE`, 256), and
/// than nghttpd lets wait to be accepted (1,000, its `listen`). Of 2,000 over XDP some SYNs were lost in either, none of them
/// by a balancer, and the second after which they came again was all that the figure showed.
const AT_ONCE: u32 = 250;

/// Rounds of a full run. A host changes its speed within seconds, so rivals are compared better in many short visits than in few long
/// ones: in nine rounds of visits of seven seconds the intervals of the ratio to nftables were 0.17 to 0.45
/// wide, in 17 of half that length 0.09 to 0.15.
const ROUNDS: usize = 17;

/// The three loads of a visit.
struct Plan {
    busy: Load,
    connecting: Load,
    /// How often so many connections are made.
    bursts: u32,
    calm: Load,
    idle: f64,
    log: PathBuf,
}

impl Plan {
    fn new(context: &Context) -> Result<Self> {
        Ok(Self {
            // About a second's work of two CPUs in a full run: 200 ticks of the clock that CPU time is counted by.
            busy: Load::new(BUSY, context.choose(200_000, 60_000)),
            connecting: Load::new((AT_ONCE, 1), AT_ONCE),
            bursts: context.choose(5, 4),
            // A hundred requests are slower than the p99.
            calm: Load::new(CALM, 10_000),
            idle: idle()?,
            log: context.scratch("peers-l4")?.join("h2load.log"),
        })
    }

    fn visit(&self, way: &Way) -> Result<Vec<f64>> {
        let client = way.lab.client();
        let watch = Stopwatch::start()?;
        let rate = self.busy.run(client, &way.url)?;
        let cpu = watch.stop(self.idle)? / f64::from(self.busy.requests) * 1e6;
        let mut seconds = 0.0;
        for _ in 0..self.bursts {
            seconds += f64::from(AT_ONCE) / self.connecting.run(client, &way.url)?;
        }
        let connects = f64::from(AT_ONCE * self.bursts) / seconds;
        let calm = self.calm.timed(client, &way.url, &self.log)?;
        Ok(vec![cpu, rate, connects, calm.p99])
    }
}

pub(in super::super) fn run(context: &Context) -> Result<Outcome> {
    let progress = Progress::start("making a lab for each way");
    let mut contestants: Vec<Contestant<Way>> = GROUPS
        .iter()
        .flat_map(|group| {
            group
                .ways
                .iter()
                .map(move |(label, kind)| (group, *label, *kind))
        })
        .map(|(group, label, kind)| {
            progress.note(label.to_owned());
            Contestant::new(label, Way::new(kind, group.offloads).and_then(warmed))
        })
        .collect();
    progress.done();
    let plan = Plan::new(context)?;
    let counted = contest(
        &mut contestants,
        context.choose(ROUNDS, rounds(context)),
        "h2load by every way",
        |way| plan.visit(way),
    )?;
    fs::remove_file(&plan.log).ok();
    let (first, second) = contestants.split_at(GROUPS[0].ways.len());
    let mut outcome = outcome(&plan, [first, second]);
    outcome.notes.extend(counted.note());
    Ok(outcome)
}

/// A way that has carried something already: neighbours are resolved, code is in the caches.
fn warmed(way: Way) -> Result<Way, String> {
    let load = Load::new(BUSY, 5_000);
    load.run(way.lab.client(), &way.url)
        .map_err(|error| failure(&error))?;
    Ok(way)
}

fn outcome(plan: &Plan, groups: [&[Contestant<Way>]; 2]) -> Outcome {
    let mut outcome = Outcome::default();
    for (group, contestants) in GROUPS.iter().zip(groups) {
        outcome.tables.push(table(group, contestants));
        outcome.plots.push(plot(group, contestants));
        let [nftables, ours @ ..] = contestants else {
            continue;
        };
        let ours = ours.iter().filter(|it| it.label.starts_with(OURS));
        outcome.claims.extend(ours.map(|mine| {
            let Claim { text, seen, holds } =
                mine.claim(nftables, CPU, "CPU of the host per request", GOAL);
            Claim::new(format!("{text} ({})", group.id), seen, holds)
        }));
    }
    outcome.notes = vec![
        format!(
            "h2load -c 10 -m 10 for CPU and requests a second ({} requests a visit), {} times {} connections of one \
             request each for connections a second, -c 4 -m 1 for p99.",
            plan.busy.requests, plan.bursts, AT_ONCE
        ),
        "CPU is that of the whole host, client and server included, less what it spends when nothing is measured.".into(),
        "Configurations of the rivals, and how they are tuned: xtask/src/bench/peers/config/.".into(),
    ];
    outcome
}

fn table(group: &Group, contestants: &[Contestant<Way>]) -> Table {
    let rows = contestants.iter().map(|it| {
        let against = contestants
            .first()
            .map(|nftables| it.ratio_cell(nftables, CPU));
        let cells = std::iter::once(it.cell(CPU))
            .chain(against)
            .chain([RATE, CONNECTS, P99].map(|index| it.cell(index)));
        Row::new(it.label, cells.collect())
    });
    Table {
        id: group.id.to_owned(),
        title: group.title.to_owned(),
        of: "way".to_owned(),
        columns: vec![
            Column::new("CPU per request", "us", 2),
            Column::new("against nftables", "", 2),
            Column::new("requests", "1/s", 0),
            Column::new("connections", "1/s", 0),
            Column::new("p99, calm", "us", 0),
        ],
        rows: rows.collect(),
    }
}

fn plot(group: &Group, contestants: &[Contestant<Way>]) -> Plot {
    let points = contestants.iter().enumerate().filter_map(|(index, it)| {
        let cpu = Measured::of(&it.samples(CPU))?;
        Some(Point::measured(index as f64, &cpu))
    });
    Plot {
        id: format!("cpu-{}", group.id),
        title: format!("CPU of the whole host per request. {}", group.title),
        kind: PlotKind::Bars,
        x: Axis {
            title: "way".to_owned(),
            categories: contestants.iter().map(|it| it.label.to_owned()).collect(),
            ..Axis::default()
        },
        y: Axis {
            title: "CPU per request (us)".to_owned(),
            ..Axis::default()
        },
        series: vec![Series {
            name: "CPU per request".to_owned(),
            points: points.collect(),
        }],
    }
}
