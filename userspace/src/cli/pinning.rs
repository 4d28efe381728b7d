//! `evenkeel pinning`: the report that the whole tool is about.

use std::time::Duration;

use super::output::{Paint, Side, Table, bar, print, print_json, print_json_line};
use super::units::{count, counted, figure, parse_duration, percent};
use super::{Global, new_page};
use crate::api::client::{Client, encode};
use crate::pinning::{PinningReport, ServicePinning};

/// The interval of `--watch` without `--for`.
const WATCH: Duration = Duration::from_secs(2);
/// Characters of a full bar.
const BAR: usize = 30;
/// Up to here streams are called level; over the default threshold of mode `auto` they are called pinned.
const LEVEL: f64 = 1.1;
const PINNED: f64 = 1.5;

/// Arguments of `evenkeel pinning`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Only this service.
    #[arg(value_name = "SERVICE")]
    name: Option<String>,
    /// Only this service.
    #[arg(long, value_name = "SERVICE", conflicts_with = "name")]
    service: Option<String>,
    /// Measure an interval that begins now, such as 5s; otherwise the figures are since load.
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    interval: Option<Duration>,
    /// Measure one interval after the other until interrupted.
    #[arg(long)]
    watch: bool,
}

pub(super) fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let client = global.client()?;
    let paint = Paint {
        on: global.coloured(),
    };
    if !args.watch {
        let report = fetch(args, args.interval, &client)?;
        return if global.json {
            print_json(&report)
        } else {
            print(&render(&report, args.interval, paint))
        };
    }
    let interval = args.interval.unwrap_or(WATCH);
    loop {
        let report = fetch(args, Some(interval), &client)?;
        if global.json {
            print_json_line(&report)?;
        } else {
            let text = render(&report, Some(interval), paint);
            print(&format!("{}{text}", new_page()))?;
        }
    }
}

fn fetch(
    args: &Args,
    interval: Option<Duration>,
    client: &Client,
) -> anyhow::Result<PinningReport> {
    let mut query = Vec::new();
    if let Some(service) = args.name.as_ref().or(args.service.as_ref()) {
        query.push(format!("service={}", encode(service)));
    }
    if let Some(interval) = interval {
        query.push(format!("for={}ms", interval.as_millis()));
    }
    Ok(client.get(&format!("/v1/pinning?{}", query.join("&")))?)
}

fn render(report: &PinningReport, interval: Option<Duration>, paint: Paint) -> String {
    let services = report
        .services
        .iter()
        .map(|service| render_service(service, interval, paint));
    services.collect::<Vec<_>>().join("\n")
}

fn render_service(service: &ServicePinning, interval: Option<Duration>, paint: Paint) -> String {
    let when = interval.map_or_else(
        || "since load".to_owned(),
        |interval| format!("in {:.1} s", interval.as_secs_f64()),
    );
    let mut text = format!(
        "{}  {}  mode {}  {}\n",
        paint.bold(&service.name),
        service.address,
        service.mode,
        paint.dim(&when),
    );
    text.push_str(&format!("{}\n", headline(service, paint)));
    let mut backends = Table::new(&[
        ("BACKEND", Side::Left),
        ("WEIGHT", Side::Right),
        ("FLOWS", Side::Right),
        ("STREAMS", Side::Right),
        ("SHARE", Side::Right),
        ("", Side::Left),
    ]);
    for backend in &service.backends {
        backends.row(vec![
            backend.address.clone(),
            backend.weight.to_string(),
            count(backend.flows),
            count(backend.streams),
            percent(backend.share),
            bar(backend.share, BAR),
        ]);
    }
    text.push_str(&backends.render("  ", paint));
    if !service.top_flows.is_empty() {
        let mut flows = Table::new(&[
            ("HEAVIEST FLOWS", Side::Left),
            ("BACKEND", Side::Left),
            ("STREAMS", Side::Right),
            ("SHARE", Side::Right),
        ]);
        for flow in &service.top_flows {
            flows.row(vec![
                flow.client.clone(),
                flow.backend.clone(),
                count(flow.streams),
                percent(flow.share),
            ]);
        }
        text.push_str(&flows.render("  ", paint));
    }
    if let Some(advice) = advice(service) {
        text.push_str(&format!("  {advice}\n"));
    }
    text
}

fn headline(service: &ServicePinning, paint: Paint) -> String {
    let Some(hot) = service.hot_factor else {
        let flows = counted(service.flows, "flow");
        return format!("  no streams, {flows} open now");
    };
    let figure_text = figure(Some(hot));
    let (figure_text, word) = if service.backends.len() < 2 {
        (figure_text, "one backend")
    } else if hot <= LEVEL {
        (paint.good(&figure_text), "level")
    } else if hot < PINNED {
        (paint.warn(&figure_text), "uneven")
    } else {
        (paint.bad(&figure_text), "pinned")
    };
    format!(
        "  {}, {} open now: hot factor {figure_text} ({word}), fairness {}",
        counted(service.streams, "stream"),
        counted(service.flows, "flow"),
        figure(service.fairness),
    )
}

/// What would help, where something would.
fn advice(service: &ServicePinning) -> Option<String> {
    let hot = service.hot_factor?;
    if service.mode != "l4" || hot < PINNED || service.backends.len() < 2 {
        return None;
    }
    let bound = match service.flow_floor {
        Some(floor) if floor > LEVEL => {
            format!("no balancing of flows gets below {floor:.2} with these connections; ")
        }
        _ => String::new(),
    };
    Some(format!(
        "{bound}`evenkeel mode {} l7` balances streams",
        service.name
    ))
}

#[cfg(test)]
mod tests {
    use super::{Paint, render};
    use crate::pinning::report::{Observed, ObservedBackend, ObservedFlow};
    use crate::pinning::{PinningReport, ServicePinning};

    #[test]
    fn a_pinned_service_says_so_and_what_helps() {
        let backend = |address: &str, streams| ObservedBackend {
            address: address.to_owned(),
            weight: 1,
            flows: u64::from(streams > 0),
            streams,
        };
        let service = ServicePinning::new(
            Observed {
                name: "echo".to_owned(),
                address: "10.0.0.10:50051".to_owned(),
                mode: "l4".to_owned(),
                flows: 1,
                backends: vec![backend("10.0.1.1:1", 0), backend("10.0.1.2:1", 1000)],
                streams_by_flow: vec![ObservedFlow {
                    client: "10.9.9.9:4711".to_owned(),
                    backend: "10.0.1.2:1".to_owned(),
                    streams: 1000,
                }],
            },
            3,
        );
        let report = PinningReport {
            services: vec![service],
        };
        let text = render(&report, None, Paint { on: false });
        assert!(
            text.contains(
                "1,000 streams, 1 flow open now: hot factor 2.00 (pinned), fairness 0.50"
            ),
            "{text}"
        );
        assert!(
            text.contains("100.0 %  ██████████████████████████████"),
            "{text}"
        );
        assert!(
            text.contains("no balancing of flows gets below 2.00"),
            "{text}"
        );
        assert!(
            text.contains("`evenkeel mode echo l7` balances streams"),
            "{text}"
        );
    }
}
