//! The driver against the echo backend on loopback: what both count must agree, in every kind of run.

mod clients;
mod figures;
mod requests;

use std::net::SocketAddr;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Uri};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, LocalSet};

use super::arrival::Clock;
use super::driver::{
    self, Balance, Budget, Failure, Kind, Outputs, Plan, Renewal, Report, Schedule, Target,
};
use super::echo::{self, Options, Stats};

struct Backend {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    served: JoinHandle<std::io::Result<Stats>>,
}

impl Backend {
    async fn start(name: &'static str, delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let options = Options {
            delay,
            max_streams: 100,
            ..Options::named(HeaderValue::from_static(name))
        };
        let (stop, stopped) = oneshot::channel();
        let stopped = async move { drop(stopped.await) };
        let served = tokio::task::spawn_local(echo::serve(listener, options, stopped));
        Self {
            address,
            stop,
            served,
        }
    }

    async fn stop(self) -> Stats {
        self.stop.send(()).unwrap();
        self.served.await.unwrap().unwrap()
    }
}

/// A socket at whose address nobody listens; as long as it lives nobody else is given the address.
fn nobody() -> TcpSocket {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    socket
}

fn plan(target: SocketAddr, kind: Kind, weights: &[u32], budget: Budget) -> Plan {
    Plan {
        url: format!("http://{target}/").parse::<Uri>().unwrap(),
        targets: vec![Target::Address(target)],
        addresses: vec![vec![target]],
        resolve_every: None,
        balance: Balance::PickFirst,
        kind,
        weights: weights.to_vec(),
        streams: if matches!(kind, Kind::Http1 { .. }) {
            1
        } else {
            10
        },
        budget,
        schedule: None,
        warm_up: Duration::ZERO,
        method: None,
        headers: Vec::new(),
        payload: 100.into(),
        content: None,
        response_size: None,
        backend_header: HeaderName::from_static(super::BACKEND_HEADER),
        timeout: Duration::from_secs(30),
        renewal: Renewal::default(),
        sources: Vec::new(),
        threads: 1,
        spin: false,
        clock: Clock::Kernel,
        seed: 1,
    }
}

async fn run(plan: &Plan) -> Report {
    driver::run(plan, Outputs::default(), std::future::pending())
        .await
        .unwrap()
}

fn local(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, test);
}

#[test]
fn client_and_backend_count_the_same_streams() {
    local(async {
        for kind in [
            Kind::Http2,
            Kind::GrpcUnary,
            Kind::GrpcStream { messages: 3 },
        ] {
            let backend = Backend::start("b", Duration::ZERO).await;
            let report = run(&plan(
                backend.address,
                kind,
                &[1; 4],
                Budget::Requests(1001),
            ))
            .await;
            let stats = backend.stop().await;
            assert_eq!(
                (report.ok, report.failed, report.retried),
                (1001, 0, 0),
                "{kind:?}: {:?}",
                report.causes
            );
            assert_eq!(
                report.per_backend,
                [("b".to_owned(), 1001)].into(),
                "{kind:?}"
            );
            assert_eq!(
                (
                    stats.streams,
                    stats.requests,
                    stats.connections,
                    stats.broken
                ),
                (1001, 1001, 4, 0)
            );
        }
    });
}

#[test]
fn http1_uses_one_connection_a_client_or_one_a_request() {
    local(async {
        for (keep_alive, connections) in [(true, 3), (false, 100)] {
            let backend = Backend::start("b", Duration::ZERO).await;
            let kind = Kind::Http1 { keep_alive };
            let report = run(&plan(backend.address, kind, &[1; 3], Budget::Requests(100))).await;
            let stats = backend.stop().await;
            assert_eq!(
                (report.ok, report.failed, report.connections),
                (100, 0, connections)
            );
            assert_eq!(
                (stats.streams, stats.requests, stats.connections),
                (0, 100, connections)
            );
        }
    });
}

#[test]
fn a_message_larger_than_every_window_comes_back_whole() {
    local(async {
        let backend = Backend::start("b", Duration::ZERO).await;
        for kind in [Kind::GrpcUnary, Kind::GrpcStream { messages: 2 }] {
            let mut plan = plan(backend.address, kind, &[1], Budget::Requests(2));
            plan.payload = (3 << 20).into();
            let report = run(&plan).await;
            assert_eq!((report.ok, report.failed), (2, 0), "{:?}", report.causes);
        }
    });
}

#[test]
fn connections_are_renewed_without_failing_a_request() {
    local(async {
        let backend = Backend::start("b", Duration::ZERO).await;
        let mut plan = plan(
            backend.address,
            Kind::GrpcUnary,
            &[1, 1],
            Budget::Requests(1000),
        );
        plan.renewal.after_requests = Some(50);
        let report = run(&plan).await;
        let stats = backend.stop().await;
        // The first connections live shorter, so that the clients do not renew at the same moment: 25, then 50 each.
        assert_eq!(
            (report.ok, report.failed, report.connections),
            (1000, 0, 21)
        );
        assert_eq!(stats.connections, 21);
    });
}

/// What a running backend says of its streams.
async fn streams(backend: SocketAddr) -> u64 {
    let mut connection = TcpStream::connect(backend).await.unwrap();
    let request = b"GET /evenkeel/stats HTTP/1.1\r\nHost: b\r\nConnection: close\r\n\r\n";
    connection.write_all(request).await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let stats: serde_json::Value = serde_json::from_str(body).unwrap();
    stats["streams"].as_u64().unwrap()
}

#[test]
fn a_backend_that_goes_away_gracefully_fails_no_request() {
    local(async {
        let backend = Backend::start("old", Duration::from_millis(1)).await;
        let address = backend.address;
        let plan = plan(address, Kind::GrpcUnary, &[1, 1], Budget::Requests(2000));
        let driving = tokio::task::spawn_local(async move { run(&plan).await });
        while streams(address).await == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        backend.stop.send(()).unwrap();
        let listener = loop {
            match TcpListener::bind(address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        let options = Options {
            max_streams: 100,
            grace: Duration::ZERO,
            ..Options::named(HeaderValue::from_static("new"))
        };
        tokio::task::spawn_local(echo::serve(listener, options, std::future::pending()));
        let report = driving.await.unwrap();
        let old = backend.served.await.unwrap().unwrap();
        assert_eq!((report.ok, report.failed), (2000, 0), "{:?}", report.causes);
        assert_eq!(
            report.per_backend["old"], old.streams,
            "what the old one accepted it answered"
        );
        assert_eq!(report.per_backend["new"], 2000 - old.streams);
    });
}

#[test]
fn the_open_loop_sends_every_request_of_its_schedule() {
    local(async {
        let backend = Backend::start("b", Duration::from_millis(5)).await;
        let mut plan = plan(
            backend.address,
            Kind::Http2,
            &[8, 1, 1],
            Budget::Requests(200),
        );
        plan.schedule = Some(Schedule::Const(2000.0));
        let report = run(&plan).await;
        assert_eq!((report.ok, report.failed), (200, 0), "{:?}", report.causes);
        assert!(
            report.latency.min >= 5_000,
            "nothing is faster than the backend: {:?}",
            report.latency
        );
    });
}

#[test]
fn failures_are_told_apart() {
    local(async {
        let nobody = nobody();
        let unused = nobody.local_addr().unwrap();
        let refused = run(&plan(unused, Kind::Http2, &[1], Budget::Requests(1))).await;
        assert_eq!(refused.failures, [(Failure::Connect, 1)].into());

        let slow = Backend::start("b", Duration::from_secs(60)).await;
        let mut patience = plan(slow.address, Kind::GrpcUnary, &[1], Budget::Requests(3));
        patience.timeout = Duration::from_millis(20);
        let late = run(&patience).await;
        assert_eq!(
            (late.ok, late.failures),
            (0, [(Failure::Timeout, 3)].into())
        );
    });
}

#[test]
fn answers_are_as_long_as_asked_for() {
    local(async {
        let backend = Backend::start("b", Duration::ZERO).await;
        for kind in [
            Kind::Http2,
            Kind::GrpcUnary,
            Kind::Http1 { keep_alive: true },
        ] {
            for size in ["0", "1", "100000", "choice:0*1,1*1,100000*1"] {
                let mut plan = plan(backend.address, kind, &[1], Budget::Requests(12));
                plan.response_size = Some(size.parse().unwrap());
                let report = run(&plan).await;
                assert_eq!(
                    (report.ok, report.failed),
                    (12, 0),
                    "{kind:?} {size}: {:?}",
                    report.causes
                );
            }
        }
    });
}

#[test]
fn payloads_of_any_size_are_echoed_whole() {
    local(async {
        let backend = Backend::start("b", Duration::ZERO).await;
        for kind in [Kind::GrpcUnary, Kind::GrpcStream { messages: 3 }] {
            let mut plan = plan(backend.address, kind, &[1; 2], Budget::Requests(60));
            plan.payload = "choice:0*1,1*1,20000*1,200000*1".parse().unwrap();
            let report = run(&plan).await;
            assert_eq!(
                (report.ok, report.failed),
                (60, 0),
                "{kind:?}: {:?}",
                report.causes
            );
        }
    });
}
