//! Runs scenarios one after the other. One that fails is named in the report and at the end, and the others still run.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, bail, ensure};

use super::{
    Context, Outcome, SCENARIOS, Scenario,
    facts::{self, Facts, Host},
    report,
    store::{self, Record, Results},
    terminal,
};
use crate::{
    build,
    lab::{self, Leftovers},
    setup::{self, Route},
    term::{self, Colour, paint, spell},
    workspace,
};

/// What a scenario of which no run is known is expected to take, quick and full; only the time left is told by it. All nine took
/// 3 min 48 s and 55 min 1 s on the machine of docs/figures.md.
const GUESS: (Duration, Duration) = (Duration::from_secs(25), Duration::from_secs(370));

/// Runs the scenarios called `names`, or all, and writes the report.
pub fn run(names: &[String], context: &Context) -> Result<()> {
    let scenarios = chosen(names)?;
    prepare(&scenarios)?;
    let begun = Instant::now();
    let facts = Facts::gather(context.quick)?;
    facts.save()?;
    let host = facts.host();
    println!(
        "seed {}, commit {}, {}",
        context.seed, facts.commit, facts.date
    );
    for note in &facts.notes {
        println!("{}", paint(Colour::Yellow, format!("note: {note}")));
    }
    let mut failed = Vec::new();
    for index in 0..scenarios.len() {
        let scenario = announce(&scenarios, index, context);
        let record = measure(scenario, context, &host);
        term::expect_end(None, Duration::ZERO);
        record.save()?;
        // Each time, so that who interrupts a run has a report of what came before.
        report::write(&Results::load(super::names())?)?;
        match &record.failure {
            None => terminal::print(&record.outcome),
            Some(why) => {
                println!("  {}  {why}", paint(Colour::Red, "failed"));
                failed.push(scenario.name);
            }
        }
    }
    println!(
        "\n{} in {}; the report: {}",
        count(scenarios.len()),
        spell(begun.elapsed()),
        store::home()?.join("report.html").display()
    );
    // Figures are figures, however they are drawn, and whether a browser runs here or not: no reason to fail.
    let complaints = report::complaints(&Results::load(super::names())?);
    for complaint in complaints.unwrap_or_else(|error| vec![format!("{error:#}")]) {
        println!("{}", paint(Colour::Yellow, format!("report: {complaint}")));
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// Everything that scenarios take for granted.
fn prepare(scenarios: &[&Scenario]) -> Result<()> {
    ensure!(
        workspace::is_root(),
        "the benchmarks load BPF programs and make network namespaces: run them as root"
    );
    setup::lab_tools()?;
    setup::test_tools()?;
    // Whoever names a binary wants that one measured.
    if std::env::var_os("EVENKEEL_BIN").is_none() {
        build::run(Route::Any)?;
    }
    if scenarios.iter().any(|scenario| scenario.bench_peer) {
        build::bench_peer()?;
    }
    lab::clean(Leftovers::Abandoned, &[])?;
    Ok(())
}

/// Says which scenario comes now, and how much is left to do.
fn announce(scenarios: &[&'static Scenario], index: usize, context: &Context) -> &'static Scenario {
    let scenario = scenarios[index];
    let later = scenarios[index + 1..]
        .iter()
        .map(|next| expected(next, context))
        .sum();
    let left = expected(scenario, context) + later;
    println!(
        "\n{}  {}  {}",
        paint(Colour::Bold, scenario.name),
        scenario.about,
        paint(
            Colour::Faint,
            format!(
                "({} of {}, about {} left)",
                index + 1,
                scenarios.len(),
                spell(left)
            )
        )
    );
    term::expect_end(Some(Instant::now() + left), later);
    scenario
}

fn count(scenarios: usize) -> String {
    format!(
        "{scenarios} scenario{}",
        if scenarios == 1 { "" } else { "s" }
    )
}

fn chosen(names: &[String]) -> Result<Vec<&'static Scenario>> {
    let known: Vec<&str> = super::names().collect();
    if let Some(unknown) = names.iter().find(|name| !known.contains(&name.as_str())) {
        bail!(
            "there is no scenario {unknown}; there are: {}",
            known.join(", ")
        );
    }
    let wanted =
        |scenario: &&Scenario| names.is_empty() || names.iter().any(|name| name == scenario.name);
    Ok(SCENARIOS.iter().filter(wanted).collect())
}

/// As long as the last run of the same kind.
fn expected(scenario: &Scenario, context: &Context) -> Duration {
    let last = Record::load(scenario.name).ok().flatten();
    let last =
        last.filter(|record| record.outcome.quick == context.quick && record.failure.is_none());
    last.and_then(|record| Duration::try_from_secs_f64(record.outcome.seconds).ok())
        .unwrap_or(context.choose(GUESS.1, GUESS.0))
}

/// Runs one scenario; a panic is a failure like others.
fn measure(scenario: &Scenario, context: &Context, host: &Host) -> Record {
    let date = facts::now();
    let begun = Instant::now();
    let found = catch_unwind(AssertUnwindSafe(|| (scenario.run)(context)))
        .unwrap_or_else(|panic| Err(anyhow!("it panicked: {}", words(&*panic))))
        .and_then(|outcome| store::check(&outcome).map(|()| outcome));
    let (mut outcome, failure) = match found {
        Ok(outcome) => (outcome, None),
        Err(error) => (Outcome::default(), Some(format!("{error:#}"))),
    };
    scenario.name.clone_into(&mut outcome.name);
    scenario.about.clone_into(&mut outcome.about);
    outcome.seed = context.seed;
    outcome.quick = context.quick;
    outcome.seconds = begun.elapsed().as_secs_f64();
    let quick = if context.quick { " --quick" } else { "" };
    let again = format!(
        "cargo xtask bench {}{quick} --seed {}",
        scenario.name, context.seed
    );
    outcome.commands.retain(|command| *command != again);
    outcome.commands.insert(0, again);
    Record {
        outcome,
        date,
        commit: facts::commit(),
        host: host.clone(),
        failure,
    }
}

/// What a panic said.
fn words(panic: &(dyn std::any::Any + Send)) -> String {
    let literal = panic.downcast_ref::<&str>().map(ToString::to_string);
    let formatted = || panic.downcast_ref::<String>().cloned();
    literal
        .or_else(formatted)
        .unwrap_or_else(|| "without a word".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scenario(run: fn(&Context) -> Result<Outcome>) -> Scenario {
        Scenario {
            name: "test",
            about: "a test",
            run,
            bench_peer: false,
        }
    }

    const CONTEXT: Context = Context {
        quick: true,
        seed: 7,
        katran: None,
    };

    #[test]
    fn a_scenario_that_fails_or_panics_is_recorded_with_its_reason() {
        let failed = measure(&scenario(|_| bail!("no nginx")), &CONTEXT, &Host::default());
        assert_eq!(failed.failure.as_deref(), Some("no nginx"));
        let panicked = measure(
            &scenario(|_| panic!("index {}", 3)),
            &CONTEXT,
            &Host::default(),
        );
        assert_eq!(panicked.failure.as_deref(), Some("it panicked: index 3"));
        assert!(panicked.outcome.tables.is_empty());
    }

    #[test]
    fn a_record_says_how_to_have_it_again_and_where_it_was_taken() {
        let host = Host {
            notes: vec!["busy".to_owned()],
            ..Host::default()
        };
        let record = measure(&scenario(|_| Ok(Outcome::default())), &CONTEXT, &host);
        assert_eq!(record.host, host);
        assert_eq!(
            record.outcome.commands,
            ["cargo xtask bench test --quick --seed 7"]
        );
        assert_eq!(record.outcome.seed, 7);
        assert!(record.outcome.quick);
    }

    #[test]
    fn an_unknown_scenario_is_refused_with_those_there_are() {
        let error = chosen(&["pining".to_owned()])
            .map(|_| ())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("pining") && error.contains("datapath"),
            "{error}"
        );
    }
}
