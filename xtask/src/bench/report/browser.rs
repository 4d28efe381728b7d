//! A real browser, headless and without a network, that opens a page and says what it saw: in tests a page made for
//! them, and after every run the report of that run.
//!
//! Driven by command-line flags alone: the probe writes what it found into its own page, `--dump-dom` prints that, and
//! errors of the console go to standard error. A client of the DevTools protocol would be a WebSocket and an async
//! runtime more, for nothing that is needed here.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;

use super::Results;
use crate::{bench::store, workspace};

/// What the probe writes down; see probe.html.
#[derive(Debug, Deserialize)]
pub struct Found {
    /// All that is wrong, and what the console said.
    pub complaints: Vec<String>,
    /// Plots looked at, in both frames.
    pub plots: usize,
    /// Pieces of text looked at, in both frames.
    pub texts: usize,
    /// The page was shown dark.
    pub dark: bool,
}

/// Looks at the page of `results` in light and in dark; gives what is wrong with it.
pub fn inspect(results: &Results) -> Result<Vec<String>> {
    let page = super::page(results);
    // In a wide frame and in one of a phone.
    let plots = results.records.iter();
    let plots = 2 * plots.map(|it| it.outcome.plots.len()).sum::<usize>();
    let mut complaints = Vec::new();
    for (dark, shade) in [(false, "light"), (true, "dark")] {
        let found = look(&store::home()?.join(format!("seen-{shade}")), &page, dark)?;
        let said = found.complaints.into_iter();
        complaints.extend(said.map(|complaint| format!("in {shade}, {complaint}")));
        if found.plots != plots {
            let drawn = found.plots;
            complaints.push(format!("in {shade}, {drawn} of {plots} plots are there"));
        }
    }
    Ok(complaints)
}

/// Opens `page`, in a dark or a light browser, and looks at it. `directory` is made for that, and left behind only if
/// something is wrong.
pub fn look(directory: &Path, page: &str, dark: bool) -> Result<Found> {
    if directory.exists() {
        fs::remove_dir_all(directory)?;
    }
    fs::create_dir_all(directory)?;
    fs::write(directory.join("report.html"), page)?;
    fs::write(directory.join("probe.html"), include_str!("probe.html"))?;
    let output = chromium()?
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
        ])
        .args([
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
        ])
        // Whoever asks for a name gets no answer: the page must not need one.
        .arg("--host-resolver-rules=MAP * ~NOTFOUND")
        // The probe and the page are files; without this they could not see each other.
        .arg("--allow-file-access-from-files")
        .arg(format!(
            "--blink-settings=preferredColorScheme={}",
            u8::from(!dark)
        ))
        .arg(format!(
            "--user-data-dir={}",
            directory.join("profile").display()
        ))
        .args(["--window-size=1600,2400", "--virtual-time-budget=10000"])
        .args(["--enable-logging=stderr", "--dump-dom"])
        .arg(format!("file://{}", directory.join("probe.html").display()))
        .output()
        .context("cannot run chromium")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "chromium: {}\n{errors}",
        output.status
    );
    let printed = String::from_utf8_lossy(&output.stdout);
    let json = printed
        .split_once("<pre id=\"found\">")
        .and_then(|(_, rest)| rest.split_once("</pre>"));
    let (json, _) =
        json.with_context(|| format!("the probe wrote nothing down:\n{printed}\n{errors}"))?;
    let mut found: Found = serde_json::from_str(json)
        .with_context(|| format!("the probe wrote {json:?}\n{errors}"))?;
    let console = errors.lines().filter(|line| line.contains(":CONSOLE"));
    found
        .complaints
        .extend(console.map(|line| format!("console: {line}")));
    // What looks wrong is left to be looked at.
    if found.complaints.is_empty() {
        fs::remove_dir_all(directory)?;
    }
    Ok(found)
}

/// The browser, if there is one.
#[must_use]
pub fn find() -> Option<PathBuf> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    names.iter().find_map(|name| workspace::which(name))
}

fn chromium() -> Result<Command> {
    let path = find().context("no chromium here: run cargo xtask setup --tests")?;
    Ok(Command::new(path))
}
