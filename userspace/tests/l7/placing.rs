//! A stream that waits for a connection belongs to no backend yet, and follows a new table.

use std::net::SocketAddr;

use bytes::Bytes;
use evenkeel::l7::{Limits, Policy, Proxy};
use h2::SendStream;
use h2::client::ResponseFuture;
use http::{Response, StatusCode};
use tokio::net::{TcpListener, TcpStream};

use crate::support::*;

/// Accepts, and never says its SETTINGS.
struct Silent {
    listener: TcpListener,
    address: SocketAddr,
}

impl Silent {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        Self { listener, address }
    }

    /// The proxy's next connection to it.
    async fn dialled(&self) -> TcpStream {
        self.listener.accept().await.expect("accept").0
    }
}

/// No dial ends by itself as long as a test takes.
fn patient() -> Limits {
    Limits {
        connect_timeout_ms: 3_600_000,
        ..one_worker()
    }
}

/// Answers with its name and what it was sent.
async fn echoing() -> Backend {
    Backend::start(|(request, mut respond)| async move {
        let (bytes, _) = read(request.into_body()).await.expect("content");
        let response = Response::builder().header("backend", "b").body(());
        let mut stream = respond
            .send_response(response.expect("response"), false)
            .expect("respond");
        write(&mut stream, bytes.into(), true).await.expect("echo");
    })
    .await
}

/// A stream of which half was sent, and for which a dial is under way.
async fn waiting(address: SocketAddr, silent: &Silent) -> (ResponseFuture, SendStream<Bytes>) {
    let (response, mut stream) = send(&mut client(address).await, grpc(), false).await;
    let half = Bytes::from_static(b"all ");
    stream.send_data(half, false).expect("content");
    let connection = silent.dialled().await;
    tokio::spawn(async move {
        std::future::pending::<()>().await;
        drop(connection);
    });
    (response, stream)
}

/// The stream is served whole by the backend that echoes.
async fn is_served(response: ResponseFuture, mut stream: SendStream<Bytes>, proxy: &Proxy) {
    let half = Bytes::from_static(b"of it");
    stream.send_data(half, true).expect("content");
    let response = response.await.expect("response");
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["backend"], "b");
    let (bytes, _) = read(response.into_body()).await.expect("content");
    assert_eq!(bytes, b"all of it");
    let stats = &proxy.stats().services[0];
    assert_eq!((stats.streams_placed_again, stats.no_backend), (1, 0));
}

#[tokio::test]
async fn a_stream_that_waits_for_a_removed_backend_is_served_by_another() {
    within(async {
        let (silent, other) = (Silent::new().await, echoing().await);
        let (proxy, address) = proxy_with(patient(), Policy::RoundRobin, &[silent.address]);
        let (response, stream) = waiting(address, &silent).await;
        let backends = [other.address];
        proxy.update(vec![service(address, Policy::RoundRobin, &backends)]);
        is_served(response, stream, &proxy).await;
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_waits_for_a_drained_backend_is_served_by_another() {
    within(async {
        let (silent, other) = (Silent::new().await, echoing().await);
        let (proxy, address) = proxy_with(patient(), Policy::RoundRobin, &[silent.address]);
        let (response, stream) = waiting(address, &silent).await;
        let backends = [other.address, silent.address];
        let mut drained = service(address, Policy::RoundRobin, &backends);
        drained.backends[1].draining = true;
        proxy.update(vec![drained]);
        is_served(response, stream, &proxy).await;
    })
    .await;
}

#[tokio::test]
async fn a_stream_for_which_there_was_no_room_at_a_removed_backend_is_served_by_another() {
    within(async {
        let (full, other) = (Silent::new().await, echoing().await);
        let (proxy, address) = proxy_with(patient(), Policy::RoundRobin, &[full.address]);
        let (first, _) = send(&mut client(address).await, get("/"), true).await;
        let mut builder = h2::server::Builder::new();
        builder.max_concurrent_streams(1);
        let only = builder.handshake::<_, Bytes>(full.dialled().await).await;
        let mut only = only.expect("handshake");
        let (_, mut respond) = only.accept().await.expect("a stream").expect("connected");
        tokio::spawn(async move { while only.accept().await.is_some() {} });
        let (response, stream) = waiting(address, &full).await;
        let backends = [other.address];
        proxy.update(vec![service(address, Policy::RoundRobin, &backends)]);
        is_served(response, stream, &proxy).await;
        // What had been sent stays where it is.
        let _ = respond.send_response(Response::new(()), true);
        assert_eq!(first.await.expect("response").status(), StatusCode::OK);
    })
    .await;
}

#[tokio::test]
async fn a_stream_keeps_waiting_for_a_backend_that_a_new_table_still_has() {
    within(async {
        let (silent, other) = (Silent::new().await, echoing().await);
        let (proxy, address) = proxy_with(patient(), Policy::RoundRobin, &[silent.address]);
        let (response, _) = send(&mut client(address).await, get("/"), true).await;
        let dialled = silent.dialled().await;
        // Its backend is now the second.
        let backends = [other.address, silent.address];
        proxy.update(vec![service(address, Policy::RoundRobin, &backends)]);
        // The worker has seen the new table once the other backend has a stream.
        let mut client = client(address).await;
        while other.streams() == 0 {
            let (_either, _) = send(&mut client, get("/"), true).await;
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
        let mut connection = h2::server::handshake(dialled).await.expect("handshake");
        let (_, mut respond) = connection.accept().await.expect("it").expect("connected");
        tokio::spawn(async move { while connection.accept().await.is_some() {} });
        let _: Result<SendStream<Bytes>, _> = respond.send_response(Response::new(()), true);
        assert_eq!(response.await.expect("response").status(), StatusCode::OK);
        let stats = &proxy.stats().services[0];
        assert_eq!(stats.streams_placed_again, 0);
    })
    .await;
}

#[tokio::test]
async fn a_stream_is_not_placed_again_without_end() {
    within(async {
        let backends = [Silent::new().await, Silent::new().await];
        let table = |address, round: usize| {
            let backend = backends[round % 2].address;
            service(address, Policy::RoundRobin, &[backend])
        };
        let (proxy, address) = proxy_with(patient(), Policy::RoundRobin, &[backends[0].address]);
        let (response, _) = send(&mut client(address).await, get("/"), true).await;
        let mut connections = vec![backends[0].dialled().await];
        for round in 1..=8 {
            proxy.update(vec![table(address, round)]);
            connections.push(backends[round % 2].dialled().await);
        }
        proxy.update(vec![table(address, 9)]);
        let response = response.await.expect("response");
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        let stats = &proxy.stats().services[0];
        assert_eq!((stats.streams_placed_again, stats.no_backend), (8, 1));
    })
    .await;
}
