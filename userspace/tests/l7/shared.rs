//! Many clients' streams share an upstream connection: what befalls some of them ends none of the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use bytes::Bytes;
use evenkeel::l7::{Limits, Policy};
use h2::{Reason, SendStream};
use http::{Response, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::frames::*;
use crate::support::*;

/// A backend that answers each stream with a head alone, and has a byte of content on its way when the stream is reset.
async fn crossing() -> (
    std::net::SocketAddr,
    tokio::sync::mpsc::UnboundedReceiver<u8>,
) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let (told, frames) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.expect("accept");
        let mut preface = vec![0; PREFACE.len()];
        socket.read_exact(&mut preface).await.expect("preface");
        let settings = frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0x7F, 0xFF]);
        socket.write_all(&settings).await.expect("write");
        while let Ok((kind, stream, _)) = next_frame(&mut socket).await {
            let answer = match kind {
                // `:status: 200` (RFC 7541, appendix A).
                HEADERS => frame(HEADERS, END_HEADERS, stream, &[0x88]),
                RST_STREAM => frame(DATA, 0, stream, b"x"),
                _ => continue,
            };
            let _ = told.send(kind);
            socket.write_all(&answer).await.expect("write");
        }
    });
    (address, frames)
}

#[tokio::test]
async fn cancelled_streams_never_end_an_upstream_connection() {
    within(async {
        const STREAMS: usize = 500;
        let (backend, mut frames) = crossing().await;
        let limits = Limits {
            max_streams: STREAMS as u32 + 1,
            upstream_streams: STREAMS as u32 + 1,
            ..one_worker()
        };
        let (proxy, address) = proxy_with(limits, Policy::RoundRobin, &[backend]);
        let mut client = client(address).await;
        let mut open = Vec::new();
        for _ in 0..STREAMS {
            let (response, stream) = send(&mut client, get("/"), true).await;
            open.push((response.await.expect("response"), stream));
        }
        let survivor = fetch(&mut client, get("/")).await.expect("response");
        for (_, stream) in &mut open {
            stream.send_reset(Reason::CANCEL);
        }
        let mut resets = 0;
        while resets < STREAMS {
            resets += usize::from(frames.recv().await.expect("connected") == RST_STREAM);
        }
        // What crossed the resets is there before the answer to one more request.
        let response = fetch(&mut client, get("/")).await.expect("response");
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(proxy.stats().services[0].backends[0].upstream_opened, 1);
        drop(survivor);
    })
    .await;
}

/// Streams that stall, and the small messages with which each fills a window of the proxy.
const STALLED: usize = 16;
const MESSAGE: &[u8] = &[7; 20];
const MESSAGES: usize = 128 * 1024 / MESSAGE.len();

/// Sends small messages, one a DATA frame, as long as the windows allow, and counts them.
async fn send_messages(mut stream: SendStream<Bytes>, sent: Arc<AtomicUsize>) {
    while write(&mut stream, Bytes::from_static(MESSAGE), false)
        .await
        .is_ok()
    {
        sent.fetch_add(1, SeqCst);
        // `h2` never makes a sender wait while there is a window, and the test has one thread.
        tokio::task::yield_now().await;
    }
}

/// A client that is not what is tested: its own budget is without end, and no stream takes the window of another.
fn patient_client() -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .data_frame_budget(usize::MAX)
        .initial_connection_window_size(16 << 20);
    builder
}

#[tokio::test]
async fn small_messages_that_wait_for_slow_clients_end_no_upstream_connection() {
    within(async {
        let sent = Arc::new(AtomicUsize::new(0));
        let counter = sent.clone();
        let backend = Backend::start(move |(request, mut respond)| {
            let sent = counter.clone();
            async move {
                let endless = request.uri().path() == "/endless";
                let stream = respond.send_response(Response::new(()), !endless);
                if endless {
                    send_messages(stream.expect("respond"), sent).await;
                }
            }
        })
        .await;
        let (proxy, address) = proxy(&[backend.address]);
        let (mut client, _task) = client_with(&patient_client(), address).await;
        let mut slow = Vec::new();
        for _ in 0..STALLED {
            slow.push(fetch(&mut client, get("/endless")).await.expect("response"));
        }
        until(|| sent.load(SeqCst) >= STALLED * MESSAGES).await;
        let response = fetch(&mut client, get("/")).await.expect("response");
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(proxy.stats().services[0].backends[0].upstream_opened, 1);
        let (_, content) = slow.swap_remove(0).into_parts();
        let first = read_some(content).await;
        assert!(first.iter().all(|byte| *byte == MESSAGE[0]));
    })
    .await;
}

/// More than any window holds, released as it comes.
async fn read_some(mut content: h2::RecvStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < 500_000 {
        let chunk = content.data().await.expect("more").expect("content");
        let _ = content.flow_control().release_capacity(chunk.len());
        bytes.extend_from_slice(&chunk);
    }
    bytes
}

#[tokio::test]
async fn small_messages_that_wait_for_a_slow_backend_end_no_client_connection() {
    within(async {
        let mut patient = h2::server::Builder::new();
        patient.data_frame_budget(usize::MAX);
        let backend = Backend::with(patient, None, |(request, mut respond)| async move {
            if request.uri().path() == "/silent" {
                std::future::pending::<()>().await;
            }
            let _: Result<SendStream<Bytes>, _> = respond.send_response(Response::new(()), true);
        })
        .await;
        let (proxy, address) = proxy(&[backend.address]);
        let (mut client, _task) = client_with(&patient_client(), address).await;
        // A connection to the backend is there before it has to compete with the messages.
        fetch(&mut client, get("/")).await.expect("response");
        let sent = Arc::new(AtomicUsize::new(0));
        let mut unanswered = Vec::new();
        for _ in 0..STALLED {
            let (response, stream) = send(&mut client, get("/silent"), false).await;
            unanswered.push(response);
            tokio::spawn(send_messages(stream, sent.clone()));
        }
        until(|| sent.load(SeqCst) >= STALLED * MESSAGES).await;
        let response = fetch(&mut client, get("/")).await.expect("response");
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(proxy.stats().services[0].floods, 0);
    })
    .await;
}
