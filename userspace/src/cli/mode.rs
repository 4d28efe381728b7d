//! `evenkeel mode SERVICE l4|l7|auto`.

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
    /// proxy are asked to connect again (GOAWAY), no stream is lost.
    #[arg(long)]
    move_existing: bool,
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
    };
    let path = format!("/v1/services/{}/mode", encode(&args.service));
    change(global, Method::PUT, &path, &request)
}
