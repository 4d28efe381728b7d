use std::collections::BTreeSet;
use std::time::Duration;

use super::{
    Carries, FlowId, FlowReading, Histogram, PeerReading, Reading, Relation, Report, Scope, Tally,
};

const SCOPE: Scope<'_> = Scope {
    top: 3,
    peers: None,
    named: &[],
};

pub(super) fn flow(client: &str, server: &str, streams: u64) -> FlowReading {
    FlowReading {
        id: FlowId {
            client: client.parse().unwrap(),
            server: server.parse().unwrap(),
            tag: 7,
        },
        certain: true,
        carries: Carries::Http2,
        received: true,
        opened: true,
        closed: false,
        streams,
        before: 0,
        in_flight: 1,
        in_flight_unsure: 0,
        unfinished: 0,
        bytes_to_server: 100,
        bytes_to_client: 200,
    }
}

fn report(flows: Vec<FlowReading>, scope: Scope<'_>) -> Report {
    let mut tally = Tally::new(BTreeSet::from(["10.0.0.1".parse().unwrap()]));
    let reading = Reading {
        flows,
        ..Reading::default()
    };
    tally.add(reading, Duration::from_secs(10));
    Report::new(&tally, scope)
}

/// 40 connections to four peers, of which three carry nine tenths.
fn heavy() -> Vec<FlowReading> {
    (0..40_u32)
        .map(|n| {
            let streams = if n < 3 { 30_300 } else { 245 };
            let client = format!("10.0.0.1:{}", 40_000 + n);
            flow(&client, &format!("10.0.1.{}:50051", n % 4 + 1), streams)
        })
        .collect()
}

#[test]
fn the_verdict_has_its_evidence_and_the_bound() {
    let report = report(heavy(), SCOPE);
    let group = &report.groups[0];
    assert_eq!((group.connections, group.carrying), (40, 3));
    assert!(
        (group.carrying_share - 0.909).abs() < 0.001,
        "{}",
        group.carrying_share
    );
    let lower = group.l4_lower_bound.unwrap();
    // The largest connection alone: 30,300 of a mean of 24,991.
    assert!((lower - 1.212).abs() < 0.001, "{lower}");
    assert!(
        report
            .verdict
            .contains("3 of 40 connections carry 91 % of RPCs")
            && report
                .verdict
                .contains("no L4 policy can get below hot factor 1.21")
            && report.verdict.contains("stream balancing would be 1.0"),
        "{}",
        report.verdict
    );
    assert_eq!(group.top.len(), 3);
    assert!((group.rate - 9996.5).abs() < 0.1, "{}", group.rate);
}

#[test]
fn a_placement_that_could_be_better_is_the_policys_fault() {
    let flows = vec![
        flow("10.0.0.1:1", "10.0.1.1:80", 500),
        flow("10.0.0.1:2", "10.0.1.1:80", 500),
        flow("10.0.0.1:3", "10.0.1.2:80", 1),
    ];
    let report = report(flows, SCOPE);
    assert!(report.verdict.starts_with("Pinned"), "{}", report.verdict);
    assert!(
        report.verdict.contains("the policy is to blame"),
        "{}",
        report.verdict
    );
}

#[test]
fn even_peers_are_called_level() {
    let flows = (1..5)
        .map(|n| flow("10.0.0.1:1", &format!("10.0.1.{n}:80"), 1000))
        .collect();
    let report = report(flows, SCOPE);
    assert!(report.verdict.starts_with("Level"), "{}", report.verdict);
    assert_eq!(report.groups[0].fairness, Some(1.0));
}

#[test]
fn one_peer_tells_nothing_of_others_unless_their_number_is_given() {
    let flows = vec![flow("10.0.0.9:1", "10.0.0.1:80", 1000)];
    let alone = report(flows.clone(), SCOPE);
    assert!(
        alone.verdict.starts_with("All 1000 RPCs go to one peer"),
        "{}",
        alone.verdict
    );
    let four = Scope {
        peers: Some(4),
        ..SCOPE
    };
    let group = &report(flows, four).groups[0];
    assert_eq!(group.hot_factor, Some(4.0));
    assert_eq!(group.l4_lower_bound, Some(4.0));
}

#[test]
fn what_comes_in_is_not_mixed_with_what_goes_out() {
    let flows = vec![
        flow("10.0.9.9:1", "10.0.0.1:80", 1000),
        flow("10.0.0.1:2", "10.0.1.1:80", 600),
        flow("10.0.0.1:3", "10.0.1.2:80", 400),
    ];
    let report = report(flows, SCOPE);
    let groups: Vec<_> = report
        .groups
        .iter()
        .map(|group| (group.relation, group.peers.len(), group.streams))
        .collect();
    assert_eq!(
        groups,
        [
            (Some(Relation::Outgoing), 2, 1000),
            (Some(Relation::Incoming), 1, 1000)
        ]
    );
}

#[test]
fn both_legs_of_a_connection_that_a_gateway_rewrites_are_not_compared() {
    let to_service = |port| flow(&format!("10.0.9.9:{port}"), "10.0.8.1:80", 500);
    let to_backend = |port, backend| FlowReading {
        received: false,
        ..flow(&format!("10.0.9.9:{port}"), backend, 500)
    };
    let flows = vec![
        to_service(1),
        to_backend(1, "10.0.1.1:80"),
        to_service(2),
        to_backend(2, "10.0.1.2:80"),
    ];
    let report = report(flows, SCOPE);
    let groups: Vec<_> = report
        .groups
        .iter()
        .map(|group| (group.relation, group.streams, group.hot_factor))
        .collect();
    assert_eq!(
        groups,
        [
            (Some(Relation::ThroughReceived), 1000, Some(1.0)),
            (Some(Relation::ThroughSent), 1000, Some(1.0))
        ]
    );
}

#[test]
fn named_peers_are_compared_whatever_their_ports_and_with_nobody_else() {
    let named = [
        "127.0.0.1:50051,127.0.0.1:50052,127.0.0.1:50053"
            .parse()
            .unwrap(),
        "10.0.1.1,10.0.1.2".parse().unwrap(),
    ];
    let flows = vec![
        flow("127.0.0.1:1", "127.0.0.1:50051", 300),
        flow("127.0.0.1:2", "127.0.0.1:50052", 300),
        flow("10.0.0.1:3", "10.0.1.1:80", 200),
        flow("10.0.0.1:4", "10.0.1.2:80", 200),
        flow("10.0.0.1:5", "10.0.1.3:80", 100),
    ];
    let scope = Scope {
        named: &named,
        ..SCOPE
    };
    let report = report(flows, scope);
    let groups: Vec<_> = report
        .groups
        .iter()
        .map(|group| (group.title(), group.streams, group.hot_factor))
        .collect();
    assert_eq!(
        groups,
        [
            // The third was named, and is not seen.
            (
                "group 127.0.0.1:50051,127.0.0.1:50052,127.0.0.1:50053".to_owned(),
                600,
                Some(1.5)
            ),
            ("group 10.0.1.1,10.0.1.2".to_owned(), 400, Some(1.0)),
            ("port 80".to_owned(), 100, Some(1.0)),
        ]
    );
}

#[test]
fn a_peer_whose_connections_carry_nothing_is_idle() {
    let mut silent = flow("10.0.0.1:4", "10.0.1.3:80", 0);
    silent.carries = Carries::Unknown;
    let flows = vec![
        flow("10.0.0.1:2", "10.0.1.1:80", 500),
        flow("10.0.0.1:3", "10.0.1.2:80", 500),
        silent,
    ];
    let group = &report(flows, SCOPE).groups[0];
    assert_eq!(group.hot_factor, Some(1.5));
    assert!(group.peers[2].idle && group.peers[2].address == "10.0.1.3:80");
    assert!(
        group.verdict.contains("1 of 3 peers got next to nothing"),
        "{}",
        group.verdict
    );
}

#[test]
fn other_traffic_counts_no_streams_and_is_named() {
    let kinds = [
        Carries::Tls,
        Carries::Other,
        Carries::Other,
        Carries::Unknown,
    ];
    let flows = kinds.iter().zip(1..).map(|(carries, port)| {
        let mut flow = flow(&format!("10.0.0.1:{port}"), "10.0.1.1:443", 0);
        flow.carries = *carries;
        flow
    });
    let report = report(flows.collect(), SCOPE);
    assert!(report.groups.is_empty());
    assert_eq!(
        (report.other.tls, report.other.other, report.other.unknown),
        (1, 2, 1)
    );
    assert!(
        report.verdict.contains("1 with TLS, which is opaque"),
        "{}",
        report.verdict
    );
    let nothing = super::tests::report(Vec::new(), SCOPE);
    assert_eq!(nothing.verdict, "No RPC was seen: no TCP connection was.");
}

#[test]
fn what_was_not_looked_at_is_told_where_nothing_else_was_seen() {
    let verdict = |flows, events| {
        let mut tally = Tally::new(BTreeSet::new());
        let reading = Reading {
            flows,
            events,
            ..Reading::default()
        };
        tally.add(reading, Duration::from_secs(1));
        Report::new(&tally, SCOPE).verdict
    };
    let events = || vec![("ipv6", 12), ("tagged", 3)];
    let nothing = verdict(Vec::new(), events());
    assert_eq!(
        nothing,
        "No RPC was seen, and no TCP connection that is looked at; TCP packets not looked at: 12 over IPv6, 3 with a \
         VLAN tag (observe the VLAN's own interface)."
    );
    let mut tls = flow("10.0.0.1:1", "10.0.1.1:443", 0);
    tls.carries = Carries::Tls;
    let besides = verdict(vec![tls], vec![("ipv6", 12), ("tagged", 0)]);
    assert!(
        besides.contains("1 with TLS, which is opaque; TCP packets not looked at: 12 over IPv6."),
        "{besides}"
    );
}

#[test]
fn streams_of_connections_between_readings_count_for_their_peer() {
    let mut tally = Tally::new(BTreeSet::new());
    let server = "10.0.1.1:80".parse().unwrap();
    let reading = Reading {
        flows: vec![flow("10.0.0.1:1", "10.0.1.1:80", 10)],
        peers: vec![PeerReading {
            server,
            streams: 1010,
            reset: 3,
            latency: Histogram::default(),
        }],
        events: vec![("resync", 2), ("bound", 0)],
    };
    tally.add(reading, Duration::from_secs(1));
    let report = Report::new(&tally, SCOPE);
    let peer = &report.groups[0].peers[0];
    assert_eq!((peer.streams, peer.reset), (1010, 3));
    assert_eq!(report.events.len(), 1);
}

#[test]
fn a_report_survives_json() {
    let report = report(heavy(), SCOPE);
    let text = serde_json::to_string(&report).unwrap();
    let back: Report = serde_json::from_str(&text).unwrap();
    assert_eq!(back.verdict, report.verdict);
    assert_eq!(back.groups.len(), report.groups.len());
}

#[test]
fn what_is_unsure_of_streams_in_flight_is_told_and_ended_connections_have_none() {
    let mut flows: Vec<FlowReading> = (0..3)
        .map(|n| flow(&format!("10.0.0.1:{}", 1000 + n), "10.0.0.2:80", 10))
        .collect();
    for flow in &mut flows {
        flow.in_flight = 5;
        flow.in_flight_unsure = 2;
        flow.unfinished = 7;
    }
    flows[2].closed = true;
    let report = report(flows, SCOPE);
    let peer = &report.groups[0].peers[0];
    let told = (peer.in_flight, peer.in_flight_unsure, peer.unfinished);
    assert_eq!(told, (10, 4, 14));
    let top = &report.groups[0].top;
    let told = |top: &crate::observe::ConnectionReport| {
        (top.in_flight, top.in_flight_unsure, top.unfinished)
    };
    let told: Vec<_> = top.iter().map(told).collect();
    assert_eq!(told, [(5, 2, 7), (5, 2, 7), (0, 0, 0)]);
}
