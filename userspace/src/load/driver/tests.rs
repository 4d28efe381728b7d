//! Whole runs of the driver without sockets and with a stopped clock: time passes only while everybody waits, so what
//! is measured is exact.

mod http1;

use std::cell::Cell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::Empty;
use hyper::server::conn::http1 as server;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::task::LocalSet;
use tokio::time::Instant;

use super::dial::{Connect, Connecting, Socket};
use super::plan::tests::plan;
use super::shard::Means;
use super::{Balance, Budget, Kind, Outputs, Plan, Report, Schedule, run_with};
use crate::load::BACKEND_HEADER;
use crate::load::timer::Timer;

/// Backends that answer at once, but not while they stall. Each is named by its address.
#[derive(Clone)]
struct Backends {
    born: Instant,
    stall: (Duration, Duration),
    /// One that is out of order until then.
    broken: Option<(SocketAddr, Fault, Duration)>,
    /// How often that one was dialled.
    dials: Rc<Cell<u32>>,
    /// They speak HTTP/1.1.
    http1: bool,
}

/// What a backend does that is out of order.
#[derive(Clone, Copy)]
enum Fault {
    /// It swallows what is sent to it, SYNs included.
    Silent,
    /// It accepts and closes at once.
    Closes,
}

impl Connect for Backends {
    fn connect(&self, address: SocketAddr) -> Connecting<'_> {
        let (near, far) = tokio::io::duplex(1 << 20);
        match self.fault(address) {
            Some(Fault::Silent) => return Box::pin(std::future::pending()),
            Some(Fault::Closes) => drop(far),
            None if self.http1 => drop(tokio::task::spawn_local(serve_http1(far, address))),
            None => drop(tokio::task::spawn_local(self.clone().serve(far, address))),
        }
        Box::pin(async move {
            let socket: Socket = Box::new(near);
            Ok(socket)
        })
    }
}

impl Backends {
    fn new(born: Instant) -> Self {
        Self {
            born,
            stall: (Duration::ZERO, Duration::ZERO),
            broken: None,
            dials: Rc::default(),
            http1: false,
        }
    }

    /// What is wrong with a backend that is dialled now.
    fn fault(&self, address: SocketAddr) -> Option<Fault> {
        let (broken, fault, until) = self.broken?;
        if address != broken {
            return None;
        }
        self.dials.set(self.dials.get() + 1);
        (self.born.elapsed() < until).then_some(fault)
    }

    fn serve(
        self,
        socket: tokio::io::DuplexStream,
        address: SocketAddr,
    ) -> impl Future<Output = ()> {
        let answer = move |mut respond: h2::server::SendResponse<Bytes>| async move {
            let (from, to) = self.stall;
            if (from..to).contains(&self.born.elapsed()) {
                tokio::time::sleep_until(self.born + to).await;
            }
            let response = Response::builder().header(BACKEND_HEADER, address.to_string());
            let _ = respond.send_response(response.body(()).unwrap(), true);
        };
        async move {
            let mut connection = h2::server::handshake(socket).await.unwrap();
            while let Some(Ok((_, respond))) = connection.accept().await {
                tokio::task::spawn_local(answer(respond));
            }
        }
    }
}

async fn serve_http1(socket: tokio::io::DuplexStream, address: SocketAddr) {
    let answer = service_fn(|_| {
        let response = Response::builder().header(BACKEND_HEADER, address.to_string());
        let response = response.body(Empty::<Bytes>::new()).unwrap();
        std::future::ready(Ok::<_, Infallible>(response))
    });
    let connection = server::Builder::new().serve_connection(TokioIo::new(socket), answer);
    // A client goes away as it likes.
    let _ = connection.await;
}

fn stopped_clock<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, test)
}

/// A run against backends that stall from the first to the second time.
fn run(plan: &Plan, stall_from: u64, stall_to: u64) -> Report {
    let stall = [stall_from, stall_to].map(Duration::from_millis);
    run_against(plan, |backends| backends.stall = stall.into()).0
}

/// A run against two backends, of which the first is out of order until then; how often that was dialled, too.
fn run_with_broken(plan: &Plan, fault: Fault, until: Duration) -> (Report, u32) {
    let mut plan = plan.clone();
    plan.addresses = vec![addresses().to_vec()];
    run_against(&plan, |backends| {
        backends.broken = Some((addresses()[0], fault, until));
    })
}

fn addresses() -> [SocketAddr; 2] {
    [1, 2].map(|host| SocketAddr::from(([10, 0, 0, host], 80)))
}

fn run_against(plan: &Plan, set: impl FnOnce(&mut Backends)) -> (Report, u32) {
    stopped_clock(async {
        let mut backends = Backends::new(Instant::now());
        backends.http1 = matches!(plan.kind, Kind::Http1 { .. });
        set(&mut backends);
        let dials = Rc::clone(&backends.dials);
        let means = Means {
            connector: Box::new(backends),
            timer: Timer::of_runtime(),
        };
        let forever = std::future::pending();
        let report = run_with(plan, Outputs::default(), forever, means).await;
        (report.unwrap(), dials.get())
    })
}

fn open_loop(schedule: &str) -> Plan {
    let schedule: Schedule = schedule.parse().unwrap();
    let end = schedule.end().unwrap_or(Duration::from_secs(3));
    let mut plan = plan(&[1], Budget::Duration(end));
    plan.schedule = Some(schedule);
    plan.streams = 1;
    plan
}

/// Whether two latencies are the same, as far as three digits tell.
fn about(micros: u64, millis: u64) -> bool {
    micros.abs_diff(millis * 1000) <= 1000
}

#[test]
fn a_stall_shows_in_the_latency_of_every_request_that_was_meant_to_start_meanwhile() {
    // 300 requests, of which 100 fall into a stall of one second: request i of them waits 1 s - i * 10 ms.
    let report = run(&open_loop("const:100"), 1000, 2000);
    let latency = &report.latency;
    assert_eq!((report.ok, report.failed), (300, 0));
    assert!(about(latency.p50, 0), "{latency:?}");
    assert!(about(latency.p90, 700), "270 of 300: {latency:?}");
    assert!(about(latency.p99, 970), "297 of 300: {latency:?}");
    assert!(about(latency.max, 1000), "{latency:?}");
}

#[test]
fn a_closed_loop_hides_the_same_stall() {
    let mut plan = plan(&[1], Budget::Requests(300));
    plan.streams = 1;
    let report = run(&plan, 0, 1000);
    assert!(about(report.latency.p99, 0), "{:?}", report.latency);
    assert!(about(report.latency.max, 1000), "{:?}", report.latency);
}

#[test]
fn a_request_that_was_given_up_while_it_waited_has_failed_by_its_intended_start() {
    // Those meant to start in the first half of the stall wait for more than half a second.
    let mut plan = open_loop("const:100");
    plan.timeout = Duration::from_millis(500);
    plan.streams = 300;
    let report = run(&plan, 1000, 2000);
    let late = report.failures[&super::Failure::Timeout];
    assert!((50..=51).contains(&late), "{late}: {:?}", report.causes);
    assert_eq!(report.ok + late, 300);
}

#[test]
fn a_stalled_server_gets_no_request_whose_time_is_over() {
    // Five requests a millisecond, in which timers tell moments apart: when one is given up those due before the next
    // millisecond are over, but for one that may be just in time.
    let mut plan = open_loop("step:5000@2s");
    plan.timeout = Duration::from_millis(100);
    let report = run(&plan, 500, 1500);
    let late = report.failures[&super::Failure::Timeout];
    assert_eq!(report.ok + late, 10_000);
    let given_up = report.streams - report.ok;
    assert!(late > 4000 && given_up <= late / 4, "{given_up} of {late}");
}

#[test]
fn every_request_of_a_schedule_is_sent_and_no_other() {
    for (schedule, requests) in [
        ("step:100@1s,0@1s,300@1s", 400),
        ("ramp:0..1000@2s", 1000),
        ("const:1000", 3000),
    ] {
        let report = run(&open_loop(schedule), 0, 0);
        assert_eq!((report.ok, report.failed), (requests, 0), "{schedule}");
        assert!(about(report.latency.max, 0), "{schedule}");
    }
}

#[test]
fn the_warm_up_is_in_no_figure() {
    // Everything slow happens in the first second.
    let mut plan = open_loop("const:100");
    plan.warm_up = Duration::from_secs(2);
    let report = run(&plan, 0, 1000);
    assert_eq!((report.warm_up.ok, report.ok), (200, 300));
    assert!(about(report.latency.max, 0), "{:?}", report.latency);
    assert_eq!(report.streams, 500, "what went over the wire");
    assert!((report.rate - 100.0).abs() < 1.0, "{}", report.rate);
}

#[test]
fn what_fails_in_the_warm_up_is_told_of_nowhere_else() {
    let mut plan = open_loop("const:100");
    plan.warm_up = Duration::from_secs(2);
    plan.addresses = vec![vec![addresses()[0]]];
    let (report, _) = run_against(&plan, |backends| {
        backends.broken = Some((addresses()[0], Fault::Closes, Duration::from_secs(1)));
    });
    assert!(report.warm_up.failed > 0);
    assert_eq!((report.ok, report.failed), (300, 0));
    assert!(report.failures.is_empty() && report.causes.is_empty());
}

#[test]
fn a_closed_loop_does_its_quota_after_the_warm_up() {
    let mut plan = plan(&[1, 1], Budget::Requests(100));
    plan.warm_up = Duration::from_secs(1);
    // Without a stall the warm-up would never end: nothing waits, so the stopped clock stands still.
    let report = run(&plan, 0, 1000);
    assert_eq!((report.ok, report.warm_up.ok), (100, 40));
}

#[test]
fn no_request_waits_for_a_backend_that_cannot_be_reached_while_another_can() {
    // Three seconds: one that closes is tried at the start and after each second of rest.
    for (fault, dials) in [(Fault::Silent, 1), (Fault::Closes, 3)] {
        for balance in [Balance::RoundRobin, Balance::P2c] {
            let mut plan = open_loop("const:100");
            plan.balance = balance;
            let (report, dialled) = run_with_broken(&plan, fault, Duration::MAX);
            let living = (addresses()[1].to_string(), 300);
            assert_eq!(report.per_backend, [living].into(), "{balance}");
            assert_eq!(report.failed, 0, "{balance}: {:?}", report.causes);
            assert!(about(report.latency.max, 0), "{balance}");
            assert_eq!(dialled, dials, "{balance}");
        }
    }
}

#[test]
fn a_backend_that_comes_to_itself_gets_its_turns_again() {
    // Given up at 2 s, left alone until 3 s, then there: half of the last second's hundred.
    let mut plan = open_loop("step:100@4s");
    plan.balance = Balance::RoundRobin;
    let (report, _) = run_with_broken(&plan, Fault::Silent, Duration::from_millis(2500));
    let [late, living] = addresses().map(|address| report.per_backend[&address.to_string()]);
    assert!((49..=50).contains(&late), "{late}");
    assert_eq!((late + living, report.failed), (400, 0));
    assert!(about(report.latency.max, 0), "{:?}", report.latency);
}

#[test]
fn pick_first_tries_its_addresses_one_after_the_other() {
    for (fault, wait) in [(Fault::Silent, 2000), (Fault::Closes, 0)] {
        let (report, _) = run_with_broken(&open_loop("const:100"), fault, Duration::MAX);
        let second = (addresses()[1].to_string(), 300);
        assert_eq!(report.per_backend, [second].into());
        assert!(about(report.latency.max, wait), "{:?}", report.latency);
    }
}

#[test]
fn a_client_that_reaches_nobody_says_so() {
    for fault in [Fault::Silent, Fault::Closes] {
        let mut plan = open_loop("const:1");
        plan.addresses = vec![vec![addresses()[0]]];
        let (report, _) = run_against(&plan, |backends| {
            backends.broken = Some((addresses()[0], fault, Duration::MAX));
        });
        assert_eq!(report.failures, [(super::Failure::Connect, 3)].into());
    }
}
