//! `evenkeel observe`: watch an interface of any host, and say whether its RPCs are pinned.

mod live;
mod table;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use evenkeel_ebpf::watch::{MAX_FLOWS, MAX_PEERS};
use tokio::time::{MissedTickBehavior, interval, sleep_until};

use super::Global;
use super::local_runtime::{block_on, termination};
use super::output::{Paint, print_json, print_json_line};
use super::units::parse_duration;
use crate::datapath::TcAttach;
use crate::datapath::watch::{Started, Watch, Watching};
use crate::observe::{Named, Report, Scope, Tally, local_addresses};

/// How often the kernel's tables are read and the terminal is refreshed.
const REFRESH: Duration = Duration::from_secs(1);

/// What `evenkeel observe --help` and its manual page say.
pub(super) const ABOUT: &str = "Watch an interface of any host and show which TCP connections carry HTTP/2, how many streams each \
opened, to which peer, how long answers took, and how unevenly the peers are used. Nothing is changed: packets are only \
looked at, and nothing stays behind when the command ends, however it ends. (On kernels before 6.6 its clsact qdisc stays, \
and a SIGKILL leaves idle programs, which the next run removes; a second observer of an interface takes the place of the \
first.)

On a terminal the figures are refreshed every second; the end (Ctrl-C, SIGTERM or --for) prints the final report with \
the verdict. Figures and verdict are about the time of observation; what connections opened before is shown beside.

Seen are Ethernet interfaces and loopback, TCP over IPv4, HTTP/2 in clear text. TLS is reported as opaque; TCP over IPv6 \
and with VLAN tags is only counted, in the events (observe the VLAN's own interface instead). Packets that \
an XDP program takes never come this far. Latency is from the request's HEADERS to the END_STREAM of its answer, as this \
interface sees them: at a client it has the network in it, at a server it has not. Streams that opened or ended in a \
segment around a loss are counted, but not timed. Nor is it seen which of them ended there: streams in flight are then \
a range, as in 3-12, of those that wait for sure and of all that may. One that may have ended and began over 69 s ago \
is taken for ended.";

/// Arguments of `evenkeel observe`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "Examples:
  evenkeel observe eth0                          whatever passes, until Ctrl-C
  evenkeel observe eth0 --port 50051 --for 30s   the gRPC service on 50051, for half a minute
  evenkeel observe b1 b2 b3                      a gateway's interfaces, as one
  evenkeel observe lo --group 127.0.0.1:50051,127.0.0.1:50052
                                                 replicas on ports of their own
  evenkeel observe eth0 --json --for 10s         for scripts")]
pub(super) struct Args {
    /// Interfaces to watch, both directions; a packet that passes two of them counts once.
    #[arg(value_name = "IFACE", required = true)]
    interfaces: Vec<String>,
    /// Only servers on this port; may be given several times.
    #[arg(long = "port", value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    ports: Vec<u16>,
    /// End after so long, e.g. 30s.
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    duration: Option<Duration>,
    /// Print a report every second, also where output is no terminal; with --json one a line.
    #[arg(long)]
    watch: bool,
    /// How many peers there are in each group, where that is more than this host sees.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    peers: Option<u16>,
    /// Peers of one service, which are then compared with each other and with nobody else; may be given several times. By
    /// default those with one port are. One named with its port gets nothing if it is not seen.
    #[arg(long = "group", value_name = "ADDR[:PORT],...")]
    groups: Vec<Named>,
    /// Also show how the latencies of each peer are distributed. (JSON always has that.)
    #[arg(long)]
    histogram: bool,
    /// How many connections to list in each group.
    #[arg(long, value_name = "N", default_value_t = 10)]
    top: usize,
    /// Connections that are remembered at once, 256 bytes each. Beyond, the one that was silent for longest is forgotten, and
    /// comes back as another one; `flows_evicted` in the events says about how many were.
    #[arg(long, value_name = "N", default_value_t = MAX_FLOWS, value_parser = clap::value_parser!(u32).range(1024..=4_194_304))]
    max_connections: u32,
    /// Peers that have figures of their own, 3 KiB each. Streams to those beyond are counted by connection only, without
    /// latency and resets; `peers_full` in the events says that there were such peers.
    #[arg(long, value_name = "N", default_value_t = MAX_PEERS, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    max_peers: u32,
    /// Attach through the clsact qdisc even where the kernel has tcx.
    #[arg(long, hide = true)]
    clsact: bool,
    /// Say at the end, on standard error, what the BPF programs and this process cost.
    #[arg(long, hide = true)]
    cost: bool,
}

pub(super) fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let tc = if args.clsact {
        TcAttach::Clsact
    } else {
        TcAttach::Auto
    };
    let unique: BTreeSet<&String> = args.interfaces.iter().collect();
    let interfaces: Vec<String> = unique.into_iter().cloned().collect();
    let (watch, started) = Watch::start(&Watching {
        interfaces: &interfaces,
        ports: &args.ports,
        connections: args.max_connections,
        peers: args.max_peers,
        tc,
        measure: args.cost,
    })?;
    let mut session = Session {
        args,
        global,
        screen: live::Screen::new(args.watch, global),
        tally: Tally::new(own_addresses()),
        watch,
        begun: Instant::now(),
        spent: processor_time(),
    };
    block_on(session.observe(|| announce(&interfaces, &started)))??;
    session.finish()
}

fn announce(interfaces: &[String], started: &Started) {
    for interface in &started.leftovers {
        eprintln!("removed the programs that a killed `evenkeel observe` left on {interface}");
    }
    eprintln!(
        "observing {} ({}); Ctrl-C ends with the report",
        interfaces.join(", "),
        started.mode
    );
}

/// Addresses of this host, or none where they cannot be read: every connection then passes through.
fn own_addresses() -> BTreeSet<IpAddr> {
    let table = std::fs::read_to_string("/proc/thread-self/net/fib_trie");
    table.map_or_else(|_| BTreeSet::new(), |table| local_addresses(&table))
}

/// One run of the command.
struct Session<'a> {
    args: &'a Args,
    global: &'a Global,
    screen: live::Screen,
    tally: Tally,
    watch: Watch,
    begun: Instant,
    /// What this process had cost by then: loading the programs, most of it.
    spent: u64,
}

impl Session<'_> {
    /// Until the end that was asked for, or a signal.
    async fn observe(&mut self, announce: impl FnOnce()) -> anyhow::Result<()> {
        let stop = termination()?;
        // Whoever waits for this may end us at once, and gets a report.
        announce();
        tokio::pin!(stop);
        let end = self.args.duration.map(|duration| self.begun + duration);
        let mut ticks = interval(REFRESH);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is at once.
        ticks.tick().await;
        loop {
            let ended = async {
                match end {
                    Some(end) => sleep_until(end.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = &mut stop => return Ok(()),
                () = ended => return Ok(()),
                _ = ticks.tick() => {
                    self.read()?;
                    self.show()?;
                }
            }
        }
    }

    fn read(&mut self) -> anyhow::Result<()> {
        let reading = self.watch.read()?;
        self.tally.add(reading, self.begun.elapsed());
        Ok(())
    }

    fn report(&self) -> Report {
        let scope = Scope {
            top: self.args.top,
            peers: self.args.peers.map(usize::from),
            named: &self.args.groups,
        };
        Report::new(&self.tally, scope)
    }

    fn style(&self, paint: Paint) -> table::Style {
        table::Style {
            paint,
            histograms: self.args.histogram,
        }
    }

    /// What there is to see meanwhile.
    fn show(&mut self) -> anyhow::Result<()> {
        if self.global.json && self.args.watch {
            return print_json_line(&self.report());
        }
        if !self.global.json && self.screen.is_live() {
            let report = self.report();
            let style = self.style(self.screen.paint());
            self.screen.show(&table::live(&report, style))?;
        }
        Ok(())
    }

    /// The final report.
    fn finish(mut self) -> anyhow::Result<()> {
        self.read()?;
        let report = self.report();
        self.screen.close()?;
        if self.args.cost {
            self.tell_cost()?;
        }
        match (self.global.json, self.args.watch) {
            (true, true) => print_json_line(&report),
            (true, false) => print_json(&report),
            (false, _) => {
                let paint = Paint {
                    on: self.global.coloured(),
                };
                super::output::print(&table::last(&report, self.style(paint)))
            }
        }
    }

    fn tell_cost(&self) -> anyhow::Result<()> {
        let cost = self.watch.cost()?;
        let process = processor_time().saturating_sub(self.spent);
        let line = serde_json::json!({
            "seconds": self.begun.elapsed().as_secs_f64(),
            "program_nanoseconds": cost.nanoseconds,
            "program_runs": cost.runs,
            "process_nanoseconds": process,
        });
        eprintln!("{line}");
        Ok(())
    }
}

/// Nanoseconds of processor that this process has used.
fn processor_time() -> u64 {
    let spent = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    spent.tv_sec as u64 * 1_000_000_000 + spent.tv_nsec as u64
}
