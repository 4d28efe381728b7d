//! `evenkeel load` beside h2load: do the figures that all other scenarios rest on agree with those of a tool that others
//! wrote?
//!
//! - Throughput, closed loop: both on one thread against the same server in turns, at equal connections and streams,
//!   client and server each on a CPU of its own ([`place`]).
//!   The server is nghttpd, which is made by h2load's authors, or our echo backend, once as fast as it can and once with
//!   a capacity that is known beforehand.
//! - Latency: against an echo backend that answers after a known time, one request at a time. How long it really had
//!   the request the backend says with each answer, because a timer that is set for 20 ms fires when the host lets it:
//!   the client has to agree with that, request by request, and with the time that was asked for. All three count from and to
//!   what the kernel says of arrivals: the backend, which begins its delay there, from that of the request, the client to that of
//!   the answer; no wakeup for either is in it. Still in it are, from the intended start, a start that is late, all that the
//!   client does until the request is sent, and all that the backend does from saying its time until the answer is sent. Beside
//!   it stands what h2load measures, for which its wakeup for the answer counts, too. With and without `--spin` the figures
//!   are held to the same goal.

mod place;
mod race;
mod tables;

use anyhow::{Context as _, Result, ensure};
use place::Side;
use race::{Race, races};
use serde_json::Value;

use super::super::{
    Context, Outcome,
    result::{Claim, Measured},
};
use super::{
    contest::{Contestant, contest, rounds},
    h2load::Load,
    quiet::Counted,
    serve, wait_for_listener,
};
use crate::{
    lab::{Lab, Process, Spec},
    shell, workspace,
};

/// Where the figures of a visit hold the median.
const MEDIAN: usize = 0;
/// Where the figures of a visit hold what was measured beyond the time that the backend took.
const BEYOND: usize = 2;
/// How far the median latency may be off, in microseconds.
const GOAL_LATENCY: f64 = 100.0;
/// Where the servers listen; only one with a delay at a time.
const NGHTTPD: u16 = 9000;
const ECHO: u16 = 9001;
const FINITE: u16 = 9002;
const DELAYED: u16 = 9003;
/// Delays of the backends, in microseconds.
const DELAYS: [u32; 3] = [1_000, 5_000, 20_000];

/// Backend with a known delay, and what the clients made of it.
struct Known {
    delay: u32,
    spin: bool,
    clients: [Contestant<Client>; 3],
}

/// Who measures.
#[derive(Clone, Copy)]
enum Client {
    Evenkeel {
        spin: bool,
        /// Requests per second of an open loop.
        rate: Option<u32>,
    },
    H2load,
}

pub(in crate::bench) fn run(context: &Context) -> Result<Outcome> {
    let lab = Lab::new(&Spec {
        backends: 1,
        ..Spec::default()
    })?;
    let _nghttpd = place::on(Side::Server, || serve(&lab, lab.balancer(), NGHTTPD))?;
    let _echo = echo(&lab, ECHO, &[])?;
    // 8 requests in each millisecond.
    let _finite = echo(&lab, FINITE, &["--capacity=8", "--service-time=1ms"])?;
    let rounds = rounds(context);
    let mut races = races(context);
    let mut counted = Counted::default();
    for race in &mut races {
        let (load, url) = (race.load, race.url.clone());
        counted += contest(&mut race.clients, race.rounds, race.label, |client| {
            let rate = place::on(Side::Client, || client.rate(&lab, load, &url))?;
            Ok(vec![rate])
        })?;
    }
    let mut known = known();
    for backend in &mut known {
        counted += backend.measure(&lab, context, rounds)?;
    }
    let mut outcome = tables::outcome(&races, &known);
    outcome.notes.extend(counted.note());
    Ok(outcome)
}

/// An echo backend.
fn echo(lab: &Lab, port: u16, options: &[&str]) -> Result<Process> {
    let mut backend = lab.balancer().command(workspace::evenkeel()?);
    backend
        .args(["echo", "--name", "echo"])
        .arg(format!("--listen=127.0.0.1:{port}"))
        .args(options);
    let name = format!("echo-{port}");
    let mut backend = place::on(Side::Server, || Process::start(lab, &name, &mut backend))?;
    wait_for_listener(&mut backend, port)?;
    Ok(backend)
}

fn bytes_from(port: u16) -> String {
    format!("http://127.0.0.1:{port}/evenkeel/bytes/5")
}

fn known() -> Vec<Known> {
    let each = [true, false]
        .into_iter()
        .flat_map(|spin| DELAYS.map(|delay| (spin, delay)));
    each.map(|(spin, delay)| {
        // A third of what one stream can do, so that no request waits for another.
        let rate = Some(1_000_000 / 3 / delay);
        let evenkeel = |rate| Ok(Client::Evenkeel { spin, rate });
        Known {
            delay,
            spin,
            clients: [
                Contestant::new("evenkeel load, closed loop", evenkeel(None)),
                Contestant::new("evenkeel load, open loop", evenkeel(rate)),
                Contestant::new("h2load", Ok(Client::H2load)),
            ],
        }
    })
    .collect()
}

// === impl Client ===

impl Client {
    /// Requests per second of a closed load.
    fn rate(self, lab: &Lab, load: Load, url: &str) -> Result<f64> {
        match self {
            Self::H2load => load.run(lab.balancer(), url),
            Self::Evenkeel { .. } => {
                let report = self.report(lab, load, 0, url)?;
                report["rate"].as_f64().context("rate")
            }
        }
    }

    /// Median and 99th percentile of the latency of single requests, in microseconds; then, where the client looks at
    /// what the backend says it took, the median of what was measured beyond that.
    fn latency(self, lab: &Lab, context: &Context, requests: u32, url: &str) -> Result<Vec<f64>> {
        let load = Load::new((1, 1), requests);
        match self {
            Self::H2load => {
                let log = context.scratch("loadgen")?.join("h2load.log");
                let seen = load.timed(lab.balancer(), url, &log)?;
                Ok(vec![seen.p50, seen.p99])
            }
            Self::Evenkeel { .. } => {
                let report = self.report(lab, load, context.seed, url)?;
                let at = |what: &str, point: &str| report[what][point].as_f64().context("latency");
                Ok(vec![
                    at("latency", "p50")?,
                    at("latency", "p99")?,
                    at("beyond_backend", "p50")?,
                ])
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
        let (spin, rate) = match self {
            Self::Evenkeel { spin, rate } => (spin, rate),
            Self::H2load => (false, None),
        };
        command.args(spin.then_some("--spin"));
        match rate {
            // An open loop takes three times as long for a request.
            Some(rate) => command
                .arg(format!("--rate={rate}"))
                .arg(format!("--requests={}", (requests / 3).max(5))),
            None => command.arg(format!("--requests={requests}")),
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

// === impl Known ===

impl Known {
    fn name(&self) -> String {
        let spin = if self.spin { " with --spin" } else { "" };
        format!("{} ms{spin}", self.delay / 1000)
    }

    fn measure(&mut self, lab: &Lab, context: &Context, rounds: usize) -> Result<Counted> {
        let delay = format!("--delay={}us", self.delay);
        let options = [delay.as_str(), "--spin"];
        let options = if self.spin {
            &options[..]
        } else {
            &options[..1]
        };
        // Gone afterwards: one that spins has a core to itself.
        let _backend = echo(lab, DELAYED, options)?;
        let url = bytes_from(DELAYED);
        let requests = context.choose(1_000_000, 200_000) / self.delay;
        let label = format!("latency of a backend that answers after {}", self.name());
        contest(&mut self.clients, rounds, &label, |client| {
            place::on(Side::Client, || {
                client.latency(lab, context, requests, &url)
            })
        })
    }

    /// How much longer than the delay requests took, in microseconds.
    fn above(&self, client: &Contestant<Client>, index: usize) -> Vec<f64> {
        let samples = client.samples(index).into_iter();
        samples
            .map(|sample| sample - f64::from(self.delay))
            .collect()
    }

    /// That both ways of measuring see the delay, and nothing much besides: first of the delay as it was asked for, in
    /// which all that is late counts, then of what the backend says of each request, which is the client's part alone.
    fn claims(&self) -> Vec<Claim> {
        let [closed, open, _] = &self.clients;
        let each = [closed, open].into_iter().flat_map(|client| {
            let delay = format!("the delay of a backend of {}", self.name());
            let own = format!("what a backend of {} says it took", self.name());
            [
                (client.label, delay, self.above(client, MEDIAN)),
                (client.label, own, client.samples(BEYOND)),
            ]
        });
        each.map(|(label, what, beyond)| within(label, &what, &beyond))
            .collect()
    }
}

/// That the median of a client is not far from `what`, which it is `beyond` by.
fn within(client: &str, what: &str, beyond: &[f64]) -> Claim {
    let text = format!("{client}: the median is within 0.1 ms of {what}");
    match Measured::of(beyond) {
        Some(beyond) => Claim::new(
            text,
            format!(
                "{:.0} us more ({:.0} to {:.0})",
                beyond.median, beyond.low, beyond.high
            ),
            beyond.median.abs() <= GOAL_LATENCY,
        ),
        None => Claim::new(text, "not measured", false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn contestant(label: &'static str, figures: &[f64]) -> Contestant<Client> {
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
    fn latency_agrees_within_a_tenth_of_a_millisecond_with_the_delay_and_with_what_the_backend_took()
     {
        let mut known = Known {
            delay: 5_000,
            spin: false,
            clients: [
                contestant("closed", &[0.0; 0]),
                contestant("open", &[0.0; 0]),
                contestant("h2load", &[0.0; 0]),
            ],
        };
        let figures = [(5_110.0, 90.0), (5_090.0, 110.0), (5_000.0, 0.0)];
        for (client, (median, beyond)) in known.clients.iter_mut().zip(figures) {
            contest(std::slice::from_mut(client), 3, "a test", |_| {
                Ok(vec![median, 6_000.0, beyond])
            })
            .unwrap();
        }
        let holds: Vec<bool> = known.claims().iter().map(|claim| claim.holds).collect();
        assert_eq!(holds, [false, true, true, false]);
    }
}
