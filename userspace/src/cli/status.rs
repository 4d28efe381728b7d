//! `evenkeel status`.

use super::Global;
use super::output::{Paint, Side, Table, print, print_json};
use super::units::{count, counted, seconds};
use crate::api::types::Status;
use crate::l7::ProxyStats;

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
    text.push_str(&attached(status, paint));
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
    if status.checks_waited > 0 {
        text.push_str(&format!(
            "\n{} of backends waited for others to end (checks_waited)\n",
            counted(status.checks_waited, "check")
        ));
    }
    if let Some(proxy) = &status.proxy {
        text.push('\n');
        text.push_str(&render_proxy(proxy, paint));
    }
    for warning in &status.warnings {
        text.push_str(&format!("\n{} {warning}\n", paint.warn("warning:")));
    }
    text
}

/// Which hook in which mode is where.
fn attached(status: &Status, paint: Paint) -> String {
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
    attached.render("", paint)
}

/// What the proxy counts that is worth knowing of: refusals, failures and limits that were reached, in the words of
/// `--json`. Its traffic is in `evenkeel backends`.
fn render_proxy(proxy: &ProxyStats, paint: Paint) -> String {
    let mut text = format!(
        "proxy: {}, {}\n",
        counted(proxy.workers as u64, "worker"),
        counted(proxy.connections, "connection"),
    );
    let mut events = Table::new(&[
        ("PROXY EVENT", Side::Left),
        ("SERVICE", Side::Left),
        ("BACKEND", Side::Left),
        ("COUNT", Side::Right),
    ]);
    let mut any = false;
    for event in events_of(proxy)
        .into_iter()
        .filter(|event| event.number > 0)
    {
        any = true;
        let name = if event.lost {
            paint.bad(event.name)
        } else {
            event.name.to_owned()
        };
        events.row(vec![
            name,
            event.service.to_owned(),
            event.backend,
            count(event.number),
        ]);
    }
    if any {
        text.push_str(&events.render("", paint));
    }
    text
}

struct ProxyEvent<'a> {
    name: &'static str,
    /// Somebody did not get what they asked for.
    lost: bool,
    service: &'a str,
    backend: String,
    number: u64,
}

fn events_of(proxy: &ProxyStats) -> Vec<ProxyEvent<'_>> {
    let mut events = Vec::new();
    let mut add = |name, lost, service, backend: String, number| {
        events.push(ProxyEvent {
            name,
            lost,
            service,
            backend,
            number,
        });
    };
    let refused = proxy.connections_refused;
    add("connections_refused", true, "", String::new(), refused);
    for service in &proxy.services {
        for (name, lost, number) in [
            ("no_backend", true, service.no_backend),
            ("streams_placed_again", false, service.streams_placed_again),
            ("floods", true, service.floods),
            ("stalled", true, service.stalled),
        ] {
            add(name, lost, &service.name, String::new(), number);
        }
        for backend in &service.backends {
            for (name, lost, number) in [
                ("connect_failures", true, backend.connect_failures),
                ("streams_failed", true, backend.streams_failed),
                ("streams_timed_out", true, backend.streams_timed_out),
                ("streams_reset", false, backend.streams_reset),
                ("streams_retried", false, backend.streams_retried),
                ("upstream_full", false, backend.upstream_full),
                ("http1_not_kept", false, backend.http1_not_kept),
            ] {
                let address = backend.address.to_string();
                add(name, lost, &service.name, address, number);
            }
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_that_waited_are_told_of_and_none_are_not() {
        let text = |checks_waited| {
            let status = serde_json::json!({
                "version": "1", "pid": 1, "uptime_seconds": 1, "adopted": false, "config": "a.toml", "attachments": [], "flows": 0,
                "max_flows": 1, "services": 1, "backends": 200, "events": {}, "checks_waited": checks_waited, "warnings": [],
            });
            let status = serde_json::from_value(status).expect("a status");
            render(&status, Paint { on: false })
        };
        let told = text(72);
        let line = "\n72 checks of backends waited for others to end (checks_waited)\n";
        assert!(told.contains(line), "{told}");
        let quiet = text(0);
        assert!(!quiet.contains("check"), "{quiet}");
    }
}
