//! `evenkeel status`.

use super::Global;
use super::output::{Paint, Side, Table, print, print_json};
use super::units::{count, counted, seconds};
use crate::api::types::Status;

/// Arguments of `evenkeel status`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args, global: &Global) -> anyhow::Result<()> {
    let status: Status = global.client()?.get("/v1/status")?;
    if global.json {
        return print_json(&status);
    }
    print(&render(
        &status,
        Paint {
            on: global.coloured(),
        },
    ))
}

fn render(status: &Status, paint: Paint) -> String {
    let mut text = format!(
        "{} {}, process {}, up {}{}\nconfiguration {}: {}, {}\nflows {} of {}\n\n",
        paint.bold("evenkeel"),
        status.version,
        status.pid,
        seconds(status.uptime_seconds as f64),
        if status.adopted {
            ", took over the flows of an earlier run"
        } else {
            ""
        },
        status.config,
        counted(status.services as u64, "service"),
        counted(status.backends as u64, "backend"),
        count(status.flows),
        count(status.max_flows),
    );
    let mut attached = Table::new(&[
        ("ATTACHED TO", Side::Left),
        ("HOOK", Side::Left),
        ("MODE", Side::Left),
        ("PROGRAM", Side::Left),
    ]);
    for attachment in &status.attachments {
        let mode = match attachment.mode.as_str() {
            "generic" => paint.warn("generic (slow: not in the driver)"),
            mode => mode.to_owned(),
        };
        attached.row(vec![
            attachment.interface.clone(),
            attachment.hook.clone(),
            mode,
            attachment.program.clone(),
        ]);
    }
    text.push_str(&attached.render("", paint));
    let mut events = Table::new(&[("EVENT", Side::Left), ("PACKETS", Side::Right)]);
    for (name, number) in status.events.iter().filter(|(_, number)| **number > 0) {
        let name = if name.starts_with("drop") {
            paint.bad(name)
        } else {
            name.clone()
        };
        events.row(vec![name, count(*number)]);
    }
    text.push('\n');
    if status.events.values().all(|number| *number == 0) {
        text.push_str("no drops\n");
    } else {
        text.push_str(&events.render("", paint));
    }
    for warning in &status.warnings {
        text.push_str(&format!("\n{} {warning}\n", paint.warn("warning:")));
    }
    text
}
