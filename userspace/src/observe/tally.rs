//! Readings, added up: what was seen of each connection and server, also of those that are gone.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::{Carries, FlowId, FlowReading, PeerReading, Reading};

/// Readings closer together than this say nothing of a rate: an end that was asked for may come at any moment.
const LEAST_INTERVAL: Duration = Duration::from_millis(500);

/// Most connections that are remembered one by one. Beyond, half of those that ended, the ones with the fewest
/// streams, are remembered by server only.
const MOST_CONNECTIONS: usize = 100_000;

/// A connection and how it changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Connection {
    pub(super) now: FlowReading,
    /// It is in the kernel's table and not closed.
    pub(super) open: bool,
    /// It was at the reading before.
    was_open: bool,
    /// Streams when the interval began.
    previous: u64,
}

impl Connection {
    /// Streams in the interval.
    pub(super) fn recent(&self) -> u64 {
        self.now.streams.saturating_sub(self.previous)
    }
}

/// A server and how it changed.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) now: PeerReading,
    /// Streams when the interval began.
    previous: u64,
}

impl Peer {
    /// Streams in the interval.
    pub(super) fn recent(&self) -> u64 {
        self.now.streams.saturating_sub(self.previous)
    }
}

/// Connections that are not remembered one by one any more.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Forgotten {
    pub(super) connections: u64,
    pub(super) streams: u64,
}

/// What was observed so far.
#[derive(Clone, Debug)]
pub struct Tally {
    pub(super) local: BTreeSet<IpAddr>,
    pub(super) connections: HashMap<FlowId, Connection>,
    pub(super) peers: BTreeMap<SocketAddr, Peer>,
    pub(super) forgotten: BTreeMap<SocketAddr, Forgotten>,
    pub(super) events: Vec<(&'static str, u64)>,
    /// Connections that the kernel side forgot before they ended, for others: its table was full.
    evicted: u64,
    pub(super) elapsed: Duration,
    /// When the interval began that current rates are about: at the last reading that was [`LEAST_INTERVAL`] or more
    /// before the newest.
    since: Duration,
}

impl Tally {
    /// Nothing yet, on a host with these addresses.
    #[must_use]
    pub fn new(local: BTreeSet<IpAddr>) -> Self {
        Self {
            local,
            connections: HashMap::new(),
            peers: BTreeMap::new(),
            forgotten: BTreeMap::new(),
            events: Vec::new(),
            evicted: 0,
            elapsed: Duration::ZERO,
            since: Duration::ZERO,
        }
    }

    /// Takes in a reading made `elapsed` after observation began.
    pub fn add(&mut self, reading: Reading, elapsed: Duration) {
        let moves_on = elapsed.saturating_sub(self.elapsed) >= LEAST_INTERVAL;
        if moves_on {
            self.since = self.elapsed;
        }
        self.elapsed = elapsed;
        let Reading {
            flows,
            peers,
            events,
        } = reading;
        for connection in self.connections.values_mut() {
            connection.was_open = connection.open;
            connection.open = false;
            if moves_on {
                connection.previous = connection.now.streams;
            }
        }
        for flow in &flows {
            self.take(*flow);
        }
        self.evicted += self.missing(&flows);
        for now in peers {
            let previous = self.peers.get(&now.server).map_or(0, |known| {
                if moves_on {
                    known.now.streams
                } else {
                    known.previous
                }
            });
            self.peers.insert(now.server, Peer { now, previous });
        }
        self.events = events;
        self.events.push(("flows_evicted", self.evicted));
        self.forget();
    }

    /// What current rates are about.
    pub(super) fn interval(&self) -> Duration {
        self.elapsed.saturating_sub(self.since)
    }

    /// How many of those that were open are not among `flows`, neither as ended nor with their ports used anew (which
    /// begins with a handshake).
    fn missing(&self, flows: &[FlowReading]) -> u64 {
        let gone = self.connections.iter().filter(|(_, connection)| {
            connection.was_open && !connection.open && !connection.now.closed
        });
        let mut gone: HashSet<(SocketAddr, SocketAddr)> =
            gone.map(|(id, _)| (id.client, id.server)).collect();
        if !gone.is_empty() {
            for flow in flows.iter().filter(|flow| flow.opened) {
                gone.remove(&(flow.id.client, flow.id.server));
            }
        }
        gone.len() as u64
    }

    fn take(&mut self, now: FlowReading) {
        // A connection whose client was guessed wrong at first is another one from now on.
        if now.certain && !self.connections.contains_key(&now.id) {
            let FlowId {
                client,
                server,
                tag,
            } = now.id;
            let turned = FlowId {
                client: server,
                server: client,
                tag,
            };
            self.connections.remove(&turned);
        }
        let known = self.connections.get(&now.id);
        let (previous, was_open) =
            known.map_or((0, false), |known| (known.previous, known.was_open));
        let connection = Connection {
            open: !now.closed,
            was_open,
            previous,
            now,
        };
        self.connections.insert(now.id, connection);
    }

    fn forget(&mut self) {
        if self.connections.len() <= MOST_CONNECTIONS {
            return;
        }
        let ended = self
            .connections
            .values()
            .filter(|connection| !connection.open);
        let mut ended: Vec<FlowReading> = ended.map(|connection| connection.now).collect();
        ended.sort_by_key(|flow| (flow.streams, flow.id));
        for flow in &ended[..ended.len() / 2] {
            self.connections.remove(&flow.id);
            if flow.carries == Carries::Http2 {
                let forgotten = self.forgotten.entry(flow.id.server).or_default();
                forgotten.connections += 1;
                forgotten.streams += flow.streams;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::Histogram;
    use crate::observe::tests::flow;

    fn reading(flows: Vec<FlowReading>) -> Reading {
        Reading {
            flows,
            ..Reading::default()
        }
    }

    #[test]
    fn a_connection_that_is_gone_is_remembered_as_ended() {
        let mut tally = Tally::new(BTreeSet::new());
        let seen = flow("10.0.0.1:1000", "10.0.0.2:80", 10);
        tally.add(reading(vec![seen]), Duration::from_secs(1));
        tally.add(reading(vec![]), Duration::from_secs(2));
        let connection = tally.connections[&seen.id];
        assert!(!connection.open);
        assert_eq!((connection.now.streams, connection.recent()), (10, 0));
    }

    #[test]
    fn a_connection_that_is_missing_without_having_ended_counts_as_evicted() {
        let evicted = |second: Vec<FlowReading>| {
            let mut tally = Tally::new(BTreeSet::new());
            let first = flow("10.0.0.1:1000", "10.0.0.2:80", 10);
            tally.add(reading(vec![first]), Duration::from_secs(1));
            tally.add(reading(second), Duration::from_secs(2));
            tally.add(reading(vec![]), Duration::from_secs(3));
            tally.evicted
        };
        let seen = flow("10.0.0.1:1000", "10.0.0.2:80", 10);
        let ended = FlowReading {
            closed: true,
            ..seen
        };
        let mut anew = ended;
        anew.id.tag += 1;
        assert_eq!(evicted(vec![]), 1, "missing, and once");
        assert_eq!(evicted(vec![ended]), 0, "ended");
        assert_eq!(evicted(vec![anew]), 0, "its ports were used anew");
        anew.opened = false;
        assert_eq!(evicted(vec![anew]), 1, "it came back");
    }

    #[test]
    fn what_is_new_since_the_reading_before_is_recent() {
        let mut tally = Tally::new(BTreeSet::new());
        for (second, streams) in [(1, 10), (2, 25)] {
            let seen = flow("10.0.0.1:1000", "10.0.0.2:80", streams);
            tally.add(reading(vec![seen]), Duration::from_secs(second));
        }
        let recent: Vec<_> = tally.connections.values().map(Connection::recent).collect();
        assert_eq!(recent, [15]);
    }

    #[test]
    fn an_end_just_after_a_reading_does_not_make_a_rate_of_a_sliver() {
        let mut tally = Tally::new(BTreeSet::new());
        let server = "10.0.0.2:80".parse().unwrap();
        for (milliseconds, streams) in [(1000, 1000), (2000, 2000), (2001, 2010)] {
            let mut now = reading(vec![flow("10.0.0.1:1000", "10.0.0.2:80", streams)]);
            now.peers.push(PeerReading {
                server,
                streams,
                reset: 0,
                latency: Histogram::default(),
            });
            tally.add(now, Duration::from_millis(milliseconds));
        }
        assert_eq!(tally.interval(), Duration::from_millis(1001));
        let connection = tally.connections.values().next().unwrap();
        assert_eq!(connection.recent(), 1010);
        assert_eq!(tally.peers[&server].recent(), 1010);
        assert_eq!(tally.elapsed, Duration::from_millis(2001));
    }

    #[test]
    fn a_client_that_was_guessed_wrong_is_not_counted_twice() {
        let mut tally = Tally::new(BTreeSet::new());
        let mut guessed = flow("10.0.0.2:80", "10.0.0.1:1000", 0);
        guessed.certain = false;
        tally.add(reading(vec![guessed]), Duration::from_secs(1));
        let known = flow("10.0.0.1:1000", "10.0.0.2:80", 5);
        tally.add(reading(vec![known]), Duration::from_secs(2));
        assert_eq!(tally.connections.len(), 1);
    }

    #[test]
    fn connections_without_end_do_not_fill_memory() {
        let mut tally = Tally::new(BTreeSet::new());
        let mut total = 0;
        for round in 0..3_u32 {
            let flows = (0..50_000_u32).map(|n| {
                let mut seen = flow("10.0.0.1:1000", "10.0.0.2:80", 2);
                seen.id.tag = round * 50_000 + n;
                seen.closed = true;
                seen
            });
            total += 50_000;
            tally.add(reading(flows.collect()), Duration::from_secs(round.into()));
        }
        let forgotten = tally.forgotten[&"10.0.0.2:80".parse().unwrap()];
        assert!(tally.connections.len() <= MOST_CONNECTIONS);
        assert_eq!(
            tally.connections.len() as u64 + forgotten.connections,
            total
        );
        assert_eq!(forgotten.streams, 2 * forgotten.connections);
    }
}
