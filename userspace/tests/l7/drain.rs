//! Going away without losing a stream.

use std::time::Duration;

use bytes::Bytes;
use evenkeel::l7::Policy;
use http::{Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::frames::*;
use crate::support::*;

/// A backend that answers once it is released.
async fn held() -> (Backend, watch::Sender<bool>) {
    let (release, released) = watch::channel(false);
    let backend = Backend::start(move |(_, mut respond)| {
        let mut released = released.clone();
        async move {
            let _ = released.wait_for(|released| *released).await;
            let _: Result<h2::SendStream<Bytes>, _> =
                respond.send_response(Response::new(()), true);
        }
    })
    .await;
    (backend, release)
}

#[tokio::test]
async fn streams_under_way_are_served_before_the_connection_ends() {
    within(async {
        let (backend, release) = held().await;
        let (proxy, address) = proxy(&[backend.address]);
        let (mut client, connection) = client_with(&h2::client::Builder::new(), address).await;
        let (response, _) = send(&mut client, get("/"), true).await;
        until(|| backend.streams() == 1).await;
        proxy.drain(address);
        // The client learns of it, and opens no more.
        while client.clone().ready().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        release.send(true).expect("release");
        assert_eq!(response.await.expect("response").status(), StatusCode::OK);
        connection.await.expect("task").expect("no error");
        until(|| proxy.stats().connections == 0).await;
    })
    .await;
}

/// A client with large windows, and its only request, which is at the backend when this returns.
async fn raw_request(address: std::net::SocketAddr, backend: &Backend) -> TcpStream {
    let mut client = TcpStream::connect(address).await.expect("connect");
    let mut request = PREFACE.to_vec();
    // SETTINGS_INITIAL_WINDOW_SIZE, and GET http://a/ (RFC 7541).
    request.extend(frame(SETTINGS, 0, 0, &[0, 4, 0x7F, 0xFF, 0xFF, 0xFF]));
    request.extend(frame(WINDOW_UPDATE, 0, 0, &[0x7F, 0xFF, 0, 0]));
    let head = [0x82, 0x86, 0x84, 0x41, 1, b'a'];
    request.extend(frame(HEADERS, END_STREAM | END_HEADERS, 1, &head));
    client.write_all(&request).await.expect("write");
    until(|| backend.streams() == 1).await;
    client
}

#[tokio::test]
async fn what_was_sent_before_the_end_arrives_although_the_client_still_speaks() {
    within(async {
        const CONTENT: usize = 200_000;
        let (release, released) = watch::channel(false);
        let backend = Backend::start(move |(_, mut respond)| {
            let mut released = released.clone();
            async move {
                let _ = released.wait_for(|released| *released).await;
                let stream = respond.send_response(Response::new(()), false);
                let content = vec![7; CONTENT].into();
                let _ = write(&mut stream.expect("respond"), content, true).await;
            }
        })
        .await;
        let (proxy, address) = proxy(&[backend.address]);
        let mut client = raw_request(address, &backend).await;
        proxy.drain(address);
        // GOAWAY comes in two phases, with a PING between them.
        let ping = loop {
            let (kind, _, payload) = next_frame(&mut client).await.expect("connected");
            if kind == PING {
                break payload;
            }
        };
        client
            .write_all(&frame(PING, ACK, 0, &ping))
            .await
            .expect("write");
        release.send(true).expect("release");
        until(|| proxy.stats().services[0].sent_bytes > CONTENT as u64).await;
        let update = frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]);
        client.write_all(&update).await.expect("write");
        let mut content = 0;
        while let Ok((kind, _, payload)) = next_frame(&mut client).await {
            content += if kind == DATA { payload.len() } else { 0 };
        }
        assert_eq!(content, CONTENT);
    })
    .await;
}

#[tokio::test]
async fn only_the_drained_service_is_asked_to_go() {
    within(async {
        let backend = Backend::named("a").await;
        let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let proxy = evenkeel::l7::Proxy::start(one_worker(), &[any, any]).expect("start");
        let addresses = proxy.local_addrs();
        let services = addresses
            .iter()
            .map(|address| service(*address, Policy::RoundRobin, &[backend.address]));
        proxy.update(services.collect());
        let (mut stays, _task) = client_with(&h2::client::Builder::new(), addresses[0]).await;
        let (mut goes, gone) = client_with(&h2::client::Builder::new(), addresses[1]).await;
        fetch(&mut stays, get("/")).await.expect("response");
        fetch(&mut goes, get("/")).await.expect("response");
        proxy.drain(addresses[1]);
        gone.await.expect("task").expect("no error");
        fetch(&mut stays, get("/")).await.expect("response");
    })
    .await;
}

#[tokio::test]
async fn shutdown_waits_for_streams_under_way() {
    within(async {
        let (backend, release) = held().await;
        // An address of its own, so that nobody else is given the port once the proxy is gone.
        let own = std::net::SocketAddr::from(([127, 0, 0, 2], 0));
        let proxy = evenkeel::l7::Proxy::start(one_worker(), &[own]).expect("start");
        let address = proxy.local_addrs()[0];
        proxy.update(vec![service(
            address,
            Policy::RoundRobin,
            &[backend.address],
        )]);
        let mut client = client(address).await;
        let (response, _) = send(&mut client, get("/"), true).await;
        until(|| backend.streams() == 1).await;
        let stopping = tokio::task::spawn_blocking(move || proxy.shutdown(Duration::from_secs(30)));
        while client.clone().ready().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        release.send(true).expect("release");
        assert_eq!(response.await.expect("response").status(), StatusCode::OK);
        stopping.await.expect("shutdown");
        assert!(TcpStream::connect(address).await.is_err());
    })
    .await;
}

#[tokio::test]
async fn shutdown_waits_for_no_client_that_has_said_nothing() {
    within(async {
        let backend = Backend::named("a").await;
        let (proxy, address) = proxy(&[backend.address]);
        let _silent = TcpStream::connect(address).await.expect("connect");
        until(|| proxy.stats().connections == 1).await;
        // Longer than the test may take.
        let grace = Duration::from_secs(600);
        let stopping = tokio::task::spawn_blocking(move || proxy.shutdown(grace));
        stopping.await.expect("shutdown");
    })
    .await;
}

#[tokio::test]
async fn shutdown_ends_after_the_grace() {
    within(async {
        let (backend, _release) = held().await;
        let (proxy, address) = proxy(&[backend.address]);
        let (response, _) = send(&mut client(address).await, get("/"), true).await;
        until(|| backend.streams() == 1).await;
        let stopping =
            tokio::task::spawn_blocking(move || proxy.shutdown(Duration::from_millis(50)));
        response.await.expect_err("closed");
        stopping.await.expect("shutdown");
    })
    .await;
}

#[tokio::test]
async fn old_connections_follow_a_new_table() {
    within(async {
        let (a, b) = (Backend::named("a").await, Backend::named("b").await);
        let (proxy, address) = proxy(&[a.address]);
        let mut client = client(address).await;
        let response = fetch(&mut client, get("/")).await.expect("response");
        assert_eq!(response.headers()["backend"], "a");
        proxy.update(vec![service(address, Policy::P2c, &[b.address])]);
        let response = fetch(&mut client, get("/")).await.expect("response");
        assert_eq!(response.headers()["backend"], "b");
        proxy.update(Vec::new());
        let response = fetch(&mut client, get("/")).await.expect("response");
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    })
    .await;
}

#[tokio::test]
async fn a_backend_that_went_and_came_back_is_counted() {
    within(async {
        let (a, b) = (Backend::named("a").await, Backend::named("b").await);
        let (proxy, address) = proxy(&[a.address]);
        let mut client = client(address).await;
        fetch(&mut client, get("/")).await.expect("response");
        // Between two looks of the worker, or it does not matter.
        for backend in [&b, &a] {
            let backends = [backend.address];
            proxy.update(vec![service(address, Policy::RoundRobin, &backends)]);
        }
        fetch(&mut client, get("/")).await.expect("response");
        until(|| proxy.stats().services[0].backends[0].streams_ok == 1).await;
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_waits_for_a_removed_backend_is_answered() {
    within(async {
        // Accepts, and never says its SETTINGS.
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("bind");
        let backend = silent.local_addr().expect("address");
        let limits = evenkeel::l7::Limits {
            connect_timeout_ms: 400,
            ..one_worker()
        };
        let (proxy, address) = proxy_with(limits, Policy::RoundRobin, &[backend]);
        let (response, _) = send(&mut client(address).await, get("/"), true).await;
        let _connection = silent.accept().await.expect("accept");
        proxy.update(vec![service(address, Policy::RoundRobin, &[])]);
        let response = response.await.expect("response");
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    })
    .await;
}

#[tokio::test]
async fn a_removed_backend_is_not_connected_to_again() {
    within(async {
        let late = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("bind");
        let backend = late.local_addr().expect("address");
        let (proxy, address) = proxy(&[backend]);
        let mut client = client(address).await;
        let (response, _) = send(&mut client, get("/"), true).await;
        let (mut connection, _) = late.accept().await.expect("accept");
        proxy.update(vec![service(address, Policy::RoundRobin, &[])]);
        // The worker has seen the new table once a stream was answered by it.
        let refused = fetch(&mut client, get("/")).await.expect("response");
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        connection.write_all(&settings).await.expect("write");
        let response = response.await.expect("response");
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        // The second attempt would have been made before this connection ends.
        let _ = connection.read_to_end(&mut Vec::new()).await;
        let again = late.into_std().expect("the socket").accept();
        assert!(again.is_err(), "connected again");
    })
    .await;
}
