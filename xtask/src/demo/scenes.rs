//! The scenes. Scene 4, which follows the clock, is in [`super::live`].

use anyhow::Result;

use super::{
    Phase, SceneReport,
    counts::{Comparison, Tally},
    live,
    stage::{Cast, Tick, Unit},
    story::Story,
};
use crate::term::{Progress, thousands};

/// Hash seeds in scene 2: all a flow's backend depends on besides its addresses and ports. For another one evenkeel is
/// started anew, which takes about two seconds.
const SEEDS: usize = 3;
/// Runs of ten connections under each, from new source ports: enough, together, to see how a fair coin falls.
const TOSSES: usize = 3;

/// A scene: who takes part, and what happens.
pub(super) struct Scene {
    /// What it shows.
    pub(super) title: &'static str,
    /// Why that is worth showing.
    pub(super) opening: &'static str,
    /// What was to be seen; said only if it was, since it promises that nothing failed.
    pub(super) closing: &'static str,
    /// The name of its service.
    pub(super) service: &'static str,
    /// How many backends the service has.
    pub(super) backends: usize,
    /// The action.
    pub(super) play: fn(&mut Cast<'_>, &Story, &mut SceneReport) -> Result<()>,
}

/// All scenes, in order.
pub(super) static SCENES: [Scene; 5] = [
    Scene {
        title: "one gRPC client, one connection, four backends",
        opening: "A gRPC client opens one connection and sends everything over it. A balancer of\n\
                  connections has exactly one decision to take, and takes it once.",
        closing: "Same client, same single connection: one backend did all the work, now four share it.",
        service: "one-client",
        backends: 4,
        play: one_client,
    },
    Scene {
        title: "ten clients, one connection each, two backends",
        opening: "Ten connections, dealt by hash: ten tosses of a coin. Five each is the rarer outcome.",
        closing: "At l7 the number of connections does not matter.",
        service: "ten-clients",
        backends: 2,
        play: ten_clients,
    },
    Scene {
        title: "one busy client among nine quiet ones, four backends",
        opening: "Connections may be dealt evenly and the work is not: one of ten connections carries\n\
                  nine of ten requests.",
        closing: "The busy client is as busy as before; no backend is.",
        service: "busy-client",
        backends: 4,
        play: busy_client,
    },
    Scene {
        title: "the switch, l4 to l7 and back, in the middle of traffic",
        opening: "Flows keep the path that they began on, new flows take the new one; clients renew\n\
                  their connections now and then. Nobody is cut off, so no RPC may fail.",
        closing: "Two switches under load, no RPC lost.",
        service: "switch",
        backends: 4,
        play: live::switch,
    },
    Scene {
        title: "HTTP/1.1 with a connection per request, four backends",
        opening: "Not everything needs l7. Here a connection is a request, and l4 is the cheaper choice.",
        closing: "Level at l4, without a proxy in the path. evenkeel would not ask you to switch this one.",
        service: "http1",
        backends: 4,
        play: http1,
    },
];

/// Sets the mode and tells so.
pub(super) fn set_mode(cast: &Cast<'_>, story: &Story, mode: &str) -> Result<()> {
    let arguments = ["mode", cast.service(), mode];
    let printed = cast.cli(&arguments)?;
    story.command(&format!("evenkeel {}", arguments.join(" ")), &printed);
    Ok(())
}

/// One run of the load driver with the three counts taken around it. `unit` is what the kernel counts
/// requests by.
fn act(cast: &Cast<'_>, title: &str, mode: &str, unit: Unit, arguments: &[&str]) -> Result<Phase> {
    let (kernel, served) = (cast.kernel(unit)?, cast.served()?);
    let progress = Progress::start(title);
    let report = cast.load(arguments, |tick: &Tick| {
        progress.note(format!(
            "{} answers, {} per second, {} failed",
            thousands(tick.total_ok),
            thousands(tick.ok),
            tick.total_failed
        ));
        Ok(())
    })?;
    progress.clear();
    let counted = Comparison {
        unit: unit.name(),
        kernel: cast.kernel(unit)?.since(&kernel),
        backends: cast.served()?.since(&served),
        client: Tally {
            total: report.ok,
            per_backend: cast.in_order(&report.per_backend),
        },
    };
    for (cause, times) in &report.causes {
        eprintln!("  {times} x {cause}");
    }
    Ok(Phase {
        title: title.to_owned(),
        mode: mode.to_owned(),
        hot_factor: counted.client.hot_factor(),
        fairness: counted.client.fairness(),
        failed: report.failed,
        p99_microseconds: report.latency.p99,
        passed: counted.agrees() && report.failed == 0,
        counted,
    })
}

/// An objection unless the hot factor of the last phase is within `expected`.
fn expect(report: &mut SceneReport, expected: std::ops::RangeInclusive<f64>, why: &str) {
    if let Some(phase) = report.phases.last()
        && !expected.contains(&phase.hot_factor)
    {
        let found = phase.hot_factor;
        report.objections.push(format!(
            "{why}: expected a hot factor of {} to {}, found {found:.2}",
            expected.start(),
            expected.end()
        ));
    }
}

fn one_client(cast: &mut Cast<'_>, story: &Story, report: &mut SceneReport) -> Result<()> {
    let traffic = ["-c1", "-m20", "-n8000", "--rate=4000", "--grpc=unary"];
    let title = "8,000 RPCs over one connection";
    let phase = act(cast, title, "l4", Unit::Streams, &traffic)?;
    story.phase(&phase);
    report.phases.push(phase);
    expect(report, 4.0..=4.0, "one flow has one backend");
    let arguments = ["pinning", cast.service()];
    story.command(
        &format!("evenkeel {}", arguments.join(" ")),
        &cast.cli(&arguments)?,
    );
    set_mode(cast, story, "l7")?;
    let phase = act(cast, title, "l7", Unit::Streams, &traffic)?;
    story.phase(&phase);
    report.phases.push(phase);
    expect(report, 1.0..=1.05, "streams are dealt one by one");
    Ok(())
}

fn ten_clients(cast: &mut Cast<'_>, story: &Story, report: &mut SceneReport) -> Result<()> {
    story.short_runs(
        "l4",
        "1,000 requests over ten connections, again and again: new source ports each time,",
        "and another hash seed after every third",
        Unit::Streams.name(),
    );
    let mut level = 0;
    for toss in 0..SEEDS * TOSSES {
        let (seed, run) = (toss / TOSSES + 1, toss % TOSSES + 1);
        if seed > 1 && run == 1 {
            cast.draw_hash_seed()?;
        }
        let title = format!("1,000 requests over ten connections, hash seed {seed}, run {run}");
        let traffic = ["-c10", "-m1", "-n1000"];
        let phase = act(cast, &title, "l4", Unit::Streams, &traffic)?;
        story.short_run(&format!("seed {seed}, run {run}"), &phase.counted);
        let shares = phase.counted.client.shares();
        level += usize::from(shares.iter().all(|share| (share - 0.5).abs() < 0.01));
        report.phases.push(phase);
    }
    story.say(&format!(
        "    level in {level} of {} runs; a fair coin says 1 in 4",
        SEEDS * TOSSES
    ));
    story.say("");
    set_mode(cast, story, "l7")?;
    let traffic = ["-c10", "-m1", "-n4000", "--rate=4000"];
    let phase = act(
        cast,
        "4,000 requests over ten connections",
        "l7",
        Unit::Streams,
        &traffic,
    )?;
    story.phase(&phase);
    report.phases.push(phase);
    expect(report, 1.0..=1.05, "streams are dealt one by one");
    Ok(())
}

fn busy_client(cast: &mut Cast<'_>, story: &Story, report: &mut SceneReport) -> Result<()> {
    let traffic = [
        "-c10",
        "-m16",
        "-n10000",
        "--rate=5000",
        "--grpc=unary",
        "--weights=91,1,1,1,1,1,1,1,1,1",
    ];
    let title = "10,000 RPCs, 91 % of them from one of ten connections";
    let phase = act(cast, title, "l4", Unit::Streams, &traffic)?;
    story.phase(&phase);
    report.phases.push(phase);
    expect(report, 3.6..=4.0, "the busy flow has one backend");
    set_mode(cast, story, "l7")?;
    let phase = act(cast, title, "l7", Unit::Streams, &traffic)?;
    story.phase(&phase);
    report.phases.push(phase);
    expect(report, 1.0..=1.1, "streams are dealt one by one");
    Ok(())
}

fn http1(cast: &mut Cast<'_>, story: &Story, report: &mut SceneReport) -> Result<()> {
    let traffic = ["-c8", "-n4000", "--rate=2000", "--http1", "--no-keepalive"];
    let title = "4,000 requests, each over a connection of its own";
    let phase = act(cast, title, "l4", Unit::Flows, &traffic)?;
    story.phase(&phase);
    report.phases.push(phase);
    expect(
        report,
        1.0..=1.2,
        "a hash deals thousands of flows about evenly",
    );
    Ok(())
}
