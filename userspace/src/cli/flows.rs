//! `evenkeel flows`.

use std::time::Duration;

use super::output::{Paint, Side, Table, print, print_json, print_json_line};
use super::units::{bytes, count, seconds};
use super::{Global, new_page};
use crate::api::client::{Client, encode};
use crate::api::types::{FLOW_STATES, Flows};

/// How often `--watch` looks again.
const REFRESH: Duration = Duration::from_secs(1);

/// Arguments of `evenkeel flows`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How many to show: those with most streams, then bytes.
    #[arg(long, default_value_t = 20, value_name = "N")]
    top: usize,
    /// Only flows to this service.
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
    /// Only flows whose client's IP:PORT contains this.
    #[arg(long, value_name = "TEXT")]
    client: Option<String>,
    /// Only flows whose backend's IP:PORT contains this; `local`: those that the proxy serves.
    #[arg(long, value_name = "TEXT")]
    backend: Option<String>,
    /// Only flows in this state; open: those that are not over.
    #[arg(long, value_parser = FLOW_STATES)]
    state: Option<String>,
    /// Look again every second until interrupted.
    #[arg(long)]
    watch: bool,
}

pub(super) fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let client = global.client()?;
    let paint = Paint {
        on: global.coloured(),
    };
    if !args.watch {
        let flows = fetch(args, &client)?;
        return if global.json {
            print_json(&flows)
        } else {
            print(&render(&flows, paint))
        };
    }
    loop {
        let flows = fetch(args, &client)?;
        if global.json {
            print_json_line(&flows)?;
        } else {
            print(&format!("{}{}", new_page(), render(&flows, paint)))?;
        }
        std::thread::sleep(REFRESH);
    }
}

fn fetch(args: &Args, client: &Client) -> anyhow::Result<Flows> {
    let mut path = format!("/v1/flows?top={}", args.top);
    for (key, wanted) in [
        ("service", &args.service),
        ("client", &args.client),
        ("backend", &args.backend),
        ("state", &args.state),
    ] {
        if let Some(wanted) = wanted {
            path.push_str(&format!("&{key}={}", encode(wanted)));
        }
    }
    Ok(client.get(&path)?)
}

fn render(flows: &Flows, paint: Paint) -> String {
    let mut table = Table::new(&[
        ("CLIENT", Side::Left),
        ("SERVICE", Side::Left),
        ("BACKEND", Side::Left),
        ("STATE", Side::Left),
        ("CARRIES", Side::Left),
        ("STREAMS", Side::Right),
        ("SENT", Side::Right),
        ("RECEIVED", Side::Right),
        ("AGE", Side::Right),
        ("IDLE", Side::Right),
    ]);
    for flow in &flows.flows {
        table.row(vec![
            flow.client.to_string(),
            flow.service.clone(),
            flow.backend.clone(),
            flow.state.clone(),
            flow.protocol.clone(),
            count(flow.streams),
            bytes(flow.bytes),
            bytes(flow.reply_bytes),
            seconds(flow.age_seconds),
            seconds(flow.idle_seconds),
        ]);
    }
    let mut text = table.render("", paint);
    let (shown, total) = (flows.flows.len() as u64, flows.total as u64);
    text.push_str(&paint.dim(&format!("{} of {} flows", count(shown), count(total))));
    text
}
