//! A real browser, headless and without a network, that opens a page and says what it saw.
//!
//! Driven by command-line flags alone: the probe writes what it found into its own page, `--dump-dom` prints that, and
//! errors of the console go to standard error. A client of the DevTools protocol would be a WebSocket and an async
//! runtime more, for nothing that this test needs.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use xtask::workspace;

/// What the probe writes down; see probe.html.
#[derive(Debug, Deserialize)]
pub(crate) struct Found {
    /// All that is wrong, and what the console said.
    pub(crate) complaints: Vec<String>,
    /// Plots looked at, in both frames.
    pub(crate) plots: usize,
    /// Pieces of text looked at, in both frames.
    pub(crate) texts: usize,
    /// The page was shown dark.
    pub(crate) dark: bool,
}

/// Opens `page`, in a dark or a light browser, and looks at it. `name` is unique among tests that run at once.
pub(crate) fn look(name: &str, page: &str, dark: bool) -> Result<Found> {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("report-{name}-{dark}"));
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    fs::create_dir_all(&directory)?;
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
        fs::remove_dir_all(&directory)?;
    }
    Ok(found)
}

fn chromium() -> Result<Command> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found: Option<PathBuf> = names.iter().find_map(|name| workspace::which(name));
    let path = found.context("no chromium here: run cargo xtask setup --tests")?;
    Ok(Command::new(path))
}
