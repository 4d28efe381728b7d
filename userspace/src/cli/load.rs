//! `evenkeel load URL`: requests sent, every answer checked, results by backend.

use std::io::IsTerminal;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use http::Uri;

use super::Global;
use super::local_runtime::{block_on, termination};
use crate::load::driver::{self, Budget, Kind, Plan, PlanError, Progress, Renewal};

/// Requests of a run for which neither --requests nor --duration says anything.
const DEFAULT_REQUESTS: u64 = 1000;

/// Arguments of `evenkeel load`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where to send requests: http://HOST:PORT[/PATH].
    url: Uri,
    /// Connections, one client each.
    #[arg(long, short = 'c', default_value_t = 1, value_name = "N")]
    connections: u32,
    /// Concurrent streams on each connection.
    #[arg(long, short = 'm', value_name = "N", default_value_t = 1)]
    streams: u32,
    /// Stop after this many requests [default: 1000].
    #[arg(long, short = 'n', value_name = "N", conflicts_with = "duration")]
    requests: Option<u64>,
    /// Stop after this time, e.g. `10s`; requests in flight still finish.
    #[arg(long, value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Requests per second over all connections (open loop: latency counts from the intended start);
    /// without it every stream sends the next request when the answer is there (closed loop).
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<f64>,
    /// Call the gRPC echo service instead of sending plain requests.
    #[arg(long, value_enum, conflicts_with = "http1")]
    grpc: Option<Grpc>,
    /// Messages in a gRPC stream.
    #[arg(long, default_value_t = 4, value_name = "N")]
    messages: u32,
    /// HTTP/1.1 instead of HTTP/2.
    #[arg(long)]
    http1: bool,
    /// HTTP/1.1 with a connection per request.
    #[arg(long, requires = "http1")]
    no_keepalive: bool,
    /// Payload bytes of a request (gRPC: of a message).
    #[arg(long, default_value_t = 0, value_name = "BYTES")]
    payload: usize,
    /// Share of each connection in the requests, e.g. `90,1,1` for one busy connection among quiet ones;
    /// one value for each of --connections (or leave that out).
    #[arg(long, value_delimiter = ',', value_name = "W,…")]
    weights: Vec<u32>,
    /// A request without a complete answer after this time has failed.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Leave each connection for a new one after so many requests; those in flight finish on the old one.
    #[arg(long, value_name = "N")]
    reconnect_every: Option<u64>,
    /// Leave each connection for a new one at this age; those in flight finish on the old one.
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    connection_lifetime: Option<Duration>,
    /// Local addresses to connect from, in turn.
    #[arg(long, value_delimiter = ',', value_name = "IP,…")]
    source: Vec<IpAddr>,
    /// Progress on stderr, once a second; `auto` is: a line on a terminal, nothing elsewhere.
    #[arg(long, value_enum, default_value_t = Show::Auto, value_name = "HOW")]
    progress: Show,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Grpc {
    /// One message there, one back.
    Unary,
    /// A bidirectional stream of --messages messages, each sent after the echo of the one before.
    Stream,
}

#[derive(Clone, Copy, Debug, PartialEq, ValueEnum)]
enum Show {
    Auto,
    /// A line that is rewritten in place.
    Line,
    /// A JSON object a second.
    Json,
    None,
}

pub(super) fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let report = block_on(async {
        let stop = termination()?;
        let plan = args.plan().await?;
        anyhow::Ok(driver::run(&plan, args.progress(), stop).await?)
    })??;
    if global.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
    }
    anyhow::ensure!(
        report.failed == 0,
        "{} of {} requests failed",
        report.failed,
        report.requests
    );
    Ok(())
}

impl Args {
    async fn plan(&self) -> anyhow::Result<Plan> {
        let weights = match self.weights.len() {
            0 => vec![1; self.connections as usize],
            weights if self.connections != 1 && self.connections as usize != weights => {
                let connections = self.connections as usize;
                return Err(PlanError::Weights {
                    weights,
                    connections,
                }
                .into());
            }
            _ => self.weights.clone(),
        };
        let kind = match (self.http1, self.grpc) {
            (true, _) => Kind::Http1 {
                keep_alive: !self.no_keepalive,
            },
            (false, None) => Kind::Http2,
            (false, Some(Grpc::Unary)) => Kind::GrpcUnary,
            (false, Some(Grpc::Stream)) => Kind::GrpcStream {
                messages: self.messages,
            },
        };
        let budget = match self.duration {
            Some(duration) => Budget::Duration(duration),
            None => Budget::Requests(self.requests.unwrap_or(DEFAULT_REQUESTS)),
        };
        let plan = Plan {
            url: self.url.clone(),
            target: resolve(&self.url).await?,
            kind,
            weights,
            streams: self.streams,
            budget,
            rate: self.rate,
            payload: self.payload,
            timeout: self.timeout,
            renewal: Renewal {
                after_requests: self.reconnect_every,
                after: self.connection_lifetime,
            },
            sources: self.source.clone(),
        };
        plan.validate()?;
        Ok(plan)
    }

    fn progress(&self) -> Progress {
        match self.progress {
            Show::Auto if std::io::stderr().is_terminal() => Progress::Terminal,
            Show::Auto | Show::None => Progress::None,
            Show::Line => Progress::Terminal,
            Show::Json => Progress::Json,
        }
    }
}

async fn resolve(url: &Uri) -> anyhow::Result<SocketAddr> {
    let Some(host) = url.host().filter(|_| url.scheme_str() == Some("http")) else {
        return Err(PlanError::Url(url.to_string()).into());
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let found = tokio::net::lookup_host((host, url.port_u16().unwrap_or(80))).await;
    let mut addresses = found.with_context(|| format!("resolve {host}"))?;
    addresses
        .next()
        .with_context(|| format!("{host} has no address"))
}
