//! HTTP/1.1 passes the same listener unchanged.

use std::net::SocketAddr;

use evenkeel::l7::{Limits, Policy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::*;

/// A backend that answers every connection with `script`: for each request head that it reads, the next answer. Reports
/// the request heads.
async fn scripted(
    answers: &'static [&'static str],
) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address");
    let (told, heads) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.expect("accept");
            let told = told.clone();
            tokio::spawn(async move {
                for answer in answers {
                    let head = read_until(&mut socket, "\r\n\r\n").await;
                    if head.is_empty() {
                        return;
                    }
                    let _ = told.send(head);
                    let _ = socket.write_all(answer.as_bytes()).await;
                }
                // After the script: echo, as a tunnel would.
                let (mut read, mut write) = socket.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    (address, heads)
}

#[tokio::test]
async fn kept_connections_carry_request_after_request() {
    within(async {
        const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        let (backend, mut heads) = scripted(&[OK, OK, OK]).await;
        let (proxy, address) = proxy(&[backend]);
        let mut client = TcpStream::connect(address).await.expect("connect");
        for round in 0..3 {
            let request = format!("GET /{round} HTTP/1.1\r\nHost: test\r\nKeep-Alive: 5\r\n\r\n");
            client.write_all(request.as_bytes()).await.expect("write");
            let response = read_until(&mut client, "\r\n\r\nok").await;
            assert!(response.starts_with("HTTP/1.1 200"), "{response}");
            let head = heads.recv().await.expect("head").to_lowercase();
            assert!(
                head.starts_with(&format!("get /{round} http/1.1")),
                "{head}"
            );
            assert!(head.contains("host: test") && !head.contains("keep-alive"));
        }
        let stats = &proxy.stats().services[0];
        assert_eq!(stats.http1_connections, 1);
        assert_eq!(stats.backends[0].streams_opened, 3);
        let request = "GET /0 HTTP/1.1\r\nHost: test\r\nKeep-Alive: 5\r\n\r\n";
        assert_eq!(stats.received_bytes, 3 * request.len() as u64);
        // Headers of ours besides.
        assert!(stats.sent_bytes >= 3 * OK.len() as u64);
    })
    .await;
}

#[tokio::test]
async fn an_upgrade_becomes_a_tunnel() {
    within(async {
        const SWITCH: &str =
            "HTTP/1.1 101 Switching Protocols\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\r\n";
        let (backend, mut heads) = scripted(&[SWITCH]).await;
        let (proxy, address) = proxy(&[backend]);
        let mut client = TcpStream::connect(address).await.expect("connect");
        client
            .write_all(
                b"GET /chat HTTP/1.1\r\nHost: test\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\n",
            )
            .await
            .expect("write");
        let response = read_until(&mut client, "\r\n\r\n").await.to_lowercase();
        assert!(response.starts_with("http/1.1 101"), "{response}");
        assert!(response.contains("upgrade: websocket"));
        let head = heads.recv().await.expect("head").to_lowercase();
        assert!(head.contains("connection: upgrade") && head.contains("upgrade: websocket"));
        for message in ["\u{1}frame\0", "another"] {
            client.write_all(message.as_bytes()).await.expect("write");
            assert_eq!(read_until(&mut client, message).await, message);
        }
        assert_eq!(proxy.stats().services[0].backends[0].streams_active, 1);
        drop(client);
        until(|| proxy.stats().services[0].backends[0].streams_active == 0).await;
    })
    .await;
}

#[tokio::test]
async fn an_upgrade_to_h2c_is_answered_as_http1() {
    within(async {
        const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        let (backend, mut heads) = scripted(&[OK, OK]).await;
        let (_proxy, address) = proxy(&[backend]);
        let mut client = TcpStream::connect(address).await.expect("connect");
        // Twice: the connection stays one of HTTP/1.1.
        for _ in 0..2 {
            client
                .write_all(
                    b"GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade, HTTP2-Settings\r\n\
                      Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
                )
                .await
                .expect("write");
            let response = read_until(&mut client, "\r\n\r\nok").await;
            assert!(response.starts_with("HTTP/1.1 200"), "{response}");
            let head = heads.recv().await.expect("head").to_lowercase();
            for gone in ["upgrade", "h2c", "http2-settings"] {
                assert!(!head.contains(gone), "{head}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn chunked_content_and_trailers_arrive() {
    within(async {
        const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: checksum\r\n\r\n\
                               5\r\nhello\r\n0\r\nchecksum: 1\r\n\r\n";
        let (backend, _heads) = scripted(&[CHUNKED]).await;
        let (_proxy, address) = proxy(&[backend]);
        let mut client = TcpStream::connect(address).await.expect("connect");
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: test\r\nTE: trailers\r\n\r\n")
            .await
            .expect("write");
        let response = read_until(&mut client, "checksum: 1\r\n\r\n").await;
        assert!(response.contains("5\r\nhello\r\n0\r\n"), "{response}");
    })
    .await;
}

#[tokio::test]
async fn chunked_content_of_a_get_arrives_and_its_length_can_be_read_one_way_only() {
    within(async {
        for length in ["", "Content-Length: 3\r\n"] {
            const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
            let (_proxy, address) = proxy(&[listener.local_addr().expect("address")]);
            let mut client = TcpStream::connect(address).await.expect("connect");
            let request = format!(
                "GET / HTTP/1.1\r\nHost: test\r\n{length}Transfer-Encoding: chunked\r\n\r\n\
                 5\r\nhello\r\n0\r\n\r\n"
            );
            client.write_all(request.as_bytes()).await.expect("write");
            let (mut backend, _) = listener.accept().await.expect("accept");
            let head = read_until(&mut backend, "\r\n\r\n").await.to_lowercase();
            assert!(head.contains("transfer-encoding: chunked"), "{head}");
            assert!(!head.contains("content-length"), "{head}");
            let content = read_until(&mut backend, "0\r\n\r\n").await;
            assert_eq!(content, "5\r\nhello\r\n0\r\n\r\n");
            backend.write_all(OK.as_bytes()).await.expect("write");
            read_until(&mut client, "\r\n\r\nok").await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_dead_backend_costs_no_request_and_none_left_is_503() {
    within(async {
        const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        let (backend, _heads) = scripted(&[OK, OK, OK, OK]).await;
        let nobody = Nobody::new();
        let dead = nobody.address;
        let (proxy, address) = proxy(&[dead, backend]);
        let mut client = TcpStream::connect(address).await.expect("connect");
        for _ in 0..4 {
            client
                .write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
                .await
                .expect("write");
            let response = read_until(&mut client, "\r\n\r\nok").await;
            assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        }
        proxy.update(vec![service(address, Policy::RoundRobin, &[dead])]);
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
            .await
            .expect("write");
        let response = read_until(&mut client, "available\n").await;
        assert!(response.starts_with("HTTP/1.1 503"), "{response}");
    })
    .await;
}

#[tokio::test]
async fn what_is_not_http_is_answered_and_closed() {
    within(async {
        let nobody = Nobody::new();
        let (_proxy, address) = proxy(&[nobody.address]);
        let mut client = TcpStream::connect(address).await.expect("connect");
        client
            .write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
            .await
            .expect("write");
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer).await;
        assert!(answer.starts_with(b"HTTP/1.1 400"), "{answer:?}");
    })
    .await;
}

#[tokio::test]
async fn connections_beyond_those_that_may_be_kept_are_closed_and_counted() {
    within(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let backend = listener.local_addr().expect("address");
        let limits = Limits {
            http1_idle_connections: 1,
            ..one_worker()
        };
        let (proxy, address) = proxy_with(limits, Policy::RoundRobin, &[backend]);
        // Two requests at once, so that there are two connections to the backend.
        let (mut clients, mut connections) = (Vec::new(), Vec::new());
        for _ in 0..2 {
            let mut client = TcpStream::connect(address).await.expect("connect");
            let request = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n";
            client.write_all(request).await.expect("write");
            let (mut connection, _) = listener.accept().await.expect("accept");
            read_until(&mut connection, "\r\n\r\n").await;
            clients.push(client);
            connections.push(connection);
        }
        for connection in &mut connections {
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
            connection.write_all(answer).await.expect("write");
        }
        for client in &mut clients {
            read_until(client, "\r\n\r\nok").await;
        }
        until(|| proxy.stats().services[0].backends[0].http1_not_kept == 1).await;
    })
    .await;
}

#[tokio::test]
async fn content_with_a_transfer_coding_that_would_lose_its_label_is_refused() {
    within(async {
        const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        let (backend, mut heads) = scripted(&[OK]).await;
        let (_proxy, address) = proxy(&[backend]);
        for codings in [
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
        ] {
            let mut client = TcpStream::connect(address).await.expect("connect");
            let request =
                format!("POST /gzip HTTP/1.1\r\nHost: test\r\n{codings}\r\n\r\n2\r\nhi\r\n0\r\n\r\n");
            client.write_all(request.as_bytes()).await.expect("write");
            let response = read_until(&mut client, "coding\n").await;
            assert!(response.starts_with("HTTP/1.1 501"), "{response}");
        }
        // Chunked alone passes, and is the first that the backend sees.
        let mut client = TcpStream::connect(address).await.expect("connect");
        let request = "POST /chunked HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
        client.write_all(request.as_bytes()).await.expect("write");
        let response = read_until(&mut client, "\r\n\r\nok").await;
        assert!(response.starts_with("HTTP/1.1 200"), "{response}");
        let head = heads.recv().await.expect("head").to_lowercase();
        assert!(head.starts_with("post /chunked"), "{head}");
    })
    .await;
}

#[tokio::test]
async fn an_answer_whose_transfer_coding_would_lose_its_label_is_none() {
    within(async {
        const CHUNKED: &str =
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
        const UNTIL_THE_END: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nhi";
        const ANSWERS: [&[&str]; 2] = [&[CHUNKED], &[UNTIL_THE_END]];
        for answers in ANSWERS {
            let (backend, _heads) = scripted(answers).await;
            let (proxy, address) = proxy(&[backend]);
            let mut client = TcpStream::connect(address).await.expect("connect");
            let request = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n";
            client.write_all(request).await.expect("write");
            let response = read_until(&mut client, "backend\n").await;
            assert!(response.starts_with("HTTP/1.1 502"), "{response}");
            let stats = proxy.stats().services[0].backends[0].clone();
            assert_eq!((stats.streams_failed, stats.streams_active), (1, 0));
        }
    })
    .await;
}
