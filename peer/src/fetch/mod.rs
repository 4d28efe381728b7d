//! `bench-peer fetch`: small requests at a fixed rate beside downloads, one after the other.
//!
//! 1. Every connection is made and used once; what that costs is not measured.
//! 2. The first download begins, on the first connection; when it is done the next begins at once.
//! 3. Small requests begin at `n / rate`, on the connections in turn (HTTP/1.1: on one that is idle). Latency counts
//!    from that intended time, whatever held the request up (no coordinated omission).
//! 4. After `duration` no more begin. Those without an answer `grace` later count with their age then: a lower bound,
//!    and they are reported by their number.

mod transport;

use std::{
    net::SocketAddr,
    path::PathBuf,
    rc::Rc,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use clap::ValueEnum;
use serde::Serialize;
use tokio::task::LocalSet;
use tokio::time::{Instant, sleep_until, timeout_at};

use transport::Transport;

/// Which HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Version {
    /// HTTP/1.1: one request at a time on a connection, as many connections as that takes.
    Http1,
    /// HTTP/2 without TLS.
    Http2,
    /// HTTP/3.
    Http3,
}

/// Arguments of `bench-peer fetch`.
#[derive(clap::Args)]
pub struct Args {
    /// The server.
    target: SocketAddr,
    /// Which HTTP.
    #[arg(long, value_enum)]
    version: Version,
    /// Connections; of HTTP/1.1 the most that there may be.
    #[arg(long, short = 'c', default_value_t = 1)]
    connections: usize,
    /// Small requests a second.
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// Bytes of a small answer.
    #[arg(long, default_value_t = 1024)]
    small: usize,
    /// Bytes of a download; 0: there is none.
    #[arg(long, default_value_t = 0)]
    download: usize,
    /// How long small requests begin.
    #[arg(long, default_value = "5s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// How long to wait for the last answers.
    #[arg(long, default_value = "2s", value_parser = humantime::parse_duration)]
    grace: Duration,
    /// The certificate that the server wrote; HTTP/3 needs it.
    #[arg(long)]
    certificate: Option<PathBuf>,
}

/// What came of it.
#[derive(Debug, Default, Serialize)]
struct Report {
    /// Microseconds from the intended start to the whole answer, of every small request; of those without an answer
    /// their age at the end.
    latencies: Vec<u64>,
    /// How many of those had no answer.
    unfinished: u64,
    /// How many of those failed.
    failed: u64,
    /// Seconds that each download took that ended in time: of slow ones, only the lucky.
    downloads: Vec<f64>,
    /// Bytes of all downloads, those of the last and incomplete one included.
    downloaded: u64,
    /// Seconds from the first download's beginning to the end.
    seconds: f64,
    /// Connections made.
    connections: u64,
}

pub async fn run(args: &Args) -> Result<()> {
    ensure!(args.rate > 0.0, "a rate of {} means nothing", args.rate);
    let report = LocalSet::new().run_until(fetch(args)).await?;
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

async fn fetch(args: &Args) -> Result<Report> {
    let transport = Rc::new(Transport::connect(args).await?);
    let begun = Instant::now();
    let end = begun + args.duration;
    let last = end + args.grace;
    let downloaded = Rc::new(AtomicU64::new(0));
    let downloads = tokio::task::spawn_local(download(
        Rc::clone(&transport),
        args.download,
        Rc::clone(&downloaded),
        end,
    ));
    let mut requests = Vec::new();
    for number in 0_u32.. {
        let intended = begun + Duration::from_secs_f64(f64::from(number) / args.rate);
        if intended >= end {
            break;
        }
        let (transport, path) = (Rc::clone(&transport), format!("/{}", args.small));
        requests.push(tokio::task::spawn_local(async move {
            sleep_until(intended).await;
            let turn = number as usize;
            let outcome = timeout_at(last, transport.get(turn, &path, |_| ())).await;
            (intended.elapsed(), outcome)
        }));
    }
    let mut report = Report::default();
    for request in requests {
        let (latency, outcome) = request.await?;
        report
            .latencies
            .push(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        match outcome {
            Ok(Ok(())) => {}
            Ok(Err(_)) => report.failed += 1,
            Err(_) => report.unfinished += 1,
        }
    }
    report.downloads = downloads.await?.context("a download")?;
    report.downloaded = downloaded.load(Ordering::Relaxed);
    report.seconds = args.duration.as_secs_f64();
    report.connections = transport.connections();
    Ok(report)
}

/// Downloads until `end`; seconds that each took.
async fn download(
    transport: Rc<Transport>,
    bytes: usize,
    downloaded: Rc<AtomicU64>,
    end: Instant,
) -> Result<Vec<f64>> {
    let mut took = Vec::new();
    let path = format!("/{bytes}");
    if bytes == 0 {
        return Ok(took);
    }
    loop {
        let begun = Instant::now();
        let count = |length: usize| {
            downloaded.fetch_add(length as u64, Ordering::Relaxed);
        };
        match timeout_at(end, transport.get(0, &path, count)).await {
            Ok(done) => done?,
            Err(_) => return Ok(took),
        }
        took.push(begun.elapsed().as_secs_f64());
    }
}
