//! The figures of one group of peers.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::report::{ConnectionReport, GroupReport, Key, PeerReport, Scope};
use super::tally::{Connection, Forgotten, Peer};
use super::{Histogram, Named, Tally, verdict};
use crate::pinning::bound::bound;
use crate::pinning::skew::{self, Load};

/// A peer with less than this share of the mean got next to nothing.
const IDLE: f64 = 0.05;
/// Streams of connections that are not known one by one are taken for so many equal ones at most.
const DUST: u64 = 1000;

/// A group before its figures are taken.
#[derive(Default)]
pub(super) struct Group<'a> {
    pub(super) servers: BTreeSet<SocketAddr>,
    pub(super) connections: Vec<&'a Connection>,
}

impl Group<'_> {
    /// Takes them.
    pub(super) fn report(mut self, tally: &Tally, scope: Scope<'_>, key: Key) -> GroupReport {
        let (relation, port, named) = match key {
            Key::Port(relation, port) => (Some(relation), Some(port), None),
            Key::Named(index) => (None, None, scope.named.get(index)),
        };
        // One that was named and is not seen gets nothing.
        self.servers
            .extend(named.into_iter().flat_map(Named::servers));
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
            named: named.map(ToString::to_string),
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
            in_flight_unsure: 0,
            unfinished: 0,
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
                peer.in_flight_unsure += flow.in_flight_unsure;
                peer.unfinished += flow.unfinished;
            }
        }
        // The kernel counts streams by peer as well, also of connections that came and went between two readings; but
        // it has figures of its own for so many peers only.
        let counted = tally.peers.get(&server);
        peer.streams = by_connection.max(counted.map_or(0, |peer| peer.now.streams));
        recent = recent.max(counted.map_or(0, Peer::recent));
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
                let of_open = |streams| if connection.open { streams } else { 0 };
                ConnectionReport {
                    client: flow.id.client.to_string(),
                    server: flow.id.server.to_string(),
                    open: connection.open,
                    streams: flow.streams,
                    before: flow.before,
                    share: skew::share(flow.streams, streams),
                    current_rate: tally.current_rate(connection.recent()),
                    in_flight: of_open(flow.in_flight),
                    in_flight_unsure: of_open(flow.in_flight_unsure),
                    unfinished: of_open(flow.unfinished),
                    bytes_to: flow.bytes_to_server,
                    bytes_from: flow.bytes_to_client,
                }
            })
            .collect()
    }
}
