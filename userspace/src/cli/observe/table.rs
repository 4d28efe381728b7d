//! The report as text.

use crate::cli::output::{Paint, Side, Table, bar};
use crate::cli::units::{bytes, count, counted, figure, percent, seconds};
use crate::observe::{ConnectionReport, GroupReport, Latency, OtherTraffic, PeerReport, Report};

/// How the report is shown.
#[derive(Clone, Copy)]
pub(super) struct Style {
    pub(super) paint: Paint,
    /// With the distribution of each peer's latencies.
    pub(super) histograms: bool,
}

/// Characters of a full bar.
const BAR: usize = 20;
/// As in the verdict.
const LEVEL: f64 = 1.1;
const PINNED: f64 = 1.5;
/// Peers of a group that are listed.
const MOST_PEERS: usize = 20;

/// What is shown while observation goes on: the verdict comes first, as the end may not fit.
pub(super) fn live(report: &Report, style: Style) -> String {
    let paint = style.paint;
    let mut text = format!(
        "{}  Ctrl-C ends with the report\n{}\n\n",
        paint.bold(&format!("observed for {}", seconds(report.seconds))),
        report.verdict
    );
    text.push_str(&body(report, style));
    text
}

/// What is printed at the end.
pub(super) fn last(report: &Report, style: Style) -> String {
    let mut text = body(report, style);
    text.push_str(&format!(
        "observed for {}\n{}\n",
        seconds(report.seconds),
        style.paint.bold(&report.verdict)
    ));
    text
}

fn body(report: &Report, style: Style) -> String {
    let mut text = String::new();
    for group in &report.groups {
        text.push_str(&render_group(group, style));
        // The first group's verdict is the report's.
        if report.verdict != group.verdict {
            text.push_str(&format!("  {}\n", group.verdict));
        }
        text.push('\n');
    }
    let OtherTraffic {
        tls,
        other,
        unknown,
    } = report.other;
    if tls + other + unknown > 0 {
        text.push_str(&format!(
            "besides: {} with TLS (opaque), {} with something else, {} that could not be told\n",
            counted(tls, "connection"),
            count(other),
            count(unknown)
        ));
    }
    if !report.events.is_empty() {
        let events = report.events.iter();
        let events = events.map(|event| format!("{} {}", event.name, count(event.count)));
        text.push_str(&format!(
            "events: {}\n",
            events.collect::<Vec<_>>().join(", ")
        ));
    }
    text
}

fn render_group(group: &GroupReport, style: Style) -> String {
    let paint = style.paint;
    let relation = group.relation.map(|relation| relation.to_string());
    let mut text = format!(
        "{}  {}\n{}\n",
        paint.bold(&group.title()),
        paint.dim(&relation.unwrap_or_default()),
        headline(group, paint)
    );
    text.push_str(&peers(group).render("  ", paint));
    if group.peers.len() > MOST_PEERS {
        let more = (group.peers.len() - MOST_PEERS) as u64;
        text.push_str(&format!("  and {}\n", counted(more, "more peer")));
    }
    if style.histograms {
        for peer in group.peers.iter().take(MOST_PEERS) {
            if let Some(latency) = &peer.latency {
                text.push_str(&format!("  latency of {}\n", peer.address));
                text.push_str(&histogram(latency).render("    ", paint));
            }
        }
    }
    if !group.top.is_empty() {
        text.push_str(&connections(&group.top).render("  ", paint));
    }
    text
}

/// Latencies by powers of two.
fn histogram(latency: &Latency) -> Table {
    let mut table = Table::new(&[
        ("BELOW", Side::Right),
        ("STREAMS", Side::Right),
        ("SHARE", Side::Right),
        ("", Side::Left),
    ]);
    for octave in latency.octaves() {
        let share = octave.count as f64 / latency.count.max(1) as f64;
        table.row(vec![
            time(octave.below_us),
            count(octave.count),
            percent(share),
            bar(share, BAR),
        ]);
    }
    table
}

fn headline(group: &GroupReport, paint: Paint) -> String {
    let Some(hot) = group.hot_factor else {
        return format!("  no streams, {}", counted(group.connections, "connection"));
    };
    let text = figure(Some(hot));
    let text = match hot {
        _ if group.peer_count < 2 => text,
        hot if hot <= LEVEL => paint.good(&text),
        hot if hot < PINNED => paint.warn(&text),
        _ => paint.bad(&text),
    };
    format!(
        "  {} on {}: {} streams/s now, hot factor {text} (L4 at best {}), fairness {}",
        counted(group.streams, "stream"),
        counted(group.connections, "connection"),
        count(group.current_rate.round() as u64),
        figure(group.l4_lower_bound),
        figure(group.fairness)
    )
}

fn peers(group: &GroupReport) -> Table {
    let mut table = Table::new(&[
        ("PEER", Side::Left),
        ("CONNS", Side::Right),
        ("STREAMS", Side::Right),
        ("BEFORE", Side::Right),
        ("STREAMS/S", Side::Right),
        ("IN FLIGHT", Side::Right),
        ("P50", Side::Right),
        ("P99", Side::Right),
        ("TO", Side::Right),
        ("FROM", Side::Right),
        ("SHARE", Side::Right),
        ("", Side::Left),
    ]);
    for peer in group.peers.iter().take(MOST_PEERS) {
        let PeerReport {
            address,
            open,
            connections,
            streams,
            before,
            current_rate,
            share,
            idle,
            in_flight,
            in_flight_unsure,
            bytes_to,
            bytes_from,
            latency,
            ..
        } = peer;
        table.row(vec![
            address.clone(),
            format!("{open}/{connections}"),
            count(*streams),
            count(*before),
            count(current_rate.round() as u64),
            in_flight_text(*in_flight, *in_flight_unsure),
            latency_text(latency.as_ref(), |latency| latency.p50_us),
            latency_text(latency.as_ref(), |latency| latency.p99_us),
            bytes(*bytes_to),
            bytes(*bytes_from),
            percent(*share),
            if *idle {
                "idle".to_owned()
            } else {
                bar(*share, BAR)
            },
        ]);
    }
    table
}

fn connections(top: &[ConnectionReport]) -> Table {
    let mut table = Table::new(&[
        ("HEAVIEST CONNECTIONS", Side::Left),
        ("PEER", Side::Left),
        ("STREAMS", Side::Right),
        ("BEFORE", Side::Right),
        ("STREAMS/S", Side::Right),
        ("IN FLIGHT", Side::Right),
        ("SHARE", Side::Right),
    ]);
    for connection in top {
        let closed = if connection.open { "" } else { " (closed)" };
        table.row(vec![
            format!("{}{closed}", connection.client),
            connection.server.clone(),
            count(connection.streams),
            count(connection.before),
            count(connection.current_rate.round() as u64),
            in_flight_text(connection.in_flight, connection.in_flight_unsure),
            percent(connection.share),
        ]);
    }
    table
}

/// A range where segments were passed over.
fn in_flight_text(most: u64, unsure: u64) -> String {
    match unsure {
        0 => count(most),
        _ => format!("{}-{}", count(most.saturating_sub(unsure)), count(most)),
    }
}

fn latency_text(latency: Option<&Latency>, of: impl Fn(&Latency) -> f64) -> String {
    latency.map_or_else(|| "-".to_owned(), |latency| time(of(latency)))
}

fn time(us: f64) -> String {
    match us {
        us if us < 1000.0 => format!("{us:.0} us"),
        us if us < 1e6 => format!("{:.1} ms", us / 1e3),
        us => format!("{:.1} s", us / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::{histogram, in_flight_text};
    use crate::cli::output::Paint;
    use crate::observe::{Bucket, Latency};

    #[test]
    fn latencies_are_shown_by_powers_of_two_with_the_gaps_between() {
        let bucket = |from_us: f64, count| Bucket {
            from_us,
            below_us: from_us * 17.0 / 16.0,
            count,
        };
        let latency = Latency {
            count: 8,
            mean_us: 0.0,
            p50_us: 0.0,
            p90_us: 0.0,
            p99_us: 0.0,
            p999_us: 0.0,
            histogram: vec![bucket(524.288, 4), bucket(557.056, 2), bucket(2_097.152, 2)],
        };
        let text = histogram(&latency).render("", Paint { on: false });
        let rows: Vec<Vec<&str>> = text
            .lines()
            .skip(1)
            .map(|line| line.split_whitespace().take(5).collect())
            .collect();
        assert_eq!(
            rows,
            [
                vec!["1.0", "ms", "6", "75.0", "%"],
                vec!["2.1", "ms", "0", "0.0", "%"],
                vec!["4.2", "ms", "2", "25.0", "%"],
            ],
            "{text}"
        );
    }

    #[test]
    fn streams_in_flight_are_a_range_where_segments_were_passed_over() {
        assert_eq!(in_flight_text(12, 0), "12");
        assert_eq!(in_flight_text(12, 9), "3-12");
    }
}
