//! `evenkeel echo`: a demo backend, until SIGTERM or SIGINT; its counts go to stdout at the end.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use anyhow::Context;
use http::HeaderValue;
use tokio::net::TcpListener;

use super::Global;
use super::local_runtime::{block_on, termination};
use crate::load::distribution::ServiceTime;
use crate::load::echo::{Options, serve};
use crate::open_files;

/// Arguments of `evenkeel echo`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// Address to serve on.
    #[arg(long, value_name = "IP:PORT")]
    listen: SocketAddr,
    /// Name of this backend, sent in the `evenkeel-backend` header of every response.
    #[arg(long, value_parser = HeaderValue::from_str)]
    name: HeaderValue,
    /// Wait before every answer, e.g. `5ms`, from the arrival of the request: however many requests there are, as a
    /// network does.
    #[arg(long, default_value = "0s", value_parser = humantime::parse_duration)]
    delay: Duration,
    /// Requests worked on at once; further ones wait in line, so that a hot backend gets slow.
    #[arg(long, value_name = "N")]
    capacity: Option<NonZeroUsize>,
    /// How long each request is worked on: a duration, or exponential:MEAN. Together with --capacity N this backend
    /// serves at most N / MEAN requests per second.
    #[arg(long, default_value = "0s", value_name = "TIME")]
    service_time: ServiceTime,
    /// Requests that may wait in line; further ones get status 503, or grpc-status 14.
    #[arg(
        long,
        default_value_t = 65_536,
        value_name = "N",
        requires = "capacity"
    )]
    queue: usize,
    /// Never sleep: takes a core, and answers at its time to some microseconds. (Without it to some tens, for which it is
    /// awake before, a tenth of the time at most.)
    #[arg(long)]
    spin: bool,
    /// Where random service times come from.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Concurrent streams allowed on one HTTP/2 connection.
    #[arg(long, default_value_t = 4096, value_name = "N")]
    max_streams: u32,
    /// How long requests in flight may take to finish after SIGTERM.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    grace: Duration,
}

pub(super) fn run(args: &Args, _global: &Global) -> anyhow::Result<()> {
    let Args {
        listen,
        name,
        delay,
        capacity,
        service_time,
        queue,
        spin,
        seed,
        max_streams,
        grace,
    } = args.clone();
    let options = Options {
        name,
        delay,
        capacity: capacity.map(NonZeroUsize::get),
        service_time,
        queue,
        spin,
        seed,
        max_streams,
        grace,
    };
    open_files::raise();
    let stats = block_on(async {
        let stop = termination()?;
        let listener = TcpListener::bind(listen)
            .await
            .with_context(|| format!("listen on {listen}"))?;
        eprintln!("listening on {}", listener.local_addr()?);
        anyhow::Ok(serve(listener, options, stop).await?)
    })??;
    println!("{}", serde_json::to_string(&stats)?);
    Ok(())
}
