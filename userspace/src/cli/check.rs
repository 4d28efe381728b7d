//! `evenkeel check`: can this host do it, and is the configuration right? Changes nothing.

use std::path::{Path, PathBuf};

use anyhow::bail;
use serde::Serialize;

use super::Global;
use super::output::{Paint, Side, Table, print, print_json};
use super::units::counted;
use crate::config::{self, Config, ConfigError};
use crate::daemon;
use crate::datapath::preflight::{Finding, Status};

/// Arguments of `evenkeel check`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Check this configuration file, too.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    /// Services in the file, if one was given that can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    services: Option<usize>,
    /// What is wrong in the file, if one was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    mistakes: Option<Vec<ConfigError>>,
    findings: Vec<Finding>,
}

/// Mistakes in the file keep nobody from learning what is wrong with the host.
pub(super) fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let (config, mistakes) = args.config.as_deref().map(load).unzip();
    let config = config.flatten();
    let report = Report {
        services: config.as_ref().map(|config| config.services.len()),
        mistakes,
        findings: daemon::preflight(config.as_ref()),
    };
    let mistakes = report.mistakes.as_deref().unwrap_or_default();
    if global.json {
        print_json(&report)?;
    } else {
        for mistake in mistakes {
            eprintln!("{mistake}");
        }
        let paint = Paint {
            on: global.coloured(),
        };
        print(&render(&report, paint))?;
    }
    let failed = report.findings.iter();
    let failed = failed.filter(|finding| finding.status == Status::Fail);
    let failed = match failed.count() as u64 {
        0 => None,
        failed => Some(format!(
            "this host cannot run evenkeel yet: {} failed",
            counted(failed, "check")
        )),
    };
    let wrong = (args.config.as_deref().zip(mistakes.first())).map(|(path, _)| {
        let mistakes = counted(mistakes.len() as u64, "mistake");
        format!("{} has {mistakes}", path.display())
    });
    let all: Vec<String> = wrong.into_iter().chain(failed).collect();
    if all.is_empty() {
        Ok(())
    } else {
        bail!("{}", all.join("; "))
    }
}

/// The configuration, if it can be read, and its mistakes.
fn load(path: &Path) -> (Option<Config>, Vec<ConfigError>) {
    match Config::load(path) {
        Ok(config) => {
            let mistakes = config::host::check(&config).err();
            let mistakes = mistakes.map_or_else(Vec::new, |errors| errors.errors().to_vec());
            (Some(config), mistakes)
        }
        Err(errors) => (None, errors.errors().to_vec()),
    }
}

fn render(report: &Report, paint: Paint) -> String {
    let mut table = Table::new(&[
        ("CHECK", Side::Left),
        ("RESULT", Side::Left),
        ("FOUND", Side::Left),
    ]);
    let mut remedies = String::new();
    for finding in &report.findings {
        let result = match finding.status {
            Status::Ok => paint.good("ok"),
            Status::Warn => paint.warn("warning"),
            Status::Fail => paint.bad("failed"),
        };
        table.row(vec![finding.name.clone(), result, finding.found.clone()]);
        if !finding.remedy.is_empty() && finding.status != Status::Ok {
            remedies.push_str(&format!(
                "{}: {}\n",
                paint.bold(&finding.name),
                finding.remedy
            ));
        }
    }
    let mut text = table.render("", paint);
    if let (Some(services), Some([])) = (report.services, report.mistakes.as_deref()) {
        text.push_str(&format!(
            "configuration: {}, no mistakes\n",
            counted(services as u64, "service")
        ));
    }
    if !remedies.is_empty() {
        text.push_str(&format!("\nWhat to do:\n{remedies}"));
    }
    text
}
