//! `evenkeel load` beside h2load: do the figures that all other scenarios rest on agree with those of a tool that others
//! wrote?
//!
//! - Throughput, closed loop: both on one thread against the same server in turns, at equal connections and streams.
//!   The server is nghttpd, which is made by h2load's authors, or our echo backend.
//! - Latency: against an echo backend that answers after a known time, one request at a time. What is more than that
//!   time is what client, server and loopback add. h2load's own times stand beside, as does an open loop, in which a
//!   request that starts late would show.

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::super::{
    Context, Outcome,
    result::{Axis, Cell, Claim, Column, Measured, Plot, PlotKind, Point, Row, Series, Table},
};
use super::{
    contest::{Contestant, contest, rounds},
    h2load::Load,
    serve, wait_for_listener,
};
use crate::{
    lab::{Lab, Process, Spec},
    shell, workspace,
};

/// How far throughput may be off, as a share.
const GOAL_RATE: f64 = 0.05;
/// How far the median latency may be off, in microseconds.
const GOAL_LATENCY: f64 = 100.0;
/// Where the servers listen; the backends with a delay after them.
const NGHTTPD: u16 = 9000;
const ECHO: u16 = 9001;
const DELAYED: u16 = 9002;
/// Delays of the backends, in microseconds.
const DELAYS: [u32; 3] = [1_000, 5_000, 20_000];

/// A closed load against one server.
struct Race {
    label: &'static str,
    url: String,
    load: Load,
    clients: [Contestant<Client>; 2],
}

/// Backend with a known delay, and what the clients made of it.
struct Known {
    delay: u32,
    url: String,
    clients: [Contestant<Client>; 3],
}

/// Who measures.
#[derive(Clone, Copy)]
enum Client {
    Evenkeel,
    /// In an open loop of so many requests per second.
    EvenkeelOpen(u32),
    H2load,
}

pub(in crate::bench) fn run(context: &Context) -> Result<Outcome> {
    let lab = Lab::new(&Spec {
        backends: 1,
        ..Spec::default()
    })?;
    let _nghttpd = serve(&lab, lab.balancer(), NGHTTPD)?;
    let _echo = echo(&lab, ECHO, 0)?;
    let mut delayed = Vec::new();
    for (delay, port) in DELAYS.iter().zip(DELAYED..) {
        delayed.push(echo(&lab, port, *delay)?);
    }
    let rounds = rounds(context);
    let mut races = races(context);
    for race in &mut races {
        let (load, url) = (race.load, race.url.clone());
        contest(&mut race.clients, rounds, race.label, |client| {
            Ok(vec![client.rate(&lab, load, &url)?])
        })?;
    }
    let mut known = known();
    for backend in &mut known {
        let (delay, url) = (backend.delay, backend.url.clone());
        let requests = context.choose(2_000_000, 400_000) / delay;
        let label = format!(
            "latency of a backend that answers after {} ms",
            delay / 1000
        );
        contest(&mut backend.clients, rounds, &label, |client| {
            client.latency(&lab, context, requests, &url)
        })?;
    }
    Ok(outcome(&races, &known))
}

/// An echo backend that answers after `delay` microseconds.
fn echo(lab: &Lab, port: u16, delay: u32) -> Result<Process> {
    let mut backend = lab.balancer().command(workspace::evenkeel()?);
    backend
        .args(["echo", "--name", "echo"])
        .arg(format!("--listen=127.0.0.1:{port}"))
        .arg(format!("--delay={delay}us"));
    let mut backend = Process::start(lab, &format!("echo-{port}"), &mut backend)?;
    wait_for_listener(&mut backend, port)?;
    Ok(backend)
}

fn races(context: &Context) -> Vec<Race> {
    let nghttpd = format!("http://127.0.0.1:{NGHTTPD}/index.html");
    let echo = format!("http://127.0.0.1:{ECHO}/evenkeel/bytes/5");
    let race = |label, url: &String, shape, full: u32| Race {
        label,
        url: url.clone(),
        load: Load::new(shape, context.choose(full, full / 4)),
        clients: [
            Contestant::new("evenkeel load", Ok(Client::Evenkeel)),
            Contestant::new("h2load", Ok(Client::H2load)),
        ],
    };
    vec![
        race("nghttpd, 1 connection x 1 stream", &nghttpd, (1, 1), 40_000),
        race("nghttpd, 1 x 100", &nghttpd, (1, 100), 160_000),
        race("nghttpd, 10 x 10", &nghttpd, (10, 10), 160_000),
        race("nghttpd, 100 x 10", &nghttpd, (100, 10), 160_000),
        race("evenkeel echo, 10 x 10", &echo, (10, 10), 160_000),
    ]
}

fn known() -> Vec<Known> {
    let each = DELAYS.iter().zip(DELAYED..);
    each.map(|(delay, port)| Known {
        delay: *delay,
        url: format!("http://127.0.0.1:{port}/evenkeel/bytes/5"),
        clients: [
            Contestant::new("evenkeel load, closed loop", Ok(Client::Evenkeel)),
            // A third of what one stream can do, so that no request waits for another.
            Contestant::new(
                "evenkeel load, open loop",
                Ok(Client::EvenkeelOpen(1_000_000 / 3 / delay)),
            ),
            Contestant::new("h2load", Ok(Client::H2load)),
        ],
    })
    .collect()
}

// === impl Client ===

impl Client {
    /// Requests per second of a closed load.
    fn rate(self, lab: &Lab, load: Load, url: &str) -> Result<f64> {
        match self {
            Self::H2load => load.run(lab.balancer(), url),
            Self::Evenkeel | Self::EvenkeelOpen(_) => {
                let report = self.report(lab, load, 0, url)?;
                report["rate"].as_f64().context("rate")
            }
        }
    }

    /// Median and 99th percentile of the latency of single requests, in microseconds.
    fn latency(self, lab: &Lab, context: &Context, requests: u32, url: &str) -> Result<Vec<f64>> {
        let load = Load::new((1, 1), requests);
        match self {
            Self::H2load => {
                let log = context.scratch("loadgen")?.join("h2load.log");
                let seen = load.timed(lab.balancer(), url, &log)?;
                Ok(vec![seen.p50, seen.p99])
            }
            Self::Evenkeel | Self::EvenkeelOpen(_) => {
                let report = self.report(lab, load, context.seed, url)?;
                let at = |point: &str| report["latency"][point].as_f64().context("latency");
                Ok(vec![at("p50")?, at("p99")?])
            }
        }
    }

    fn report(self, lab: &Lab, load: Load, seed: u64, url: &str) -> Result<Value> {
        let Load {
            connections,
            streams,
            requests,
        } = load;
        let mut command = lab.balancer().command(workspace::evenkeel()?);
        command.args(["--json", "load", url]).args([
            format!("--connections={connections}"),
            format!("--streams={streams}"),
            format!("--seed={seed}"),
        ]);
        match self {
            // An open loop takes three times as long for a request.
            Self::EvenkeelOpen(rate) => command
                .arg(format!("--rate={rate}"))
                .arg(format!("--requests={}", requests / 3)),
            _ => command.arg(format!("--requests={requests}")),
        };
        let report: Value = serde_json::from_str(&shell::capture(&mut command)?)?;
        ensure!(
            report["failed"] == 0,
            "requests failed: {}",
            report["causes"]
        );
        Ok(report)
    }
}

fn outcome(races: &[Race], known: &[Known]) -> Outcome {
    let mut claims: Vec<Claim> = races.iter().map(Race::claim).collect();
    claims.extend(known.iter().flat_map(Known::claims));
    Outcome {
        tables: vec![throughput(races), latency(known)],
        plots: vec![ratios(races)],
        claims,
        notes: vec![
            "One thread each for client and server. Where the client is the slower of the two, the figures compare \
             clients; where the server is, they must be the same."
                .to_owned(),
            "Latency above the delay holds everything between the client's clock and the backend's timer: two passes \
             through the loopback, both programs, and up to four wakeups."
                .to_owned(),
        ],
        ..Outcome::default()
    }
}

fn throughput(races: &[Race]) -> Table {
    let row = |race: &Race| {
        let [ours, theirs] = &race.clients;
        Row::new(
            race.label,
            vec![ours.cell(0), theirs.cell(0), ours.ratio_cell(theirs, 0)],
        )
    };
    Table {
        id: "throughput".to_owned(),
        title: "Closed loop: requests per second, as each client says".to_owned(),
        of: "server, connections x streams".to_owned(),
        columns: vec![
            Column::new("evenkeel load", "1/s", 0),
            Column::new("h2load", "1/s", 0),
            Column::new("evenkeel load / h2load", "", 3),
        ],
        rows: races.iter().map(row).collect(),
    }
}

fn latency(known: &[Known]) -> Table {
    let rows = known.iter().flat_map(|backend| {
        backend.clients.iter().map(|client| {
            let above = |index| match client.cell(index) {
                Cell::Figure(_) => Cell::figure(&backend.above(client, index)),
                other => other,
            };
            Row::new(
                format!("{} ms, {}", backend.delay / 1000, client.label),
                vec![above(0), above(1)],
            )
        })
    });
    Table {
        id: "latency".to_owned(),
        title: "A backend that answers after a known time: what clients measure above it"
            .to_owned(),
        of: "delay, client".to_owned(),
        columns: vec![Column::new("p50", "us", 0), Column::new("p99", "us", 0)],
        rows: rows.collect(),
    }
}

fn ratios(races: &[Race]) -> Plot {
    let points = races.iter().enumerate().filter_map(|(index, race)| {
        let [ours, theirs] = &race.clients;
        let ratio = Measured::of(&ours.ratios(theirs, 0))?;
        Some(Point::measured(index as f64, &ratio))
    });
    Plot {
        id: "throughput".to_owned(),
        title: "Throughput that evenkeel load sees, as a multiple of what h2load sees".to_owned(),
        kind: PlotKind::Bars,
        x: Axis {
            title: "server, connections x streams".to_owned(),
            categories: races.iter().map(|race| race.label.to_owned()).collect(),
            ..Axis::default()
        },
        y: Axis {
            title: "evenkeel load / h2load".to_owned(),
            ..Axis::default()
        },
        series: vec![Series {
            name: "evenkeel load / h2load".to_owned(),
            points: points.collect(),
        }],
    }
}

// === impl Race ===

impl Race {
    fn claim(&self) -> Claim {
        let text = format!(
            "{}: throughput within {:.0} % of h2load's",
            self.label,
            GOAL_RATE * 100.0
        );
        let [ours, theirs] = &self.clients;
        match Measured::of(&ours.ratios(theirs, 0)) {
            Some(ratio) => Claim::new(
                text,
                format!(
                    "{:.3} x ({:.3} to {:.3})",
                    ratio.median, ratio.low, ratio.high
                ),
                (ratio.median - 1.0).abs() <= GOAL_RATE,
            ),
            None => Claim::new(text, "not measured: one of the two is missing", false),
        }
    }
}

// === impl Known ===

impl Known {
    /// How much longer than the delay requests took, in microseconds.
    fn above(&self, client: &Contestant<Client>, index: usize) -> Vec<f64> {
        let samples = client.samples(index).into_iter();
        samples
            .map(|sample| sample - f64::from(self.delay))
            .collect()
    }

    /// That both ways of measuring see the delay, and nothing much besides.
    fn claims(&self) -> Vec<Claim> {
        let [closed, open, _] = &self.clients;
        let claim = |client: &Contestant<Client>| {
            let text = format!(
                "{}: the median is within 0.1 ms of a delay of {} ms",
                client.label,
                self.delay / 1000
            );
            match Measured::of(&self.above(client, 0)) {
                Some(above) => Claim::new(
                    text,
                    format!(
                        "{:.0} us more ({:.0} to {:.0})",
                        above.median, above.low, above.high
                    ),
                    above.median.abs() <= GOAL_LATENCY,
                ),
                None => Claim::new(text, "not measured", false),
            }
        };
        vec![claim(closed), claim(open)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contestant(label: &'static str, figures: &[f64]) -> Contestant<Client> {
        let mut contestants = [Contestant::new(label, Ok(Client::H2load))];
        let mut figures = figures.iter();
        contest(&mut contestants, figures.len(), "a test", |_| {
            Ok(vec![*figures.next().context("one for each round")?])
        })
        .unwrap();
        let [contestant] = contestants;
        contestant
    }

    #[test]
    fn throughput_agrees_when_it_is_neither_much_less_nor_much_more() {
        for (ours, agrees) in [(95.1, true), (94.9, false), (104.9, true), (105.1, false)] {
            let race = Race {
                label: "server",
                url: String::new(),
                load: Load::new((1, 1), 1),
                clients: [
                    contestant("evenkeel load", &[ours; 3]),
                    contestant("h2load", &[100.0; 3]),
                ],
            };
            assert_eq!(race.claim().holds, agrees, "{ours}");
        }
    }

    #[test]
    fn latency_agrees_when_the_median_is_the_delay_within_a_tenth_of_a_millisecond() {
        let known = Known {
            delay: 5_000,
            url: String::new(),
            clients: [
                contestant("closed", &[5_090.0; 3]),
                contestant("open", &[5_110.0; 3]),
                contestant("h2load", &[5_000.0; 3]),
            ],
        };
        let holds: Vec<bool> = known.claims().iter().map(|claim| claim.holds).collect();
        assert_eq!(holds, [true, false]);
    }
}
