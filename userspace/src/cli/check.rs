//! `evenkeel check`: can this host do it, and is the configuration right? Changes nothing.

use std::path::{Path, PathBuf};

use anyhow::bail;
use serde::Serialize;

use super::Global;
use super::output::{Paint, Side, Table, print, print_json};
use super::units::counted;
use crate::config::{self, Config};
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
    /// Services in the file, if one was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    services: Option<usize>,
    findings: Vec<Finding>,
}

pub(super) fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let config = args.config.as_deref().map(load).transpose()?;
    let report = Report {
        services: config.as_ref().map(|config| config.services.len()),
        findings: daemon::preflight(config.as_ref()),
    };
    let failed = report
        .findings
        .iter()
        .filter(|f| f.status == Status::Fail)
        .count();
    if global.json {
        print_json(&report)?;
    } else {
        print(&render(
            &report,
            Paint {
                on: global.coloured(),
            },
        ))?;
    }
    if failed > 0 {
        bail!(
            "this host cannot run evenkeel yet: {} failed",
            counted(failed as u64, "check")
        );
    }
    Ok(())
}

fn load(path: &Path) -> anyhow::Result<Config> {
    let checked = Config::load(path).and_then(|config| {
        config::host::check(&config)?;
        Ok(config)
    });
    checked.or_else(|errors| {
        eprintln!("{errors}");
        let mistakes = counted(errors.errors().len() as u64, "mistake");
        bail!("{} has {mistakes}", path.display())
    })
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
    if let Some(services) = report.services {
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
