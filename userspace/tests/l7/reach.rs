//! A backend that one protocol cannot reach stays where the other can.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use evenkeel::l7::{BackendStats, Limits, Policy, Proxy};
use http::StatusCode;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use crate::support::*;

/// Once down, for the rest of the test.
fn never_again() -> Limits {
    Limits {
        connect_timeout_ms: 100,
        backoff_min_ms: 86_400_000,
        backoff_max_ms: 86_400_000,
        ..one_worker()
    }
}

/// A backend that answers HTTP/1.1 requests, and an HTTP/2 preface with silence. Counts the prefaces.
async fn http1_only() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let prefaces = Arc::new(AtomicUsize::default());
    serve_http1(listener, prefaces.clone());
    (address, prefaces)
}

fn serve_http1(listener: TcpListener, prefaces: Arc<AtomicUsize>) {
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.expect("accept");
            let prefaces = prefaces.clone();
            tokio::spawn(async move {
                loop {
                    let head = read_until(&mut socket, "\r\n\r\n").await;
                    if head.starts_with("PRI") {
                        prefaces.fetch_add(1, SeqCst);
                        std::future::pending::<()>().await;
                    }
                    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
                    if head.is_empty() || socket.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
}

/// The status of an HTTP/1.1 request on a connection of its own.
async fn http1_status(address: SocketAddr) -> StatusCode {
    let mut client = TcpStream::connect(address).await.expect("connect");
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        .await
        .expect("write");
    let head = read_until(&mut client, "\r\n\r\n").await;
    let status = head.split(' ').nth(1).expect("a status line");
    status.parse().expect("a status")
}

async fn http2_status(address: SocketAddr) -> StatusCode {
    fetch(&mut client(address).await, get("/"))
        .await
        .expect("response")
        .status()
}

fn backend(proxy: &Proxy, position: usize) -> BackendStats {
    proxy.stats().services[0].backends[position].clone()
}

#[tokio::test]
async fn an_http2_client_takes_no_http1_backend_from_http1_clients() {
    within(async {
        let (address, prefaces) = http1_only().await;
        let (proxy, service) = proxy_with(never_again(), Policy::RoundRobin, &[address]);
        assert_eq!(http2_status(service).await, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(prefaces.load(SeqCst), 1);
        until(|| backend(&proxy, 0).down).await;
        for _ in 0..3 {
            assert_eq!(http1_status(service).await, StatusCode::OK);
        }
        until(|| !backend(&proxy, 0).down).await;
        // And it stays down for those whom it does not answer.
        assert_eq!(http2_status(service).await, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(prefaces.load(SeqCst), 1);
        assert_eq!(backend(&proxy, 0).connect_failures, 1);
    })
    .await;
}

#[tokio::test]
async fn an_http1_client_takes_no_http2_backend_from_http2_clients() {
    within(async {
        let only_http2 = Backend::named("a").await;
        let (proxy, service) = proxy_with(never_again(), Policy::RoundRobin, &[only_http2.address]);
        // Lost or never sent, as it happens: 502 or 503.
        assert!(http1_status(service).await.is_server_error());
        assert_eq!(http2_status(service).await, StatusCode::OK);
        assert!(http1_status(service).await.is_server_error());
        assert_eq!(backend(&proxy, 0).connect_failures, 0);
    })
    .await;
}

#[tokio::test]
async fn one_http1_request_finds_out_for_all_and_for_both_protocols() {
    within(async {
        let nobody = Nobody::new();
        let (works, _) = http1_only().await;
        let backends = [nobody.address, works];
        let (proxy, service) = proxy_with(never_again(), Policy::RoundRobin, &backends);
        for _ in 0..10 {
            assert_eq!(http1_status(service).await, StatusCode::OK);
        }
        let dead = backend(&proxy, 0);
        assert_eq!((dead.connect_failures, dead.streams_retried), (1, 1));
        until(|| backend(&proxy, 0).down).await;
        assert!(!backend(&proxy, 1).down);
        let alone = crate::support::service(service, Policy::RoundRobin, &[nobody.address]);
        proxy.update(vec![alone]);
        assert_eq!(http2_status(service).await, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(backend(&proxy, 0).connect_failures, 1, "it was not tried");
    })
    .await;
}

#[tokio::test]
async fn an_http1_backend_that_comes_back_is_used_again() {
    within(async {
        let nobody = Nobody::new();
        let limits = Limits {
            backoff_min_ms: 1,
            backoff_max_ms: 1,
            ..one_worker()
        };
        let (proxy, service) = proxy_with(limits, Policy::RoundRobin, &[nobody.address]);
        assert_eq!(http1_status(service).await, StatusCode::SERVICE_UNAVAILABLE);
        // Looked for in the background: no request has to.
        until(|| backend(&proxy, 0).connect_failures >= 3).await;
        serve_http1(nobody.listen(), Arc::default());
        while http1_status(service).await != StatusCode::OK {
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        let counters = backend(&proxy, 0);
        assert_eq!(
            counters.streams_opened, 2,
            "the first, and the one answered"
        );
    })
    .await;
}
