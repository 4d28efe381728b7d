//! `cargo xtask demo`: five scenes with real HTTP/2, gRPC and HTTP/1.1 traffic through the real daemon, each told so
//! that a person can follow, each checked.
//!
//! What makes a scene worth believing is that three counts are made independently, by the kernel's data path, by the
//! backends and by the client, and must be equal, in total and for every backend. A scene in which they differ, or
//! in which a request fails, fails the demo.

mod counts;
mod live;
mod scenes;
mod stage;
mod story;

use std::time::Instant;

use anyhow::{Result, bail, ensure};
use serde::Serialize;

pub use counts::{Comparison, Tally};

use crate::{
    build,
    lab::{self, Leftovers},
    setup,
    term::spell,
    workspace,
};
use scenes::SCENES;
use stage::Stage;
use story::Story;

/// What to show.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Numbers of scenes; empty for all.
    pub scenes: Vec<usize>,
    /// Print one JSON document instead of the story.
    pub json: bool,
    /// Leave the lab running at the end, with all services and their backends.
    pub keep: bool,
    /// Show what is there without building first.
    pub no_build: bool,
}

/// One run of traffic, in one mode.
#[derive(Debug, Serialize)]
pub struct Phase {
    /// What the traffic was.
    pub title: String,
    /// Mode of the service for new flows.
    pub mode: String,
    /// The three counts.
    pub counted: Comparison,
    /// max / mean over the backends.
    pub hot_factor: f64,
    /// Jain's index over the backends.
    pub fairness: f64,
    /// Requests that failed at the client.
    pub failed: u64,
    /// 99th percentile of the latency, microseconds.
    pub p99_microseconds: u64,
    /// Whether the counts agree and nothing failed.
    pub passed: bool,
}

/// One scene, as `--json` prints it.
#[derive(Debug, Serialize)]
pub struct SceneReport {
    /// 1 to 5.
    pub number: usize,
    /// What it shows.
    pub title: &'static str,
    /// Runs of traffic.
    pub phases: Vec<Phase>,
    /// Second by second, where time matters.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub timeline: Vec<live::Moment>,
    /// What went against the story, in words; empty if the scene passed.
    pub objections: Vec<String>,
    /// How long it took.
    pub seconds: f64,
}

#[derive(Serialize)]
struct Report {
    passed: bool,
    scenes: Vec<SceneReport>,
}

/// Builds, sets the stage, plays the scenes.
pub fn run(options: &Options) -> Result<()> {
    let begun = Instant::now();
    if let Some(unknown) = options
        .scenes
        .iter()
        .find(|n| !(1..=SCENES.len()).contains(*n))
    {
        bail!(
            "there is no scene {unknown}; there are scenes 1 to {}",
            SCENES.len()
        );
    }
    ensure!(
        workspace::is_root(),
        "the demo makes network namespaces and loads BPF programs: run it as root"
    );
    setup::lab_tools()?;
    if !options.no_build {
        build::quick()?;
    }
    lab::clean(Leftovers::Abandoned, &[])?;
    let story = Story::new(options.json);
    let mut stage = Stage::set()?;
    let played = play(options, &mut stage, &story);
    match &played {
        Ok(report) if options.json => println!("{}", serde_json::to_string_pretty(report)?),
        Ok(report) => story.verdict(&report.scenes, &spell(begun.elapsed())),
        Err(_) => {}
    }
    // Also, and most of all, where a scene could not be played to its end.
    let kept = if options.keep {
        stage.keep().map(|how| story.instruct(&how))
    } else {
        Ok(())
    };
    ensure!(played?.passed, "the demo did not show what it should");
    kept
}

fn play(options: &Options, stage: &mut Stage, story: &Story) -> Result<Report> {
    let mut scenes = Vec::new();
    for (index, scene) in SCENES.iter().enumerate() {
        let number = index + 1;
        if !options.scenes.is_empty() && !options.scenes.contains(&number) {
            continue;
        }
        let begun = Instant::now();
        story.scene(number, scene);
        let mut report = SceneReport {
            number,
            title: scene.title,
            phases: Vec::new(),
            timeline: Vec::new(),
            objections: Vec::new(),
            seconds: 0.0,
        };
        let mut cast = stage.enter(scene)?;
        (scene.play)(&mut cast, story, &mut report)?;
        report.seconds = begun.elapsed().as_secs_f64();
        for phase in report.phases.iter().filter(|phase| !phase.passed) {
            let objection = phase
                .counted
                .objection()
                .unwrap_or_else(|| format!("{} requests failed", phase.failed));
            report
                .objections
                .push(format!("{} ({}): {objection}", phase.title, phase.mode));
        }
        if report.objections.is_empty() {
            story.say(scene.closing);
        } else {
            story.objections(&report.objections);
        }
        scenes.push(report);
    }
    Ok(Report {
        passed: scenes.iter().all(|scene| scene.objections.is_empty()),
        scenes,
    })
}
