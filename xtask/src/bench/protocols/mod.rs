//! What each protocol trades: how many connections one client of it makes, how evenly its requests land with L4 and
//! with L7 balancing, how late the slowest are on a clean link and on a lossy one, and what a request costs the proxy.
//!
//! Every cell is measured. What evenkeel cannot do yet is asked of evenkeel itself (`evenkeel check` on a
//! configuration that wants it): once it can, the cell fills itself.

mod balanced;
mod figures;
mod link;

use std::time::Duration;

use anyhow::Result;

use super::{Context, Outcome, attempts::Attempts};
use crate::term::Progress;
use balanced::{Balanced, Share};
use link::{LOSS, Link};

/// Rounds, full and quick.
const ROUNDS: (u64, u64) = (6, 1);
/// Requests of one client, full and quick.
const REQUESTS: (u32, u32) = (10_000, 4000);
/// How long requests begin on a link, full and quick.
const VISIT: (Duration, Duration) = (Duration::from_secs(3), Duration::from_millis(1500));

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
    Grpc,
    WebSocket,
    Http3,
}

impl Protocol {
    const ALL: [Self; 5] = [
        Self::Http1,
        Self::Http2,
        Self::Grpc,
        Self::WebSocket,
        Self::Http3,
    ];

    const fn name(self) -> &'static str {
        match self {
            Self::Http1 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
            Self::Grpc => "gRPC",
            Self::WebSocket => "WebSocket",
            Self::Http3 => "HTTP/3",
        }
    }
}

/// Where a protocol is looked at.
#[derive(Clone, Copy, Debug)]
enum Place {
    L4,
    L7,
    Clean,
    Lossy,
}

impl Place {
    /// The point of `protocol` there, in words.
    fn of(self, protocol: Protocol) -> String {
        let place = match self {
            Self::L4 => "at l4",
            Self::L7 => "at l7",
            Self::Clean => "on a clean link",
            Self::Lossy => "on a lossy link",
        };
        format!("{} {place}", protocol.name())
    }
}

/// All that was seen of one protocol.
struct Seen {
    protocol: Protocol,
    l4: Vec<Share>,
    l7: Vec<Share>,
    clean: Vec<f64>,
    lossy: Vec<f64>,
}

pub(super) fn run(context: &Context) -> Result<Outcome> {
    let mut all: Vec<Seen> = Protocol::ALL
        .iter()
        .map(|protocol| Seen {
            protocol: *protocol,
            l4: Vec::new(),
            l7: Vec::new(),
            clean: Vec::new(),
            lossy: Vec::new(),
        })
        .collect();
    let mut balanced = Balanced::set()?;
    let mut link = Link::set()?;
    let requests = context.choose(REQUESTS.0, REQUESTS.1);
    let duration = context.choose(VISIT.0, VISIT.1);
    let rounds = context.choose(ROUNDS.0, ROUNDS.1);
    let mut attempts = Attempts::default();
    let progress = Progress::start("protocols in turns, behind evenkeel and on links");
    for round in 0..rounds {
        progress.note(format!("round {} of {rounds}", round + 1));
        for turn in 0..all.len() {
            // Nobody always comes first.
            let at = (turn + round as usize) % Protocol::ALL.len();
            let seen = &mut all[at];
            let protocol = seen.protocol;
            let seed = context.seed.wrapping_add(round);
            for (shares, l7) in [(&mut seen.l4, false), (&mut seen.l7, true)] {
                let visit = balanced.visit(protocol, l7, requests);
                let place = if l7 { Place::L7 } else { Place::L4 };
                shares.extend(attempts.keep(&place.of(protocol), visit)?.flatten());
            }
            for (times, loss, place) in [
                (&mut seen.clean, 0.0, Place::Clean),
                (&mut seen.lossy, LOSS, Place::Lossy),
            ] {
                let visit = link.visit(protocol, loss, seed, duration);
                times.extend(attempts.keep(&place.of(protocol), visit)?);
            }
        }
    }
    progress.done();
    Ok(figures::outcome(&all, &attempts))
}
