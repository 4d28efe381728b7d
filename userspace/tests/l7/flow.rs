//! Backpressure: a slow stream is slowed down, and nobody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use evenkeel::l7::{Limits, Policy};
use http::{Response, StatusCode};

use crate::support::*;

/// Sends without end on `/endless`, and answers anything else at once. Counts what it could send.
async fn endless() -> (Backend, Arc<AtomicUsize>) {
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = sent.clone();
    let backend = Backend::start(move |(request, mut respond)| {
        let counter = counter.clone();
        async move {
            if request.uri().path() != "/endless" {
                let _ = respond.send_response(Response::new(()), true);
                return;
            }
            let mut stream = respond
                .send_response(Response::new(()), false)
                .expect("respond");
            while write(&mut stream, vec![0; 4096].into(), false)
                .await
                .is_ok()
            {
                counter.fetch_add(4096, SeqCst);
            }
        }
    })
    .await;
    (backend, sent)
}

#[tokio::test]
async fn slow_readers_stall_nobody_else() {
    within(async {
        let (backend, sent) = endless().await;
        let (_proxy, address) = proxy(&[backend.address]);
        let mut client = client(address).await;
        let mut slow = Vec::new();
        for _ in 0..50 {
            slow.push(fetch(&mut client, get("/endless")).await.expect("response"));
        }
        // All of them on one connection on either side, each with its windows full.
        for _ in 0..200 {
            let response = fetch(&mut client, get("/")).await.expect("response");
            assert_eq!(response.status(), StatusCode::OK);
        }
        assert_eq!(backend.connections(), 1);
        let limits = Limits::default();
        // Windows and buffers of both sides: what the client may hold, what the proxy may hold, what the backend's
        // own buffer may hold.
        let most = 50 * (65_535 + 4 * limits.upstream_stream_window as usize + 1024 * 1024);
        assert!(sent.load(SeqCst) < most, "the backend was slowed down");
    })
    .await;
}

#[tokio::test]
async fn large_content_arrives_whole_both_ways() {
    within(async {
        let backend = Backend::start(|(request, mut respond)| async move {
            let mut content = request.into_body();
            let mut stream = respond
                .send_response(Response::new(()), false)
                .expect("respond");
            while let Some(chunk) = content.data().await {
                let chunk = chunk.expect("content");
                let _ = content.flow_control().release_capacity(chunk.len());
                write(&mut stream, chunk, false).await.expect("echo");
            }
            stream.send_data(Bytes::new(), true).expect("end");
        })
        .await;
        let (proxy, address) = proxy(&[backend.address]);
        let client = client(address).await;
        let mut tasks = Vec::new();
        for task in 0..4u8 {
            let mut client = client.clone();
            tasks.push(tokio::spawn(async move {
                let content: Bytes = (0..3_000_000u32).map(|i| (i % 251) as u8 ^ task).collect();
                let (response, mut stream) = send(&mut client, get("/"), false).await;
                let expected = content.clone();
                let upload = tokio::spawn(async move { write(&mut stream, content, true).await });
                let response = response.await.expect("response");
                let (bytes, _) = read(response.into_body()).await.expect("content");
                upload.await.expect("task").expect("upload");
                assert!(bytes == expected, "content differs");
            }));
        }
        for task in tasks {
            task.await.expect("task");
        }
        let stats = &proxy.stats().services[0].backends[0];
        assert_eq!(stats.request_bytes, 12_000_000);
        assert_eq!(stats.response_bytes, 12_000_000);
    })
    .await;
}

#[tokio::test]
async fn windows_smaller_than_a_message_do_not_lock_up() {
    within(async {
        let backend = Backend::start(|(request, mut respond)| async move {
            let (bytes, _) = read(request.into_body()).await.expect("content");
            let mut stream = respond
                .send_response(Response::new(()), false)
                .expect("respond");
            write(&mut stream, bytes.into(), true).await.expect("echo");
        })
        .await;
        let limits = Limits {
            stream_window: 100,
            upstream_stream_window: 100,
            ..one_worker()
        };
        let (_proxy, address) = proxy_with(limits, Policy::P2c, &[backend.address]);
        let (response, mut stream) = send(&mut client(address).await, get("/"), false).await;
        let upload =
            tokio::spawn(async move { write(&mut stream, vec![7; 5_000].into(), true).await });
        let (bytes, _) = read(response.await.expect("response").into_body())
            .await
            .expect("content");
        upload.await.expect("task").expect("upload");
        assert_eq!(bytes, vec![7; 5_000]);
    })
    .await;
}

#[tokio::test]
async fn messages_flow_both_ways_while_the_stream_is_open() {
    within(async {
        let backend = Backend::start(|(request, mut respond)| async move {
            let mut content = request.into_body();
            let mut stream = respond
                .send_response(Response::new(()), false)
                .expect("respond");
            while let Some(Ok(chunk)) = content.data().await {
                let _ = content.flow_control().release_capacity(chunk.len());
                stream.send_data(chunk, false).expect("echo");
            }
            stream.send_data(Bytes::new(), true).expect("end");
        })
        .await;
        let (_proxy, address) = proxy(&[backend.address]);
        let (response, mut stream) = send(&mut client(address).await, grpc(), false).await;
        let mut content = response.await.expect("response").into_body();
        for round in 0..300u32 {
            let message = Bytes::copy_from_slice(&round.to_be_bytes());
            stream.send_data(message.clone(), false).expect("send");
            let echoed = content.data().await.expect("open").expect("content");
            content
                .flow_control()
                .release_capacity(echoed.len())
                .expect("release");
            assert_eq!(echoed, message);
        }
        stream.send_data(Bytes::new(), true).expect("end");
        let (rest, trailers) = read(content).await.expect("end");
        assert!(rest.is_empty() && trailers.is_none());
    })
    .await;
}
