//! What a report says of the answers.

use super::*;

#[test]
fn how_late_the_client_itself_is_is_told_where_it_is_known() {
    local(async {
        let backend = Backend::start("b", Duration::from_millis(1)).await;
        let kind = Kind::Http2;
        let mut plan = plan(backend.address, kind, &[1], Budget::Requests(100));
        let closed = run(&plan).await;
        assert!(closed.read_delay.is_some() && closed.start_delay.is_none());
        plan.clock = Clock::Process;
        plan.schedule = Some(Schedule::Const(1000.0));
        let open = run(&plan).await;
        assert!(open.read_delay.is_none());
        let said = open.to_string();
        let start_delay = open.start_delay.expect("an open loop");
        assert!(said.contains("requests started late by p50"), "{said}");
        let slow = start_delay.p99 > 1000;
        assert_eq!(said.contains("bottleneck"), slow, "{said}");
    });
}

#[test]
fn results_are_told_apart_by_the_header_that_was_asked_for() {
    local(async {
        for kind in [Kind::Http2, Kind::Http1 { keep_alive: true }] {
            let backend = Backend::start("b", Duration::ZERO).await;
            let mut plan = plan(backend.address, kind, &[1], Budget::Requests(20));
            plan.backend_header = http::header::CONTENT_TYPE;
            let report = run(&plan).await;
            let names: Vec<&String> = report.per_backend.keys().collect();
            assert_eq!(names, ["application/json"], "{kind:?}");
        }
    });
}

#[test]
fn what_a_backend_says_it_took_is_told_apart_from_the_rest() {
    local(async {
        for kind in [
            Kind::Http2,
            Kind::GrpcUnary,
            Kind::Http1 { keep_alive: true },
        ] {
            let backend = Backend::start("b", Duration::from_millis(20)).await;
            let report = run(&plan(backend.address, kind, &[1], Budget::Requests(20))).await;
            let beyond = report.beyond_backend.expect("it took its time");
            assert!(report.latency.min >= 20_000, "{kind:?}");
            assert!(
                beyond.min + 20_000 <= report.latency.max,
                "{kind:?}: {beyond:?} of {:?}",
                report.latency
            );
        }
        let at_once = Backend::start("b", Duration::ZERO).await;
        let plan = plan(at_once.address, Kind::Http2, &[1], Budget::Requests(3));
        assert_eq!(run(&plan).await.beyond_backend, None);
    });
}

#[test]
fn the_histogram_holds_every_answer() {
    local(async {
        let backend = Backend::start("b", Duration::ZERO).await;
        let report = run(&plan(
            backend.address,
            Kind::Http2,
            &[1],
            Budget::Requests(500),
        ))
        .await;
        let counted: u64 = report.histogram.iter().map(|(_, count)| count).sum();
        assert_eq!(counted, 500);
        assert!(report.histogram.is_sorted_by(|a, b| a.0 < b.0));
        assert_eq!(
            report.histogram.last().map(|(most, _)| *most),
            Some(report.latency.max)
        );
    });
}
