//! How the demo tells its story: titles, bars, the three counts, the verdict. Silent where JSON was asked for.

use super::{Phase, SceneReport, counts::Comparison, scenes::Scene, stage::backend_name};
use crate::term::{Colour, bar, paint, thousands};

/// Width of a bar in cells.
const BAR: usize = 32;
/// Width of each of the bars that share a line.
const SHORT_BAR: usize = 16;

/// The teller.
pub(super) struct Story {
    silent: bool,
}

impl Story {
    pub(super) fn new(silent: bool) -> Self {
        Self { silent }
    }

    /// One paragraph, indented.
    pub(super) fn say(&self, text: &str) {
        if !self.silent {
            for line in text.lines() {
                println!("  {line}");
            }
        }
    }

    /// What to do next; where JSON was asked for it goes to standard error.
    pub(super) fn instruct(&self, text: &str) {
        if self.silent {
            eprintln!("{text}");
        } else {
            println!();
            self.say(text);
        }
    }

    /// A command as a person would type it, and what it printed.
    pub(super) fn command(&self, line: &str, printed: &str) {
        self.say(&paint(Colour::Bold, format!("$ {line}")));
        for line in printed.trim_end().lines() {
            self.say(&format!("  {line}"));
        }
        self.say("");
    }

    pub(super) fn scene(&self, number: usize, scene: &Scene) {
        if !self.silent {
            let title = format!("Scene {number}: {}", scene.title);
            println!("\n{}", paint(Colour::Bold, &title));
            println!(
                "{}",
                paint(Colour::Faint, "─".repeat(title.chars().count()))
            );
            self.say(scene.opening);
            println!();
        }
    }

    pub(super) fn phase(&self, phase: &Phase) {
        let Phase {
            title,
            mode,
            counted,
            hot_factor,
            fairness,
            failed,
            p99_microseconds,
            passed: _,
        } = phase;
        self.say(&format!("{}  {title}", paint(Colour::Cyan, mode)));
        for (index, (share, count)) in counted
            .client
            .shares()
            .iter()
            .zip(&counted.client.per_backend)
            .enumerate()
        {
            self.bar(&backend_name(index + 1), *share, *count, counted);
        }
        let p99 = *p99_microseconds as f64 / 1000.0;
        self.say(&format!(
            "    hot factor {}   fairness {fairness:.2}   p99 {p99:.1} ms   failed {}",
            heat(*hot_factor, format!("{hot_factor:.2}")),
            if *failed == 0 {
                paint(Colour::Green, "0")
            } else {
                paint(Colour::Red, failed)
            }
        ));
        self.counts(counted);
        self.say("");
    }

    fn bar(&self, name: &str, share: f64, count: u64, counted: &Comparison) {
        // A backend with twice its share or more is hot.
        let relative = share * counted.client.per_backend.len() as f64;
        self.say(&format!(
            "    {name}  {}  {:>5.1} %  {:>9}",
            heat(relative, bar(share, BAR)),
            share * 100.0,
            thousands(count)
        ));
    }

    /// One line of many, under [`Story::short_runs`]: what each backend got, and the three counts.
    pub(super) fn short_run(&self, name: &str, counted: &Comparison) {
        let Comparison {
            unit: _,
            kernel,
            backends,
            client,
        } = counted;
        let shares = client.shares();
        let bars: Vec<String> = shares.iter().map(|share| bar(*share, SHORT_BAR)).collect();
        let percent: Vec<String> = shares
            .iter()
            .map(|share| format!("{:.0}", share * 100.0))
            .collect();
        let sign = sign(counted);
        self.say(&format!(
            "    {name}  {}  {:>7} %  {} {sign} {} {sign} {}",
            bars.join("│"),
            percent.join("/"),
            thousands(kernel.total),
            thousands(backends.total),
            thousands(client.total)
        ));
    }

    /// What the lines of many short runs show.
    pub(super) fn short_runs(&self, mode: &str, title: &str, more: &str, unit: &str) {
        self.say(&format!("{}  {title}", paint(Colour::Cyan, mode)));
        self.say(&format!("    {more}"));
        self.say(&format!(
            "    {unit}: kernel counted = backends served = client got back"
        ));
    }

    fn counts(&self, counted: &Comparison) {
        let Comparison {
            unit,
            kernel,
            backends,
            client,
        } = counted;
        let sign = sign(counted);
        self.say(&format!(
            "    {unit}: kernel counted {} {sign} backends served {} {sign} client got back {}",
            thousands(kernel.total),
            thousands(backends.total),
            thousands(client.total)
        ));
    }

    pub(super) fn objections(&self, objections: &[String]) {
        for objection in objections {
            self.say(&paint(Colour::Red, format!("✗ {objection}")));
        }
    }

    pub(super) fn verdict(&self, scenes: &[SceneReport], took: &str) {
        if self.silent {
            return;
        }
        println!();
        for scene in scenes {
            let (mark, colour) = if scene.objections.is_empty() {
                ("✓", Colour::Green)
            } else {
                ("✗", Colour::Red)
            };
            println!(
                "{} scene {}  {:<58} {:>5.1} s",
                paint(colour, mark),
                scene.number,
                scene.title,
                scene.seconds
            );
        }
        println!("in {took}, every request counted three times");
    }
}

/// What stands between counts that agree, or do not, in total and for every backend.
fn sign(counted: &Comparison) -> String {
    if counted.agrees() {
        paint(Colour::Green, "=")
    } else {
        paint(Colour::Red, "≠")
    }
}

/// `text` in a colour that says how far from balanced `factor` is.
pub(super) fn heat(factor: f64, text: String) -> String {
    let colour = if factor >= 1.75 {
        Colour::Red
    } else if factor >= 1.25 {
        Colour::Yellow
    } else {
        Colour::Green
    };
    paint(colour, text)
}
