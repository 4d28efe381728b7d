//! Scene 4: the switch while traffic runs, told second by second.

use anyhow::Result;
use serde::Serialize;

use super::{
    Phase, SceneReport,
    counts::{Comparison, Tally},
    scenes::set_mode,
    stage::{Cast, LoadReport, Tick, Unit},
    story::{Story, heat},
};
use crate::term::{Colour, bar, paint, thousands};

/// After how many seconds which mode is set.
const SWITCHES: [(f64, &str); 2] = [(3.0, "l7"), (6.0, "l4")];
/// The driver reports about once a second, a little after the second or before it.
const TOLERANCE: f64 = 0.5;

/// One second of the timeline.
#[derive(Debug, Serialize)]
pub struct Moment {
    /// Seconds since the traffic began.
    pub elapsed: f64,
    /// Mode for new flows during that second.
    pub mode: String,
    /// Good answers in that second, by backend.
    pub answers: Tally,
    /// 99th percentile of the latency in that second, microseconds.
    pub p99_microseconds: u64,
    /// Failed since the beginning.
    pub failed: u64,
    /// The mode set at the end of that second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub switched_to: Option<String>,
}

/// Traffic for nine seconds, a switch after three and after six.
pub(super) fn switch(cast: &mut Cast<'_>, story: &Story, report: &mut SceneReport) -> Result<()> {
    let cast = &*cast;
    let (kernel, served) = (cast.kernel(Unit::Streams)?, cast.served()?);
    let traffic = [
        "-c2",
        "-m16",
        "--duration=9s",
        "--rate=3000",
        "--grpc=unary",
        "--connection-lifetime=700ms",
    ];
    story.say("3,000 RPCs a second from two clients; each renews its connection every 0.7 s");
    story.say(&format!(
        "     s  mode  answers/s  {:<33} p99     failed",
        "backends 1 to 4"
    ));
    let mut mode = "l4";
    let mut due = SWITCHES.iter().peekable();
    let mut timeline = Vec::new();
    let load = cast.load(&traffic, |tick| {
        // Late is better than never: a machine that is busy may keep a report back.
        let next = due
            .next_if(|(at, _)| tick.elapsed > at - TOLERANCE)
            .map(|(_, mode)| *mode);
        let moment = moment(cast, tick, mode, next);
        tell(story, &moment);
        timeline.push(moment);
        if let Some(next) = next {
            set_mode(cast, story, next)?;
            mode = next;
        }
        Ok(())
    })?;
    let counted = Comparison {
        unit: Unit::Streams.name(),
        kernel: cast.kernel(Unit::Streams)?.since(&kernel),
        backends: cast.served()?.since(&served),
        client: Tally {
            total: load.ok,
            per_backend: cast.in_order(&load.per_backend),
        },
    };
    for (cause, times) in &load.causes {
        eprintln!("  {times} x {cause}");
    }
    story.say("");
    let phase = together(&load, counted);
    story.phase(&phase);
    report.phases.push(phase);
    report.objections.extend(objections(&timeline));
    report.timeline = timeline;
    Ok(())
}

/// The whole of it, as one phase.
fn together(load: &LoadReport, counted: Comparison) -> Phase {
    Phase {
        title: "the nine seconds together".to_owned(),
        mode: "l4 → l7 → l4".to_owned(),
        hot_factor: counted.client.hot_factor(),
        fairness: counted.client.fairness(),
        failed: load.failed,
        p99_microseconds: load.latency.p99,
        passed: counted.agrees() && load.failed == 0,
        counted,
    }
}

fn moment(cast: &Cast<'_>, tick: &Tick, mode: &str, next: Option<&str>) -> Moment {
    Moment {
        elapsed: tick.elapsed,
        mode: mode.to_owned(),
        answers: Tally {
            total: tick.ok,
            per_backend: cast.in_order(&tick.per_backend),
        },
        p99_microseconds: tick.latency.p99,
        failed: tick.total_failed,
        switched_to: next.map(str::to_owned),
    }
}

fn tell(story: &Story, moment: &Moment) {
    let Moment {
        elapsed,
        mode,
        answers,
        p99_microseconds,
        failed,
        switched_to: _,
    } = moment;
    let shares = answers.shares();
    let bars: Vec<String> = shares
        .iter()
        .map(|share| heat(share * shares.len() as f64, bar(*share, 7)))
        .collect();
    let failed = if *failed == 0 {
        paint(Colour::Green, failed)
    } else {
        paint(Colour::Red, failed)
    };
    story.say(&format!(
        "  {elapsed:>4.0}  {mode:<4}  {:>9}  {}  {:>5.1} ms  {failed}",
        thousands(answers.total),
        bars.join("│"),
        *p99_microseconds as f64 / 1000.0,
    ));
}

/// Both switches must have happened. By the last second at l7 every connection was renewed, and streams are dealt one
/// by one. What l4 does with two connections is up to the hash.
fn objections(timeline: &[Moment]) -> Vec<String> {
    let mut objections = Vec::new();
    let switched: Vec<&str> = timeline
        .iter()
        .filter_map(|moment| moment.switched_to.as_deref())
        .collect();
    let wanted = SWITCHES.map(|(_, mode)| mode);
    if switched != wanted {
        objections.push(format!(
            "switches to {wanted:?} were wanted while traffic ran, there were {switched:?}"
        ));
    }
    let last_at_l7 = timeline
        .iter()
        .rfind(|moment| moment.mode == "l7")
        .map(|moment| (moment.elapsed, moment.answers.hot_factor()));
    objections.extend(
        last_at_l7
            .filter(|(_, factor)| !(1.0..=1.25).contains(factor))
            .map(|(elapsed, factor)| {
                format!("second {elapsed:.0}, in l7, has a hot factor of {factor:.2}")
            }),
    );
    objections
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(elapsed: f64, mode: &str, switched_to: Option<&str>, answers: [u64; 4]) -> Moment {
        Moment {
            elapsed,
            mode: mode.to_owned(),
            answers: Tally::summed(answers.to_vec()),
            p99_microseconds: 1,
            failed: 0,
            switched_to: switched_to.map(str::to_owned),
        }
    }

    fn two_switches() -> Vec<Moment> {
        vec![
            moment(3.0, "l4", Some("l7"), [9, 0, 0, 0]),
            moment(4.0, "l7", None, [9, 3, 3, 3]),
            moment(6.0, "l7", Some("l4"), [5, 5, 5, 5]),
            moment(7.0, "l4", None, [0, 9, 0, 0]),
        ]
    }

    #[test]
    fn two_switches_with_level_streams_in_between_are_no_objection() {
        assert_eq!(objections(&two_switches()), Vec::<String>::new());
    }

    #[test]
    fn a_switch_that_did_not_happen_is_an_objection() {
        for missing in [0, 2] {
            let mut timeline = two_switches();
            timeline[missing].switched_to = None;
            let objections = objections(&timeline);
            assert!(objections[0].starts_with("switches to"), "{objections:?}");
        }
        assert!(!objections(&[]).is_empty(), "no second was seen at all");
    }

    #[test]
    fn an_uneven_last_second_at_l7_is_an_objection() {
        let mut timeline = two_switches();
        timeline[2].answers = Tally::summed(vec![9, 5, 5, 1]);
        let objections = objections(&timeline);
        assert_eq!(objections, ["second 6, in l7, has a hot factor of 1.80"]);
    }
}
