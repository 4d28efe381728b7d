//! What balancing streams costs: the CPU that the proxy itself spends per request, and how late its slowest requests
//! are, with evenkeel (one worker) and HAProxy (one thread), HTTP/2 on both sides, over loopback.
//!
//! `h2load -c 10 -m 10` fetches a 5-byte file through each in turn, so that whatever else happens on the machine
//! happens to both.

use std::{
    fs,
    net::{SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{Context, Outcome, stats::median};
use crate::{shell, term::Progress, workspace};

/// Visits to each rival.
const ROUNDS: usize = 7;
/// Requests of one visit: about a second's work.
const REQUESTS: usize = 100_000;
/// Requests before the first visit.
const WARMING: usize = 10_000;

/// A program that is ended when it is dropped.
struct Running(Child);

/// One proxy.
struct Rival {
    name: &'static str,
    address: SocketAddr,
    proxy: Running,
    cpu: Vec<f64>,
    p99: Vec<f64>,
    rate: Vec<f64>,
}

/// What one visit showed.
struct Visit {
    cpu: f64,
    p99: f64,
    rate: f64,
}

pub(super) fn run(_context: &Context) -> Result<Outcome> {
    let directory = workspace::target()?.join("bench-l7");
    fs::create_dir_all(&directory)?;
    let (backend, _server) = nghttpd(&directory)?;
    let mut rivals = [evenkeel(backend)?, haproxy(backend, &directory)?];
    let log = directory.join("h2load.log");
    for rival in &rivals {
        visit(rival, WARMING, &log).with_context(|| format!("warming {} up", rival.name))?;
    }
    let progress = Progress::start("h2load -c 10 -m 10, in turns");
    for round in 1..=ROUNDS {
        progress.note(format!("round {round} of {ROUNDS}"));
        for rival in &mut rivals {
            let seen = visit(rival, REQUESTS, &log)?;
            rival.cpu.push(seen.cpu);
            rival.p99.push(seen.p99);
            rival.rate.push(seen.rate);
        }
    }
    progress.done();
    print(&rivals);
    fs::remove_dir_all(&directory)?;
    Ok(Outcome::default())
}

fn print(rivals: &[Rival; 2]) {
    println!("  path                     CPU/request        p99   requests/s");
    for rival in rivals {
        println!(
            "  {:<22} {:>10.2} us {:>7.0} us {:>12.0}",
            rival.name,
            median(&rival.cpu),
            median(&rival.p99),
            median(&rival.rate)
        );
    }
    let [mine, theirs] = rivals;
    let ratio = |mine: &[f64], theirs: &[f64]| {
        let ratios: Vec<f64> = mine.iter().zip(theirs).map(|(a, b)| a / b).collect();
        median(&ratios)
    };
    println!(
        "  evenkeel against HAProxy (median of rounds): CPU {:.2}, p99 {:.2}",
        ratio(&mine.cpu, &theirs.cpu),
        ratio(&mine.p99, &theirs.p99)
    );
}

fn visit(rival: &Rival, requests: usize, log: &Path) -> Result<Visit> {
    if log.exists() {
        fs::remove_file(log)?;
    }
    let before = rival.proxy.cpu_seconds()?;
    let mut h2load = Command::new("h2load");
    h2load
        .args(["-c", "10", "-m", "10", "-n", &requests.to_string()])
        .arg(format!("--log-file={}", log.display()))
        .arg(format!("http://{}/index.html", rival.address));
    let printed = shell::capture(&mut h2load)?;
    let spent = rival.proxy.cpu_seconds()? - before;
    ensure!(
        printed.contains(&format!(" {requests} succeeded")),
        "{}: not all {requests} requests succeeded:\n{printed}",
        rival.name
    );
    let finished = printed.lines().find(|line| line.starts_with("finished in"));
    let rate = finished
        .and_then(|line| line.split(", ").nth(1)?.split(' ').next()?.parse().ok())
        .with_context(|| format!("h2load printed:\n{printed}"))?;
    Ok(Visit {
        cpu: spent / requests as f64 * 1e6,
        p99: p99(&fs::read_to_string(log)?),
        rate,
    })
}

/// h2load logs a line for each request: when it began, its status, and how many microseconds it took.
fn p99(log: &str) -> f64 {
    let mut times: Vec<f64> = log
        .lines()
        .filter_map(|line| line.split('\t').nth(2)?.parse().ok())
        .collect();
    times.sort_by(f64::total_cmp);
    times.get(times.len() * 99 / 100).copied().unwrap_or(0.0)
}

fn nghttpd(directory: &Path) -> Result<(SocketAddr, Running)> {
    fs::write(directory.join("index.html"), "hello")?;
    let address = free_address()?;
    let mut server = Command::new("nghttpd");
    server
        .args(["--no-tls", "--workers=1", "--address=127.0.0.1", "-d"])
        .arg(directory)
        .arg(address.port().to_string());
    Ok((address, Running::start(&mut server, address)?))
}

fn evenkeel(backend: SocketAddr) -> Result<Rival> {
    let address = free_address()?;
    let mut proxy = Command::new(workspace::evenkeel()?);
    proxy
        .args(["proxy", "--workers", "1", "--policy", "round_robin"])
        .args(["--listen", &address.to_string()])
        .args(["--backend", &backend.to_string()]);
    rival("evenkeel, one worker", address, &mut proxy)
}

fn haproxy(backend: SocketAddr, directory: &Path) -> Result<Rival> {
    let address = free_address()?;
    let config: PathBuf = directory.join("haproxy.cfg");
    fs::write(
        &config,
        format!(
            "global\n  nbthread 1\n  maxconn 4000\n\
             defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
             frontend f\n  bind {address} proto h2\n  default_backend b\n\
             backend b\n  http-reuse always\n  server s {backend} proto h2\n"
        ),
    )?;
    let mut proxy = Command::new("haproxy");
    proxy.arg("-db").arg("-f").arg(&config);
    rival("HAProxy, one thread", address, &mut proxy)
}

fn rival(name: &'static str, address: SocketAddr, proxy: &mut Command) -> Result<Rival> {
    Ok(Rival {
        name,
        address,
        proxy: Running::start(proxy, address)?,
        cpu: Vec::new(),
        p99: Vec::new(),
        rate: Vec::new(),
    })
}

/// An address on which nobody listens now.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

impl Running {
    /// Starts a program, and waits until it listens.
    fn start(command: &mut Command, address: SocketAddr) -> Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command
            .spawn()
            .with_context(|| format!("cannot run: {}", shell::describe(command)))?;
        let mut running = Self(child);
        while TcpStream::connect(address).is_err() {
            if let Some(status) = running.0.try_wait()? {
                anyhow::bail!("{status}: {}", shell::describe(command));
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(running)
    }

    /// CPU that all its threads spent so far, from /proc/PID/stat.
    fn cpu_seconds(&self) -> Result<f64> {
        /// USER_HZ is 100 on every architecture that we know.
        const TICKS: f64 = 100.0;
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id()))?;
        // The name, in parentheses, may hold anything; utime and stime are the 14th and 15th field. See proc_pid_stat(5).
        let fields = stat.rsplit(')').next().context("/proc/PID/stat is empty")?;
        let ticks: Vec<f64> = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse().ok())
            .collect();
        ensure!(ticks.len() == 2, "/proc/PID/stat reads {stat:?}");
        Ok(ticks.iter().sum::<f64>() / TICKS)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p99_is_the_time_that_one_in_a_hundred_exceeds() {
        let log: String = (1..=200).map(|time| format!("1\t200\t{time}\n")).collect();
        assert_eq!(p99(&log), 199.0);
        assert_eq!(p99(""), 0.0);
    }
}
