//! `evenkeel explain CLIENT:PORT SERVICE`.

use std::net::SocketAddr;

use super::Global;
use super::output::{Paint, print, print_json};
use crate::api::client::encode;
use crate::api::types::Explanation;

/// Arguments of `evenkeel explain`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The client, as IP:PORT.
    client: SocketAddr,
    /// Name or address of the service.
    service: String,
}

pub(super) fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let path = format!(
        "/v1/explain?client={}&service={}",
        args.client,
        encode(&args.service)
    );
    let explanation: Explanation = global.client()?.get(&path)?;
    if global.json {
        return print_json(&explanation);
    }
    let paint = Paint {
        on: global.coloured(),
    };
    let verb = if explanation.existing {
        "goes"
    } else {
        "would go"
    };
    let mut text = format!(
        "{} -> {} ({}) {verb} to {}\n",
        explanation.client,
        explanation.service,
        explanation.address,
        paint.bold(&explanation.destination),
    );
    for (number, reason) in explanation.why.iter().enumerate() {
        text.push_str(&format!("  {}. {reason}\n", number + 1));
    }
    print(&text)
}
