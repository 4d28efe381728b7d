//! `evenkeel services`.

use super::Global;
use super::output::{Paint, Side, Table, print, print_json};
use super::units::{bytes, count};
use crate::api::types::Services;
use crate::config::Mode;

/// Arguments of `evenkeel services`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args, global: &Global) -> anyhow::Result<()> {
    let services: Services = global.client()?.get("/v1/services")?;
    if global.json {
        return print_json(&services);
    }
    let mut table = Table::new(&[
        ("SERVICE", Side::Left),
        ("ADDRESS", Side::Left),
        ("MODE", Side::Left),
        ("POLICY", Side::Left),
        ("FORWARDING", Side::Left),
        ("HASH", Side::Left),
        ("BACKENDS", Side::Right),
        ("FLOWS OPEN", Side::Right),
        ("FLOWS", Side::Right),
        ("STREAMS", Side::Right),
        ("FROM CLIENTS", Side::Right),
        ("TO CLIENTS", Side::Right),
    ]);
    for service in services.services {
        let mode = match (service.configured_mode, service.moves_in_seconds) {
            (Mode::Auto, _) => format!("{} (auto)", service.mode),
            (fixed, Some(left)) => format!("{fixed} (flows move in {left:.0} s)"),
            (fixed, None) => fixed.to_string(),
        };
        table.row(vec![
            service.name,
            service.address.to_string(),
            mode,
            service.policy.to_string(),
            service.forwarding.to_string(),
            service.hash.to_string(),
            service.backends.to_string(),
            count(service.counters.open()),
            count(service.counters.flows_opened),
            count(service.counters.streams),
            bytes(service.counters.bytes),
            bytes(service.counters.reply_bytes),
        ]);
    }
    print(&table.render(
        "",
        Paint {
            on: global.coloured(),
        },
    ))
}
