//! The report: what `evenkeel observe` prints, as a table or as JSON.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::tally::{Connection, Forgotten};
use super::{Carries, Histogram, Latency, Relation, Tally, verdict};
use crate::pinning::bound::bound;
use crate::pinning::skew::{self, Load};

/// A peer with less than this share of the mean got next to nothing.
const IDLE: f64 = 0.05;
/// Streams of connections that are not known one by one are taken for so many equal ones at most.
const DUST: u64 = 1000;

/// How the report is to be taken.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// Heaviest connections to list in each group.
    pub top: usize,
    /// How many peers a group really has, where more is known than what was seen.
    pub peers: Option<usize>,
}

/// What was observed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Seconds of observation.
    pub seconds: f64,
    /// Peers of one port, busiest group first.
    pub groups: Vec<GroupReport>,
    /// Connections without clear-text HTTP/2.
    pub other: OtherTraffic,
    /// What went wrong in the kernel's tables, where anything did.
    pub events: Vec<Event>,
    /// The answer, in words.
    pub verdict: String,
}

/// Something that went wrong, and how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Name.
    pub name: String,
    /// How often.
    pub count: u64,
}

/// Connections that carry something else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherTraffic {
    /// TLS: opaque.
    pub tls: u64,
    /// Neither HTTP/2 nor TLS.
    pub other: u64,
    /// Nothing that could be told.
    pub unknown: u64,
}

/// Peers of one port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupReport {
    /// What its connections have to do with this host.
    pub relation: Relation,
    /// The peers' port.
    pub port: u16,
    /// Peers that the figures are about: those seen, or as many as were said to be.
    pub peer_count: usize,
    /// HTTP/2 connections seen.
    pub connections: u64,
    /// Streams opened while they were observed.
    pub streams: u64,
    /// Streams per second since the beginning.
    pub rate: f64,
    /// Streams per second between the last two readings.
    pub current_rate: f64,
    /// Max / mean of streams by peer; absent where there were none.
    pub hot_factor: Option<f64>,
    /// Jain's index over the same; absent where there were none.
    pub fairness: Option<f64>,
    /// No L4 policy gets below this hot factor with these connections; absent where there were no streams.
    pub l4_lower_bound: Option<f64>,
    /// An assignment of these connections with this hot factor exists; absent where there were no streams.
    pub l4_achievable: Option<f64>,
    /// The fewest connections that carry 9 in 10 streams.
    pub carrying: u64,
    /// Their share of the streams, 0 to 1.
    pub carrying_share: f64,
    /// Peers, busiest first.
    pub peers: Vec<PeerReport>,
    /// The heaviest connections.
    pub top: Vec<ConnectionReport>,
    /// The answer for this group, in words.
    pub verdict: String,
}

/// A server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerReport {
    /// Its address.
    pub address: String,
    /// Connections seen.
    pub connections: u64,
    /// Of those, connections that are open.
    pub open: u64,
    /// Streams opened while they were observed.
    pub streams: u64,
    /// Streams that its open connections had opened before.
    pub before: u64,
    /// Streams per second since the beginning.
    pub rate: f64,
    /// Streams per second between the last two readings.
    pub current_rate: f64,
    /// Share of the group's streams, 0 to 1.
    pub share: f64,
    /// It got next to nothing.
    pub idle: bool,
    /// Streams that wait for their answer.
    pub in_flight: u64,
    /// Streams that either side gave up.
    pub reset: u64,
    /// Bytes to it.
    pub bytes_to: u64,
    /// Bytes from it.
    pub bytes_from: u64,
    /// From a request's HEADERS to the answer's END_STREAM; absent where nothing was timed.
    pub latency: Option<Latency>,
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConnectionReport {
    /// Who opened it.
    pub client: String,
    /// Who answers.
    pub server: String,
    /// It is open.
    pub open: bool,
    /// Streams opened while it was observed.
    pub streams: u64,
    /// Streams it had opened before.
    pub before: u64,
    /// Share of the group's streams, 0 to 1.
    pub share: f64,
    /// Streams per second between the last two readings.
    pub current_rate: f64,
    /// Streams that wait for their answer.
    pub in_flight: u64,
    /// Bytes to the server.
    pub bytes_to: u64,
    /// Bytes from the server.
    pub bytes_from: u64,
}

impl Report {
    /// Takes the figures.
    #[must_use]
    pub fn new(tally: &Tally, scope: Scope) -> Self {
        let mut groups: BTreeMap<(Relation, u16), Group<'_>> = BTreeMap::new();
        let mut other = OtherTraffic::default();
        let mut quiet = Vec::new();
        for connection in tally.connections.values() {
            match connection.now.carries {
                Carries::Http2 => {
                    let group = groups.entry(tally.group_of(connection)).or_default();
                    group.servers.insert(connection.now.id.server);
                    group.connections.push(connection);
                }
                Carries::Tls => other.tls += 1,
                Carries::Other => other.other += 1,
                Carries::Unknown => quiet.push(connection),
            }
        }
        // A connection that carried nothing may still lead to an idle peer of a group.
        for connection in quiet {
            match groups.get_mut(&tally.group_of(connection)) {
                Some(group) if connection.now.certain => {
                    group.servers.insert(connection.now.id.server);
                }
                _ => other.unknown += 1,
            }
        }
        let mut groups: Vec<GroupReport> = groups
            .into_iter()
            .map(|((relation, port), group)| group.report(tally, scope, relation, port))
            .collect();
        groups.sort_by_key(|group| (std::cmp::Reverse(group.streams), group.relation, group.port));
        let events = tally.events.iter().filter(|(_, count)| *count > 0);
        Self {
            seconds: tally.elapsed.as_secs_f64(),
            verdict: verdict::overall(&groups, other),
            groups,
            other,
            events: events
                .map(|(name, count)| Event {
                    name: (*name).to_owned(),
                    count: *count,
                })
                .collect(),
        }
    }
}

impl Tally {
    fn group_of(&self, connection: &Connection) -> (Relation, u16) {
        let id = connection.now.id;
        (
            Relation::of(id.client, id.server, &self.local),
            id.server.port(),
        )
    }

    fn rate(&self, streams: u64) -> f64 {
        per_second(streams, self.elapsed.as_secs_f64())
    }

    fn current_rate(&self, streams: u64) -> f64 {
        per_second(streams, self.interval.as_secs_f64())
    }
}

fn per_second(streams: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        streams as f64 / seconds
    } else {
        0.0
    }
}

/// A group before its figures are taken.
#[derive(Default)]
struct Group<'a> {
    servers: BTreeSet<SocketAddr>,
    connections: Vec<&'a Connection>,
}

impl Group<'_> {
    fn report(mut self, tally: &Tally, scope: Scope, relation: Relation, port: u16) -> GroupReport {
        self.connections.sort_by_key(|connection| {
            (std::cmp::Reverse(connection.now.streams), connection.now.id)
        });
        let mut peers: Vec<PeerReport> =
            self.servers.iter().map(|s| self.peer(tally, *s)).collect();
        let streams: u64 = peers.iter().map(|peer| peer.streams).sum();
        let peer_count = peers.len().max(scope.peers.unwrap_or(0));
        let mean = streams as f64 / peer_count as f64;
        for peer in &mut peers {
            peer.share = skew::share(peer.streams, streams);
            peer.idle = peer_count > 1 && (peer.streams as f64) < IDLE * mean;
        }
        peers.sort_by(|a, b| b.streams.cmp(&a.streams).then(a.address.cmp(&b.address)));
        let mut loads: Vec<Load> = peers
            .iter()
            .map(|peer| Load {
                streams: peer.streams,
                weight: 1,
            })
            .collect();
        loads.resize(
            peer_count,
            Load {
                streams: 0,
                weight: 1,
            },
        );
        let forgotten = self.forgotten(tally);
        let bound = (streams > 0).then(|| bound(&self.rates(forgotten, streams), peer_count));
        let (carrying, carrying_share) = self.carrying(streams);
        let current: f64 = peers.iter().map(|peer| peer.current_rate).sum();
        let mut report = GroupReport {
            relation,
            port,
            peer_count,
            connections: self.connections.len() as u64 + forgotten.connections,
            streams,
            rate: tally.rate(streams),
            current_rate: current,
            hot_factor: skew::hot_factor(&loads),
            fairness: skew::fairness(&loads),
            l4_lower_bound: bound.map(|bound| bound.lower),
            l4_achievable: bound.map(|bound| bound.achievable),
            carrying,
            carrying_share,
            top: self.top(tally, scope.top, streams),
            peers,
            verdict: String::new(),
        };
        report.verdict = verdict::of(&report);
        report
    }

    fn peer(&self, tally: &Tally, server: SocketAddr) -> PeerReport {
        let mut peer = PeerReport {
            address: server.to_string(),
            connections: tally.forgotten.get(&server).map_or(0, |f| f.connections),
            open: 0,
            streams: 0,
            before: 0,
            rate: 0.0,
            current_rate: 0.0,
            share: 0.0,
            idle: false,
            in_flight: 0,
            reset: 0,
            bytes_to: 0,
            bytes_from: 0,
            latency: None,
        };
        let mut by_connection = tally.forgotten.get(&server).map_or(0, |f| f.streams);
        let mut recent = 0;
        for connection in self
            .connections
            .iter()
            .filter(|c| c.now.id.server == server)
        {
            let flow = &connection.now;
            peer.connections += 1;
            by_connection += flow.streams;
            recent += connection.recent();
            peer.bytes_to += flow.bytes_to_server;
            peer.bytes_from += flow.bytes_to_client;
            if connection.open {
                peer.open += 1;
                peer.before += flow.before;
                peer.in_flight += flow.in_flight;
            }
        }
        // The kernel counts streams by peer as well, also of connections that came and went between two readings; but
        // it has figures of its own for so many peers only.
        let counted = tally.peers.get(&server);
        peer.streams = by_connection.max(counted.map_or(0, |peer| peer.now.streams));
        recent = recent.max(counted.map_or(0, super::tally::Peer::recent));
        peer.rate = tally.rate(peer.streams);
        peer.current_rate = tally.current_rate(recent);
        peer.reset = counted.map_or(0, |peer| peer.now.reset);
        peer.latency = counted
            .map_or(&Histogram::default(), |peer| &peer.now.latency)
            .latency();
        peer
    }

    fn forgotten(&self, tally: &Tally) -> Forgotten {
        let known = self
            .servers
            .iter()
            .filter_map(|server| tally.forgotten.get(server));
        known.fold(Forgotten::default(), |sum, more| Forgotten {
            connections: sum.connections + more.connections,
            streams: sum.streams + more.streams,
        })
    }

    /// What has to be put on peers whole. Streams of connections not known one by one lie on many small ones.
    fn rates(&self, forgotten: Forgotten, streams: u64) -> Vec<f64> {
        let mut rates: Vec<f64> = self
            .connections
            .iter()
            .map(|c| c.now.streams as f64)
            .collect();
        let known: u64 = self.connections.iter().map(|c| c.now.streams).sum();
        let rest = streams.saturating_sub(known);
        let pieces = forgotten.connections.clamp(1, DUST).max(rest.min(DUST));
        rates.extend((0..pieces).map(|_| rest as f64 / pieces as f64));
        rates
    }

    /// The fewest connections that carry 9 in 10 streams, and their share.
    fn carrying(&self, streams: u64) -> (u64, f64) {
        let (mut count, mut carried) = (0, 0);
        for connection in &self.connections {
            if carried * 10 >= streams * 9 {
                break;
            }
            count += 1;
            carried += connection.now.streams;
        }
        (count, skew::share(carried, streams.max(carried)))
    }

    fn top(&self, tally: &Tally, top: usize, streams: u64) -> Vec<ConnectionReport> {
        let busy = self.connections.iter().filter(|c| c.now.streams > 0);
        busy.take(top)
            .map(|connection| {
                let flow = &connection.now;
                ConnectionReport {
                    client: flow.id.client.to_string(),
                    server: flow.id.server.to_string(),
                    open: connection.open,
                    streams: flow.streams,
                    before: flow.before,
                    share: skew::share(flow.streams, streams),
                    current_rate: tally.current_rate(connection.recent()),
                    in_flight: if connection.open { flow.in_flight } else { 0 },
                    bytes_to: flow.bytes_to_server,
                    bytes_from: flow.bytes_to_client,
                }
            })
            .collect()
    }
}
