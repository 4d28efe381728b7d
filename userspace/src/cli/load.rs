//! `evenkeel load URL`: requests sent, every answer checked, results by backend and by connection.

use std::io::IsTerminal;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use clap::ValueEnum;
use http::{HeaderName, Method, Uri};

use super::Global;
use super::local_runtime::{block_on, termination};
use crate::load::arrival::Clock;
use crate::load::distribution::{LARGEST, Sizes};
use crate::load::driver::{
    self, Balance, Budget, Field, Kind, Logs, Outputs, Plan, PlanError, Progress, Renewal,
    Schedule, Target, Weights,
};
use crate::load::{BACKEND_HEADER, fresh_seed};
use crate::open_files;

/// Requests of a run for which nothing says when it ends.
const DEFAULT_REQUESTS: u64 = 1000;

/// Arguments of `evenkeel load`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    who: Who,
    #[command(flatten)]
    pace: Pace,
    #[command(flatten)]
    what: What,
    #[command(flatten)]
    told: Told,
    /// Threads, among which the clients are divided.
    #[arg(long, default_value_t = 1, value_name = "N")]
    threads: usize,
    /// Never let a thread sleep: takes a core for each, and takes the wakeup (tens of microseconds, hundreds on a virtual
    /// machine) out of the latencies. A connection of each thread to itself over the loopback keeps it warm meanwhile, as it
    /// does before each request of a slow schedule.
    #[arg(long)]
    spin: bool,
    /// By which clock an answer is over: `kernel`, when its last bytes came to this host (at most 1 ms before they were read),
    /// or `process`, when they were read, with the wakeup before that. How late the client itself was is reported apart (in
    /// JSON `read_delay`, from the arrival of an answer until it was handled, and with a schedule `start_delay`, from the
    /// intended start until the request was given out): with a 99th percentile above 1 ms the client was the bottleneck, unless packets got lost.
    #[arg(long, value_enum, default_value_t = By::Kernel, value_name = "WHOSE")]
    clock: By,
    /// Where every random choice comes from, to repeat a run [default: another each time; the report names it].
    #[arg(long)]
    seed: Option<u64>,
}

/// Who asks whom.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Clients and backends")]
struct Who {
    /// Where to send requests: http://HOST:PORT[/PATH]; a name stands for all its addresses. Several URLs are several
    /// backends for the same path.
    #[arg(required_unless_present = "to")]
    url: Vec<Uri>,
    /// Addresses or names to connect to, whatever the URL says.
    #[arg(long, value_delimiter = ',', value_name = "HOST:PORT,…")]
    to: Vec<Target>,
    /// How each client balances among the addresses: pick_first (the first that answers; pick_first:shuffle in an order
    /// of its own), round_robin or p2c (a connection to each), pool:K (K connections, in turn).
    #[arg(long, default_value_t, value_name = "POLICY")]
    balance: Balance,
    /// Resolve names again at this interval, and not only when a connection fails.
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    resolve_every: Option<Duration>,
    /// Connections, one client each (with --balance: clients, with as many connections each as the policy has).
    #[arg(long, short = 'c', default_value_t = 1, value_name = "N")]
    connections: u32,
    /// Concurrent streams of each client.
    #[arg(long, short = 'm', value_name = "N", default_value_t = 1)]
    streams: u32,
    /// Share of each client in the requests: equal, zipf[:EXPONENT], or one each such as `90,1,1` (one value for each
    /// of --connections, or leave that out). With --duration and no --rate it is a share of --streams, of which there must be
    /// enough.
    #[arg(long, value_name = "SHARES", default_value = "equal")]
    weights: Weights,
    /// Leave each connection for a new one after so many requests; those in flight finish on the old one.
    #[arg(long, value_name = "N")]
    reconnect_every: Option<u64>,
    /// Leave each connection for a new one at this age; those in flight finish on the old one.
    #[arg(long, value_name = "AGE", value_parser = humantime::parse_duration)]
    connection_lifetime: Option<Duration>,
    /// Local addresses to connect from, in turn.
    #[arg(long, value_delimiter = ',', value_name = "IP,…")]
    source: Vec<IpAddr>,
}

/// When requests start, and when no more do.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Pace")]
struct Pace {
    /// Stop after this many requests [default: 1000, or the end of the schedule].
    #[arg(long, short = 'n', value_name = "N", conflicts_with = "duration")]
    requests: Option<u64>,
    /// Stop after this time, e.g. `10s`; requests in flight still finish.
    #[arg(long, value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Requests per second over all clients (open loop: latency counts from the intended start);
    /// without it every stream sends the next request when the answer is there (closed loop).
    #[arg(long, value_name = "PER_SECOND", conflicts_with = "schedule")]
    rate: Option<f64>,
    /// The same, over time: const:R, poisson:R, step:R@DURATION,R@DURATION,… or ramp:R..R@DURATION.
    #[arg(long, value_name = "SCHEDULE")]
    schedule: Option<Schedule>,
    /// Leave out of all figures what starts in this time at the beginning (which comes before --requests, --duration
    /// and the schedule).
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = humantime::parse_duration)]
    warm_up: Duration,
    /// A request without a complete answer this long after its intended start has failed.
    #[arg(long, default_value = "10s", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// What a request is.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Requests")]
struct What {
    /// Call gRPC methods instead of sending plain requests: those of the echo service, or the unary method that the path of
    /// the URL names (`/package.Service/Method`; its answers are good when grpc-status is 0).
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
    /// The method of plain requests [default: GET, or POST with a payload].
    #[arg(long, value_name = "METHOD", conflicts_with = "grpc")]
    method: Option<Method>,
    /// Send this field with every request, instead of what would be sent under its name; may be given several times.
    #[arg(long, value_name = "NAME:VALUE")]
    header: Vec<Field>,
    /// Payload bytes of a request (gRPC: of a message): N, uniform:A..B, lognormal:MEDIAN,SIGMA or choice:N*WEIGHT,….
    #[arg(long, default_value = "0", value_name = "BYTES")]
    payload: Sizes,
    /// Send what this file holds (gRPC: as the message, which it holds as it is encoded) instead of filler.
    #[arg(long, value_name = "FILE", conflicts_with = "payload")]
    payload_file: Option<PathBuf>,
    /// Ask the echo backend for answers of so many bytes, sizes as with --payload, and check that they come.
    #[arg(long, value_name = "BYTES", value_parser = Sizes::of_answers)]
    response_size: Option<Sizes>,
    /// The header field of an answer that names the backend which gave it; results are told apart by it.
    #[arg(long, default_value = BACKEND_HEADER, value_name = "NAME")]
    backend_header: HeaderName,
}

/// What is told of the run.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Output")]
struct Told {
    /// Write a row for each second and backend to this file.
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Write a histogram for each second and backend to this file (HdrHistogram log, V2).
    #[arg(long, value_name = "FILE")]
    hdr: Option<PathBuf>,
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

#[derive(Clone, Copy, Debug, ValueEnum)]
enum By {
    /// As the kernel stamps what it receives; kernels without stamps leave it to the process.
    Kernel,
    /// As this program, or any other, sees it.
    Process,
}

pub(super) fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    open_files::raise();
    let report = block_on(async {
        let stop = termination()?;
        let plan = args.plan().await?;
        anyhow::Ok(driver::run(&plan, args.told.outputs()?, stop).await?)
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
        let Self {
            who,
            pace,
            what,
            told: _,
            threads,
            spin,
            clock,
            seed,
        } = self;
        let (url, targets) = who.url_and_targets()?;
        let addresses = driver::resolve(&targets).await?;
        let schedule = pace.schedule()?;
        let plan = Plan {
            url,
            targets,
            addresses,
            resolve_every: who.resolve_every,
            balance: who.balance,
            kind: what.kind(),
            weights: who.weights()?,
            streams: who.streams,
            budget: pace.budget(schedule.as_ref()),
            schedule,
            warm_up: pace.warm_up,
            method: what.method.clone(),
            headers: what.header.clone(),
            payload: what.payload.clone(),
            content: what.content()?,
            response_size: what.response_size.clone(),
            backend_header: what.backend_header.clone(),
            timeout: pace.timeout,
            renewal: Renewal {
                after_requests: who.reconnect_every,
                after: who.connection_lifetime,
            },
            sources: who.source.clone(),
            threads: *threads,
            spin: *spin,
            clock: (*clock).into(),
            seed: seed.unwrap_or_else(fresh_seed),
        };
        plan.validate()?;
        Ok(plan)
    }
}

impl Who {
    fn weights(&self) -> Result<Vec<u32>, PlanError> {
        let connections = self.connections as usize;
        let weights = self.weights.of(connections);
        // A list alone says how many connections there are.
        if connections != 1 && connections != weights.len() {
            return Err(PlanError::Weights {
                weights: weights.len(),
                connections,
            });
        }
        Ok(weights)
    }

    /// What to ask for, and whom.
    fn url_and_targets(&self) -> anyhow::Result<(Uri, Vec<Target>)> {
        let mut targets = self.to.clone();
        for url in &self.url {
            let authority = url
                .authority()
                .filter(|_| url.scheme_str() == Some("http"))
                .ok_or_else(|| PlanError::Url(url.to_string()))?;
            if self.to.is_empty() {
                targets.push(Target::of(authority));
            }
        }
        let url = match (self.url.as_slice(), targets.first()) {
            ([], None) => return Err(PlanError::NoAddress.into()),
            ([], Some(first)) => format!("http://{first}/").parse().context("--to")?,
            ([first, others @ ..], _) => {
                let path = |url: &Uri| url.path_and_query().cloned();
                if let Some(other) = others.iter().find(|other| path(other) != path(first)) {
                    anyhow::bail!("URLs `{first}` and `{other}`: allowed: the same path in all");
                }
                first.clone()
            }
        };
        Ok((url, targets))
    }
}

impl Pace {
    fn schedule(&self) -> Result<Option<Schedule>, PlanError> {
        match self.rate {
            None => Ok(self.schedule.clone()),
            Some(rate) if rate.is_finite() && rate > 0.0 => Ok(Some(Schedule::Const(rate))),
            Some(_) => Err(PlanError::Rate),
        }
    }

    fn budget(&self, schedule: Option<&Schedule>) -> Budget {
        match (
            self.duration,
            self.requests,
            schedule.and_then(Schedule::end),
        ) {
            (Some(duration), _, _) => Budget::Duration(duration),
            (None, Some(requests), _) => Budget::Requests(requests),
            (None, None, Some(end)) => Budget::Duration(end),
            (None, None, None) => Budget::Requests(DEFAULT_REQUESTS),
        }
    }
}

impl What {
    /// What the payload file holds.
    fn content(&self) -> anyhow::Result<Option<Bytes>> {
        let Some(file) = &self.payload_file else {
            return Ok(None);
        };
        let named = || format!("--payload-file {}", file.display());
        let content = std::fs::read(file).with_context(named)?;
        let length = content.len();
        anyhow::ensure!(
            length <= LARGEST,
            "{}: {length} bytes, allowed: at most {LARGEST}",
            named()
        );
        Ok(Some(content.into()))
    }

    fn kind(&self) -> Kind {
        match (self.http1, self.grpc) {
            (true, _) => Kind::Http1 {
                keep_alive: !self.no_keepalive,
            },
            (false, None) => Kind::Http2,
            (false, Some(Grpc::Unary)) => Kind::GrpcUnary,
            (false, Some(Grpc::Stream)) => Kind::GrpcStream {
                messages: self.messages,
            },
        }
    }
}

impl From<By> for Clock {
    fn from(by: By) -> Self {
        match by {
            By::Kernel => Self::Kernel,
            By::Process => Self::Process,
        }
    }
}

impl Told {
    fn outputs(&self) -> anyhow::Result<Outputs> {
        let progress = match self.progress {
            Show::Auto if std::io::stderr().is_terminal() => Progress::Terminal,
            Show::Auto | Show::None => Progress::None,
            Show::Line => Progress::Terminal,
            Show::Json => Progress::Json,
        };
        let logs = Logs::create(self.csv.as_deref(), self.hdr.as_deref())?;
        Ok(Outputs { progress, logs })
    }
}

#[cfg(test)]
mod tests;
