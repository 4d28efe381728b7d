//! The figures in README.md and docs/figures.md, between two HTML comments each, from the stored results: what stands
//! there was measured, and by which run stands beside it.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};

use super::markdown;
use crate::{bench::store::Results, workspace};

const BEGIN: &str = "<!-- figures: written by cargo xtask bench readme -->";
const END: &str = "<!-- figures: end -->";

/// Writes both.
pub fn write(results: &Results) -> Result<()> {
    ensure!(
        !results.records.is_empty(),
        "nothing has been measured here yet: run cargo xtask bench first"
    );
    let root = workspace::root();
    replace(&root.join("README.md"), &claims(results))?;
    replace(&root.join("docs/figures.md"), &tables(results))
}

/// What should hold and whether it did, scenario by scenario.
fn claims(results: &Results) -> String {
    let mut text = markdown::summary(results);
    for record in &results.records {
        let outcome = &record.outcome;
        let verdict = match &record.failure {
            Some(_) => "this run failed; see docs/figures.md\n\n".to_owned(),
            None => markdown::claims(&outcome.claims),
        };
        if !verdict.is_empty() {
            text += &format!(
                "**`cargo xtask bench {}`** ({})\n\n{}{verdict}",
                outcome.name,
                markdown::run(outcome, &record.date, &record.commit),
                markdown::caveats(record)
            );
        }
    }
    text
}

fn tables(results: &Results) -> String {
    let scenarios = results
        .records
        .iter()
        .map(|record| markdown::scenario(record, 2));
    markdown::summary(results) + &scenarios.collect::<String>() + &markdown::host(&results.facts, 2)
}

fn replace(path: &Path, figures: &str) -> Result<()> {
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = between(&text, figures).with_context(|| {
        format!(
            "{} has no place for figures: put {BEGIN} and {END} on lines of their own",
            path.display()
        )
    })?;
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// `text` with `figures` between the markers; `None` without markers.
fn between(text: &str, figures: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!(
        "{before}{BEGIN}\n\n{}\n\n{END}{after}",
        figures.trim()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_between_the_markers_changes_and_twice_is_once() {
        let text = format!("# a\n\n{BEGIN}\nold\n{END}\n\nb\n");
        let once = between(&text, "new\n").expect("markers");
        assert_eq!(once, format!("# a\n\n{BEGIN}\n\nnew\n\n{END}\n\nb\n"));
        assert_eq!(between(&once, "new\n").as_ref(), Some(&once));
        assert_eq!(between("no markers", "new"), None);
    }
}
