//! `evenkeel reload`: as SIGHUP, with an answer.

use hyper::Method;

use super::Global;
use super::backends::change;

/// Arguments of `evenkeel reload`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {}

pub(super) fn run(_args: &Args, global: &Global) -> anyhow::Result<()> {
    change(global, Method::POST, "/v1/reload", &())
}
