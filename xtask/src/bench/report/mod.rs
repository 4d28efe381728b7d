//! The report, made from the stored results alone: `target/bench/report.html`, one page that needs no network;
//! `report.md`; `csv/SCENARIO-ID.csv` for each table and each plot; and the figures in README.md and docs/figures.md.
//!
//! Names, notes and reasons come from scenarios, peers and failures: all of it is escaped for where it goes.

pub mod browser;
mod csv;
mod html;
mod markdown;
mod plot;
mod readme;
mod scale;

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};

use super::store::{self, Results};
use crate::term::Progress;

pub use readme::write as readme;

/// What every figure is.
const LEGEND: &str = "Figures are medians with the interval that holds the true median at least 95 times in 100; of fewer \
    than six runs that is not to be had, and the interval is all that was seen. Rivals were measured in turns. Absolute \
    figures move from machine to machine; compare what stands in one table.";

/// Writes everything below target/bench; returns the page.
pub fn write(results: &Results) -> Result<PathBuf> {
    let home = store::home()?;
    fs::create_dir_all(&home)?;
    let page = home.join("report.html");
    let put = |path: &PathBuf, text: String| {
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    put(&page, html::page(results))?;
    put(&home.join("report.md"), markdown::report(results))?;
    let directory = home.join("csv");
    // Tables that no scenario makes any more would otherwise stay for ever.
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    fs::create_dir_all(&directory)?;
    for (name, text) in csv::files(results)? {
        put(&directory.join(name), text)?;
    }
    Ok(page)
}

/// The page alone, for whoever has results that are not stored.
#[must_use]
pub fn page(results: &Results) -> String {
    html::page(results)
}

/// What a real browser finds wrong with the page; where there is no browser that is said, and nothing found.
pub fn complaints(results: &Results) -> Result<Vec<String>> {
    if browser::find().is_none() {
        eprintln!("no browser here looked at the report: cargo xtask setup --tests brings one");
        return Ok(Vec::new());
    }
    let progress = Progress::start("looking at the report in a browser");
    let complaints = browser::inspect(results)?;
    progress.clear();
    Ok(complaints)
}

/// How many claims were checked, and how many of them held.
fn verdict(results: &Results) -> (usize, usize) {
    let claims = || {
        results
            .records
            .iter()
            .flat_map(|record| &record.outcome.claims)
    };
    (
        claims().count(),
        claims().filter(|claim| claim.holds).count(),
    )
}
