//! `evenkeel mode SERVICE l4|l7|auto`.

use std::time::Duration;

use clap::ValueEnum;
use hyper::Method;

use super::Global;
use super::backends::change;
use crate::api::client::encode;
use crate::api::types::ModeRequest;
use crate::config;

/// Arguments of `evenkeel mode`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Name or address of the service.
    service: String,
    /// What to balance.
    #[arg(value_enum)]
    mode: Mode,
    /// Move flows that exist, too; otherwise they stay where they are until they end. From l7 to l4: clients of the
    /// proxy are asked to connect again (GOAWAY), no stream is lost. From l4 to l7: flows that are still on backends at the
    /// deadline are reset with the next packet of their clients, and with them the requests in flight on them.
    #[arg(long)]
    move_existing: bool,
    /// How long flows may stay on their backends before they are reset, from l4 to l7 [default: 30s]; 0s: reset at once.
    #[arg(long, value_name = "DURATION", requires = "move_existing", value_parser = any_duration)]
    deadline: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// Balance flows, in the kernel.
    L4,
    /// Balance streams, through the proxy.
    L7,
    /// L7 while streams are pinned, l4 while connections carry about one stream each.
    Auto,
}

pub(super) fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let request = ModeRequest {
        mode: match args.mode {
            Mode::L4 => config::Mode::L4,
            Mode::L7 => config::Mode::L7,
            Mode::Auto => config::Mode::Auto,
        },
        move_existing: args.move_existing,
        deadline_ms: args.deadline.map(milliseconds),
    };
    let path = format!("/v1/services/{}/mode", encode(&args.service));
    change(global, Method::PUT, &path, &request)
}

/// As everywhere, but 0 is allowed.
fn any_duration(text: &str) -> Result<Duration, String> {
    config::parse_duration(text)
        .ok_or_else(|| "allowed: a duration such as 0s, 500ms, 5s, 1m".to_owned())
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
