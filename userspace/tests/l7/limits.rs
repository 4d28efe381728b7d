//! What a hostile client can do is bounded, and never ends the proxy.

use bytes::Bytes;
use evenkeel::l7::{Limits, Policy};
use h2::Reason;
use http::{Request, Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, payload.len() as u8, kind, 0, 0, 0, 0, 0];
    bytes.extend_from_slice(payload);
    bytes
}

/// The error code of the first GOAWAY that carries one, of all frames until the peer closes.
fn goaway_code(mut bytes: &[u8]) -> Option<u32> {
    while let [a, b, c, kind, rest @ ..] = bytes {
        let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
        let payload = rest.get(5..5 + length)?;
        if *kind == GOAWAY {
            return payload.get(4..8)?.try_into().ok().map(u32::from_be_bytes);
        }
        bytes = &rest[5 + length..];
    }
    None
}

#[tokio::test]
async fn a_header_list_that_is_too_large_is_refused() {
    within(async {
        let backend = Backend::named("a").await;
        let limits = Limits {
            max_header_list: 1_000,
            ..one_worker()
        };
        let (_proxy, address) = proxy_with(limits, Policy::RoundRobin, &[backend.address]);
        let mut client = client(address).await;
        let mut request = get("/");
        let long = "x".repeat(2_000).parse().expect("value");
        request.headers_mut().insert("long", long);
        let response = fetch(&mut client, request).await.expect("response");
        assert_eq!(
            response.status(),
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
        );
        let response = fetch(&mut client, get("/")).await.expect("response");
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(backend.streams(), 1);
    })
    .await;
}

#[tokio::test]
async fn clients_are_told_the_stream_limit() {
    within(async {
        let backend = Backend::named("a").await;
        let limits = Limits {
            max_streams: 3,
            ..one_worker()
        };
        let (_proxy, address) = proxy_with(limits, Policy::RoundRobin, &[backend.address]);
        let mut client = client(address).await;
        fetch(&mut client, get("/")).await.expect("response");
        assert_eq!(client.current_max_send_streams(), 3);
    })
    .await;
}

#[tokio::test]
async fn a_client_that_keeps_resetting_is_told_to_calm_down() {
    within(async {
        let backend = Backend::start(|(_, _respond)| std::future::pending()).await;
        let limits = Limits {
            reset_burst: 50,
            reset_rate: 0,
            ..one_worker()
        };
        let (proxy, address) = proxy_with(limits, Policy::RoundRobin, &[backend.address]);
        let (client, connection) = client_with(&h2::client::Builder::new(), address).await;
        for _ in 0..1_000 {
            let Ok(mut ready) = client.clone().ready().await else {
                break;
            };
            let Ok((_, mut stream)) = ready.send_request(get("/"), true) else {
                break;
            };
            // Let it leave, else the request is never sent.
            tokio::task::yield_now().await;
            stream.send_reset(Reason::CANCEL);
        }
        let error = connection.await.expect("task").expect_err("closed");
        assert_eq!(error.reason(), Some(Reason::ENHANCE_YOUR_CALM));
        assert_eq!(proxy.stats().services[0].floods, 1);
        until(|| proxy.stats().services[0].backends[0].streams_active == 0).await;
    })
    .await;
}

#[tokio::test]
async fn floods_of_control_frames_end_the_connection_and_no_other() {
    within(async {
        let backend = Backend::named("a").await;
        let (proxy, address) = proxy(&[backend.address]);
        let mut honest = client(address).await;
        for flood in [frame(PING, &[0; 8]), frame(SETTINGS, &[])] {
            let mut client = TcpStream::connect(address).await.expect("connect");
            client.write_all(PREFACE).await.expect("write");
            client
                .write_all(&frame(SETTINGS, &[]))
                .await
                .expect("write");
            let (mut read, mut write) = client.into_split();
            let writing = tokio::spawn(async move {
                let burst = flood.repeat(100);
                while write.write_all(&burst).await.is_ok() {}
            });
            let mut answer = Vec::new();
            let _ = read.read_to_end(&mut answer).await;
            if let Some(code) = goaway_code(&answer) {
                assert_eq!(code, u32::from(Reason::ENHANCE_YOUR_CALM));
            }
            writing.await.expect("writer");
            let response = fetch(&mut honest, get("/")).await.expect("response");
            assert_eq!(response.status(), StatusCode::OK);
        }
        assert_eq!(proxy.stats().services[0].floods, 2);
    })
    .await;
}

#[tokio::test]
async fn malformed_frames_end_their_connection_and_no_other() {
    within(async {
        let backend = Backend::named("a").await;
        let (_proxy, address) = proxy(&[backend.address]);
        let mut honest = client(address).await;
        let mut noise = 0x9E37_79B9_7F4A_7C15u64;
        for round in 0..200usize {
            let mut bytes = PREFACE.to_vec();
            bytes.extend(frame(SETTINGS, &[]));
            for _ in 0..round {
                noise ^= noise << 13;
                noise ^= noise >> 7;
                noise ^= noise << 17;
                // Half of it looks like frames, so that it gets further than the first header.
                match noise % 2 {
                    0 => bytes.extend(frame((noise >> 8) as u8 % 11, &noise.to_be_bytes())),
                    _ => bytes.extend(noise.to_be_bytes()),
                }
            }
            let mut client = TcpStream::connect(address).await.expect("connect");
            let _ = client.write_all(&bytes).await;
            let _ = client.shutdown().await;
            let mut answer = Vec::new();
            let _ = client.read_to_end(&mut answer).await;
        }
        let response = fetch(&mut honest, get("/")).await.expect("response");
        assert_eq!(response.status(), StatusCode::OK);
    })
    .await;
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_at_once() {
    within(async {
        let backend = Backend::named("a").await;
        let limits = Limits {
            max_connections: 1,
            ..one_worker()
        };
        let (proxy, address) = proxy_with(limits, Policy::RoundRobin, &[backend.address]);
        let mut first = client(address).await;
        fetch(&mut first, get("/")).await.expect("response");
        // The reset may come before or after `connect` returns.
        if let Ok(mut second) = TcpStream::connect(address).await {
            let mut nothing = [0; 1];
            assert!(!matches!(second.read(&mut nothing).await, Ok(1..)));
        }
        until(|| proxy.stats().connections_refused == 1).await;
        fetch(&mut first, get("/")).await.expect("response");
    })
    .await;
}

#[tokio::test]
async fn a_silent_connection_is_closed_after_the_deadline() {
    within(async {
        let limits = Limits {
            detect_timeout_ms: 50,
            ..one_worker()
        };
        let nobody = Nobody::new();
        let (_proxy, address) = proxy_with(limits, Policy::RoundRobin, &[nobody.address]);
        let mut client = TcpStream::connect(address).await.expect("connect");
        let mut answer = Vec::new();
        // Where the deadline passes before these bytes come, they are answered by a reset: closed all the same.
        let _ = client.write_all(b"PRI * ").await;
        let _ = client.read_to_end(&mut answer).await;
        assert!(answer.is_empty());
    })
    .await;
}

#[tokio::test]
async fn a_backend_without_limits_on_its_headers_is_bounded_too() {
    within(async {
        let backend = Backend::start(|(_, mut respond)| async move {
            let response = Response::builder()
                .header("long", "x".repeat(5_000))
                .body(())
                .expect("response");
            let _: Result<h2::SendStream<Bytes>, _> = respond.send_response(response, true);
        })
        .await;
        let limits = Limits {
            max_header_list: 1_000,
            ..one_worker()
        };
        let (_proxy, address) = proxy_with(limits, Policy::RoundRobin, &[backend.address]);
        let request = Request::get("http://test/").body(()).expect("request");
        let response = fetch(&mut client(address).await, request)
            .await
            .expect("response");
        assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_finds_every_upstream_connection_full_is_refused_and_counted() {
    within(async {
        let backend = Backend::start(|(_, respond)| async move {
            std::future::pending::<()>().await;
            drop(respond);
        })
        .await;
        let limits = Limits {
            upstream_connections: 1,
            upstream_streams: 1,
            ..one_worker()
        };
        let (proxy, address) = proxy_with(limits, Policy::RoundRobin, &[backend.address]);
        let mut client = client(address).await;
        let (_unanswered, _) = send(&mut client, get("/"), true).await;
        until(|| backend.streams() == 1).await;
        let response = fetch(&mut client, get("/")).await.expect("response");
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        let stats = &proxy.stats().services[0];
        assert_eq!((stats.backends[0].upstream_full, stats.no_backend), (1, 1));
    })
    .await;
}
