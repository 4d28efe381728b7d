//! What a backend is known not to have looked at is tried elsewhere; nothing else is.

use bytes::Bytes;
use evenkeel::l7::{Limits, Policy};
use h2::Reason;
use http::{Response, StatusCode};

use crate::support::*;

async fn refusing() -> Backend {
    Backend::start(|(request, mut respond)| async move {
        // Read first, so that the content is on its way when the refusal comes.
        if !request.body().is_end_stream() {
            let _ = read(request.into_body()).await;
        }
        respond.send_reset(Reason::REFUSED_STREAM);
    })
    .await
}

async fn echoing() -> Backend {
    Backend::start(|(request, mut respond)| async move {
        let (bytes, _) = read(request.into_body()).await.expect("content");
        let mut stream = respond
            .send_response(Response::new(()), false)
            .expect("respond");
        write(&mut stream, bytes.into(), true)
            .await
            .expect("content");
    })
    .await
}

#[tokio::test]
async fn the_search_for_a_backend_that_can_be_reached_ends() {
    within(async {
        // They accept, as their systems do, and never say their SETTINGS.
        let mut silent = Vec::new();
        for _ in 0..6 {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
            silent.push(listener.expect("bind").into_std().expect("the socket"));
        }
        let backends: Vec<_> = silent
            .iter()
            .map(|listener| listener.local_addr().expect("address"))
            .collect();
        let limits = Limits {
            connect_timeout_ms: 50,
            retries: 1,
            backoff_min_ms: 60_000,
            backoff_max_ms: 60_000,
            ..one_worker()
        };
        let (_proxy, address) = proxy_with(limits, Policy::RoundRobin, &backends);
        let response = fetch(&mut client(address).await, get("/")).await;
        let status = response.expect("response").status();
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        let tried = silent.iter().filter(|listener| listener.accept().is_ok());
        assert!(
            (2..=3).contains(&tried.count()),
            "the first, and what a timeout later is over"
        );
    })
    .await;
}

#[tokio::test]
async fn a_refused_stream_is_served_elsewhere_with_its_content() {
    within(async {
        let (refusing, echoing) = (refusing().await, echoing().await);
        let (proxy, address) = proxy(&[refusing.address, echoing.address]);
        let mut client = client(address).await;
        for _ in 0..10 {
            let (response, mut stream) = send(&mut client, grpc(), false).await;
            stream
                .send_data(Bytes::from_static(b"first"), false)
                .expect("content");
            stream
                .send_data(Bytes::from_static(b"second"), true)
                .expect("content");
            let (bytes, _) = read(response.await.expect("response").into_body())
                .await
                .expect("content");
            assert_eq!(bytes, b"firstsecond");
        }
        assert!(refusing.streams() > 0);
        let stats = &proxy.stats().services[0].backends;
        assert_eq!(stats[0].streams_retried, refusing.streams() as u64);
        assert_eq!(stats[1].streams_ok, 10);
    })
    .await;
}

#[tokio::test]
async fn a_refusal_by_all_reaches_the_client() {
    within(async {
        let refusing = refusing().await;
        let (_proxy, address) = proxy(&[refusing.address]);
        let error = fetch(&mut client(address).await, get("/"))
            .await
            .expect_err("refused");
        assert_eq!(error.reason(), Some(Reason::REFUSED_STREAM));
    })
    .await;
}

#[tokio::test]
async fn a_request_too_long_to_keep_is_not_retried() {
    within(async {
        let (refusing, other) = (refusing().await, refusing().await);
        let limits = Limits {
            replay_bytes: 8,
            ..one_worker()
        };
        let backends = [refusing.address, other.address];
        let (_proxy, address) = proxy_with(limits, Policy::RoundRobin, &backends);
        let (response, mut stream) = send(&mut client(address).await, grpc(), false).await;
        stream
            .send_data(Bytes::from_static(b"too long"), false)
            .expect("content");
        stream
            .send_data(Bytes::from_static(b" by this"), true)
            .expect("content");
        let error = response.await.expect_err("refused");
        assert_eq!(error.reason(), Some(Reason::REFUSED_STREAM));
        assert_eq!(refusing.streams() + other.streams(), 1);
    })
    .await;
}

#[tokio::test]
async fn backends_that_leave_after_some_streams_lose_none() {
    within(async {
        let backend = Backend::with(
            h2::server::Builder::new(),
            Some(7),
            |(_, mut respond)| async move {
                let _ = respond.send_response(Response::new(()), true);
            },
        )
        .await;
        let (_proxy, address) = proxy(&[backend.address]);
        let client = client(address).await;
        let mut tasks = Vec::new();
        for _ in 0..20 {
            let mut client = client.clone();
            tasks.push(tokio::spawn(async move {
                for _ in 0..20 {
                    let response = fetch(&mut client, get("/")).await.expect("response");
                    assert_eq!(response.status(), StatusCode::OK);
                }
            }));
        }
        for task in tasks {
            task.await.expect("task");
        }
        assert!(backend.connections() > 1);
    })
    .await;
}

#[tokio::test]
async fn a_dead_backend_costs_no_stream() {
    within(async {
        let (a, b) = (Backend::named("a").await, Backend::named("b").await);
        let nobody = Nobody::new();
        let (proxy, address) = proxy(&[a.address, nobody.address, b.address]);
        let mut client = client(address).await;
        for _ in 0..60 {
            let response = fetch(&mut client, get("/")).await.expect("response");
            assert_eq!(response.status(), StatusCode::OK);
        }
        let stats = &proxy.stats().services[0];
        assert_eq!((stats.backends[1].streams_opened, stats.no_backend), (0, 0));
        assert!(stats.backends[1].connect_failures > 0);
    })
    .await;
}

#[tokio::test]
async fn without_a_backend_clients_are_told_in_their_language() {
    within(async {
        let nobody = Nobody::new();
        let (proxy, address) = proxy(&[nobody.address]);
        let mut client = client(address).await;
        let response = fetch(&mut client, get("/")).await.expect("response");
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        let response = fetch(&mut client, grpc()).await.expect("response");
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["grpc-status"], "14");
        assert!(response.body().is_end_stream());
        assert_eq!(proxy.stats().services[0].no_backend, 2);
    })
    .await;
}

#[tokio::test]
async fn a_backend_that_comes_back_is_used_again() {
    within(async {
        let nobody = Nobody::new();
        let (_proxy, address) = proxy(&[nobody.address]);
        let mut client = client(address).await;
        let response = fetch(&mut client, get("/")).await.expect("response");
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        let listener = nobody.listen();
        tokio::spawn(async move {
            let (socket, _) = listener.accept().await.expect("accept");
            let mut connection = h2::server::handshake(socket).await.expect("handshake");
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let _: Result<h2::SendStream<Bytes>, _> =
                    respond.send_response(Response::new(()), true);
            }
        });
        while fetch(&mut client, get("/"))
            .await
            .expect("response")
            .status()
            != StatusCode::OK
        {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_lost_connection_is_not_retried() {
    within(async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("bind");
        let backend = listener.local_addr().expect("address");
        let accepted = tokio::spawn(async move {
            let (socket, _) = listener.accept().await.expect("accept");
            let mut connection = h2::server::handshake::<_>(socket).await.expect("handshake");
            let stream = connection.accept().await.expect("stream").expect("stream");
            // The connection goes without a word.
            drop(connection);
            drop(stream);
        });
        let (proxy, address) = proxy(&[backend]);
        let response = fetch(&mut client(address).await, get("/"))
            .await
            .expect("response");
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
        accepted.await.expect("backend");
        assert_eq!(proxy.stats().services[0].backends[0].streams_failed, 1);
    })
    .await;
}

#[tokio::test]
async fn the_backends_stream_limit_opens_another_connection() {
    within(async {
        let mut builder = h2::server::Builder::new();
        builder.max_concurrent_streams(2);
        let (release, released) = tokio::sync::watch::channel(false);
        let backend = Backend::with(builder, None, move |(_, mut respond)| {
            let mut released = released.clone();
            async move {
                let _ = released.wait_for(|released| *released).await;
                let _ = respond.send_response(Response::new(()), true);
            }
        })
        .await;
        let (_proxy, address) = proxy(&[backend.address]);
        let mut client = client(address).await;
        let mut responses = Vec::new();
        for _ in 0..9 {
            responses.push(send(&mut client, get("/"), true).await.0);
        }
        // Every stream is with the backend, none waits for another to end.
        until(|| backend.streams() == 9).await;
        assert_eq!(backend.connections(), 5);
        release.send(true).expect("release");
        for response in responses {
            assert_eq!(response.await.expect("response").status(), StatusCode::OK);
        }
    })
    .await;
}
