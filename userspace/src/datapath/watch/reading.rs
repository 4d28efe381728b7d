//! What the kernel's tables say of a connection and of a server, in terms of [`crate::observe`].

use std::net::SocketAddr;

use evenkeel_ebpf::abi::{Tuple, http2_phase as phase};
use evenkeel_ebpf::http2::flag;
use evenkeel_ebpf::watch::{Half, PeerStats, Watched, baseline, client};

use crate::datapath::address::socket_of;
use crate::observe::{Carries, FlowId, FlowReading, Histogram, PeerReading};

pub(super) fn peer_reading(server: SocketAddr, stats: &PeerStats) -> PeerReading {
    let PeerStats {
        streams,
        reset,
        nanoseconds,
        buckets,
    } = stats;
    PeerReading {
        server,
        streams: *streams,
        reset: *reset,
        latency: Histogram {
            buckets: buckets.to_vec(),
            nanoseconds: *nanoseconds,
        },
    }
}

pub(super) fn flow_reading(key: &Tuple, flow: &Watched) -> FlowReading {
    let source = socket_of(&key.source, key.source_port);
    let destination = socket_of(&key.destination, key.destination_port);
    let from_source = match flow.client {
        client::SOURCE => true,
        client::DESTINATION => false,
        // A guess, for connections that nothing is counted of: servers mostly have the lower port.
        _ => source.port() >= destination.port(),
    };
    let (to_server, to_client) = if from_source {
        (&flow.forward, &flow.backward)
    } else {
        (&flow.backward, &flow.forward)
    };
    let (client, server) = if from_source {
        (source, destination)
    } else {
        (destination, source)
    };
    let certain = flow.client != client::UNKNOWN;
    let carries = carries(to_server, certain);
    let http2 = carries == Carries::Http2;
    let (before, since) = to_server.before_and_since();
    FlowReading {
        id: FlowId {
            client,
            server,
            tag: flow.tag,
        },
        certain,
        carries,
        received: is_received(to_server, to_client),
        opened: flow.opened != 0,
        closed: flow.is_closed(),
        streams: if http2 { since.into() } else { 0 },
        before: if http2 { before.into() } else { 0 },
        in_flight: u64::from(
            to_server
                .begun
                .saturating_sub(to_client.ended)
                .saturating_sub(to_client.reset)
                .saturating_sub(to_server.reset),
        ),
        in_flight_unsure: 0,
        unfinished: 0,
        bytes_to_server: to_server.bytes,
        bytes_to_client: to_client.bytes,
    }
}

/// Whether the client's packets come in where the flow was first seen; if none was, whether its server's go out.
fn is_received(to_server: &Half, to_client: &Half) -> bool {
    const OUT: u32 = 1;
    if to_server.place == 0 {
        to_client.place & OUT != 0
    } else {
        to_server.place & OUT == 0
    }
}

/// What the client's direction says.
fn carries(to_server: &Half, certain: bool) -> Carries {
    let state = &to_server.http2;
    match state.phase {
        phase::TLS => Carries::Tls,
        phase::OTHER => Carries::Other,
        _ if certain
            && to_server.baseline != baseline::NONE
            && state.flags & flag::RECOGNISED != 0 =>
        {
            Carries::Http2
        }
        _ => Carries::Unknown,
    }
}
