//! The report: what `evenkeel observe` prints, as a table or as JSON.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::group::Group;
use super::tally::Connection;
use super::{Carries, Latency, Named, Relation, Tally, verdict};

/// How the report is to be taken.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// Heaviest connections to list in each group.
    pub top: usize,
    /// How many peers a group really has, where more is known than what was seen.
    pub peers: Option<usize>,
    /// Peers that are groups of their own.
    pub named: &'a [Named],
}

/// What the peers of a group have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// They were named: index in [`Scope::named`].
    Named(usize),
    /// Their port, and what their connections have to do with this host.
    Port(Relation, u16),
}

/// What was observed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Seconds of observation.
    pub seconds: f64,
    /// Peers that are compared, busiest group first.
    pub groups: Vec<GroupReport>,
    /// Connections without clear-text HTTP/2.
    pub other: OtherTraffic,
    /// What went wrong in the kernel, or was not looked at there, where anything was.
    pub events: Vec<Event>,
    /// The answer, in words.
    pub verdict: String,
}

/// Something that went wrong or was not looked at, and how often.
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

/// Peers that are compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GroupReport {
    /// What its connections have to do with this host; absent of peers that were named.
    pub relation: Option<Relation>,
    /// The peers' port; absent of peers that were named.
    pub port: Option<u16>,
    /// The peers as they were named, if they were.
    pub named: Option<String>,
    /// Peers that the figures are about: those seen, or as many as were said to be.
    pub peer_count: usize,
    /// HTTP/2 connections seen.
    pub connections: u64,
    /// Streams opened while they were observed.
    pub streams: u64,
    /// Streams per second since the beginning.
    pub rate: f64,
    /// Streams per second of late: since the last reading that was half a second or more before.
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
    /// Streams per second of late: since the last reading that was half a second or more before.
    pub current_rate: f64,
    /// Share of the group's streams, 0 to 1.
    pub share: f64,
    /// It got next to nothing.
    pub idle: bool,
    /// Streams that wait for their answer, as far as was seen: that many at most.
    pub in_flight: u64,
    /// Of those, streams whose end may have been in a segment around a loss.
    pub in_flight_unsure: u64,
    /// Such streams that began over 69 s ago: they are taken for ended, and are not in flight.
    pub unfinished: u64,
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
    /// Streams per second of late: since the last reading that was half a second or more before.
    pub current_rate: f64,
    /// Streams that wait for their answer, as far as was seen: that many at most.
    pub in_flight: u64,
    /// Of those, streams whose end may have been in a segment around a loss.
    pub in_flight_unsure: u64,
    /// Such streams that began over 69 s ago: they are taken for ended, and are not in flight.
    pub unfinished: u64,
    /// Bytes to the server.
    pub bytes_to: u64,
    /// Bytes from the server.
    pub bytes_from: u64,
}

impl GroupReport {
    /// What the peers have in common, in words.
    #[must_use]
    pub fn title(&self) -> String {
        match (&self.named, self.port) {
            (Some(named), _) => format!("group {named}"),
            (None, port) => format!("port {}", port.unwrap_or(0)),
        }
    }
}

impl Report {
    /// Takes the figures.
    #[must_use]
    pub fn new(tally: &Tally, scope: Scope<'_>) -> Self {
        let mut groups: BTreeMap<Key, Group<'_>> = BTreeMap::new();
        let mut other = OtherTraffic::default();
        let mut quiet = Vec::new();
        for connection in tally.connections.values() {
            match connection.now.carries {
                Carries::Http2 => {
                    let group = groups.entry(tally.group_of(connection, scope)).or_default();
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
            match groups.get_mut(&tally.group_of(connection, scope)) {
                Some(group) if connection.now.certain => {
                    group.servers.insert(connection.now.id.server);
                }
                _ => other.unknown += 1,
            }
        }
        let mut groups: Vec<GroupReport> = groups
            .into_iter()
            .map(|(key, group)| group.report(tally, scope, key))
            .collect();
        // Groups with as many streams stay in the order of their keys.
        groups.sort_by_key(|group| std::cmp::Reverse(group.streams));
        let events = tally.events.iter().filter(|(_, count)| *count > 0);
        let events: Vec<Event> = events
            .map(|(name, count)| Event {
                name: (*name).to_owned(),
                count: *count,
            })
            .collect();
        Self {
            seconds: tally.elapsed.as_secs_f64(),
            verdict: verdict::overall(&groups, other, &events),
            groups,
            other,
            events,
        }
    }
}

impl Tally {
    fn group_of(&self, connection: &Connection, scope: Scope<'_>) -> Key {
        let id = connection.now.id;
        if let Some(named) = scope.named.iter().position(|named| named.has(id.server)) {
            return Key::Named(named);
        }
        Key::Port(
            Relation::of(id.client, id.server, connection.now.received, &self.local),
            id.server.port(),
        )
    }

    /// Streams per second since the beginning.
    pub(super) fn rate(&self, streams: u64) -> f64 {
        per_second(streams, self.elapsed.as_secs_f64())
    }

    /// Streams per second in the interval.
    pub(super) fn current_rate(&self, streams: u64) -> f64 {
        per_second(streams, self.interval().as_secs_f64())
    }
}

fn per_second(streams: u64, seconds: f64) -> f64 {
    if seconds > 0.0 {
        streams as f64 / seconds
    } else {
        0.0
    }
}
