//! The answer in a sentence, with its evidence.

use super::{Event, GroupReport, OtherTraffic};

/// Up to this hot factor peers are level.
const LEVEL: f64 = 1.1;
/// Over this one they are pinned.
const PINNED: f64 = 1.5;

/// The answer for all groups: the busiest one's, or what there was instead of streams.
pub(super) fn overall(groups: &[GroupReport], other: OtherTraffic, events: &[Event]) -> String {
    if let Some(busiest) = groups.iter().find(|group| group.streams > 0) {
        return busiest.verdict.clone();
    }
    let OtherTraffic {
        tls,
        other,
        unknown,
    } = other;
    let found = [
        (tls, "with TLS, which is opaque"),
        (other, "with something else"),
        (unknown, "without anything that could be told"),
    ];
    let mut seen: Vec<String> = found
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    let idle: u64 = groups.iter().map(|group| group.connections).sum();
    if idle > 0 {
        seen.insert(0, format!("{idle} with HTTP/2 that opened no stream"));
    }
    let passed_over = passed_over(events);
    if !seen.is_empty() {
        return format!(
            "No RPC was seen; connections: {}{passed_over}.",
            seen.join(", ")
        );
    }
    if passed_over.is_empty() {
        return "No RPC was seen: no TCP connection was.".to_owned();
    }
    format!("No RPC was seen, and no TCP connection that is looked at{passed_over}.")
}

/// What may have carried RPCs and was not looked at.
fn passed_over(events: &[Event]) -> String {
    let kinds = [
        ("ipv6", "over IPv6"),
        (
            "tagged",
            "with a VLAN tag (observe the VLAN's own interface)",
        ),
    ];
    let counts = kinds.iter().filter_map(|(name, what)| {
        let event = events.iter().find(|event| event.name == *name)?;
        Some(format!("{} {what}", event.count))
    });
    let counts: Vec<String> = counts.collect();
    if counts.is_empty() {
        return String::new();
    }
    format!("; TCP packets not looked at: {}", counts.join(", "))
}

/// The answer for one group.
pub(super) fn of(group: &GroupReport) -> String {
    let (Some(hot), Some(lower), Some(achievable)) =
        (group.hot_factor, group.l4_lower_bound, group.l4_achievable)
    else {
        return format!("No RPC was seen to {}.", group.title());
    };
    let busiest = group.peers.first().map_or("", |peer| &peer.address);
    if group.peer_count < 2 {
        return format!(
            "All {} RPCs go to one peer, {busiest}: {}. Whether others get less cannot be seen from here (--peers N \
             says how many there are).",
            group.streams,
            carrying(group),
        );
    }
    let idle =
        group.peers.iter().filter(|peer| peer.idle).count() + group.peer_count - group.peers.len();
    let idle = match idle {
        0 => String::new(),
        idle => format!(", {idle} of {} peers got next to nothing", group.peer_count),
    };
    let word = if hot <= LEVEL {
        "Level"
    } else if hot < PINNED {
        "Uneven"
    } else {
        "Pinned"
    };
    format!(
        "{word}: the busiest of {} peers, {busiest}, gets {hot:.2} times the mean (hot factor {hot:.2}){idle}. {}; {}.",
        group.peer_count,
        carrying(group),
        limits(hot, lower, achievable),
    )
}

/// How few connections carry how much.
fn carrying(group: &GroupReport) -> String {
    let GroupReport {
        connections,
        carrying,
        carrying_share,
        ..
    } = group;
    match (carrying, connections) {
        (_, 1) => "one connection carries all of them".to_owned(),
        (1, _) => format!(
            "1 of {connections} connections carries {:.0} % of RPCs",
            100.0 * carrying_share
        ),
        _ => format!(
            "{carrying} of {connections} connections carry {:.0} % of RPCs",
            100.0 * carrying_share
        ),
    }
}

/// What could be had instead.
fn limits(hot: f64, lower: f64, achievable: f64) -> String {
    let streams = "stream balancing would be 1.0";
    if lower > LEVEL {
        format!(
            "with these connections no L4 policy can get below hot factor {lower:.2}; {streams}"
        )
    } else if achievable < hot - 0.05 {
        format!(
            "another placement of the same connections has hot factor {achievable:.2}, so the policy is to blame more \
             than the connections; {streams}"
        )
    } else {
        format!("L4 policies cannot do much better with these connections; {streams}")
    }
}
