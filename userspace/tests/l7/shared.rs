//! Many clients' streams share an upstream connection: what befalls some of them ends none of the others.

use evenkeel::l7::{Limits, Policy};
use h2::Reason;
use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::*;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, payload.len() as u8, kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// Type, flags and stream of the next frame, and its payload.
async fn next_frame(socket: &mut TcpStream) -> std::io::Result<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    socket.read_exact(&mut head).await?;
    let [a, b, c, kind, flags, stream @ ..] = head;
    let length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
    let mut payload = vec![0; length];
    socket.read_exact(&mut payload).await?;
    Ok((kind, flags, u32::from_be_bytes(stream), payload))
}

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
        while let Ok((kind, _, stream, _)) = next_frame(&mut socket).await {
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
