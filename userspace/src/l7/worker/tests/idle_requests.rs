//! Requests of HTTP/1.1 in which nothing moves, by the same clock.

use super::*;

const PATIENCE_MS: u64 = 100_000;
const REQUEST: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

/// A backend that answers each request head with `answer`, and then is silent; tells when its client is gone.
async fn silent(answer: &'static str) -> (SocketAddr, mpsc::UnboundedReceiver<()>) {
    let (told, gone) = mpsc::unbounded_channel();
    let address = backend(move |mut socket| {
        let told = told.clone();
        async move {
            head(&mut socket).await;
            socket.write_all(answer.as_bytes()).await.expect("write");
            let _ = socket.read_to_end(&mut Vec::new()).await;
            let _ = told.send(());
        }
    })
    .await;
    (address, gone)
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_request_that_its_backend_does_not_answer_is_answered_and_counted() {
    on_one_thread(async {
        let (backend, mut gone) = silent("").await;
        let world = World::with(PATIENCE_MS, backend);
        let mut client = world.http1(REQUEST).await;
        // Again on the same connection: the first one's end is not the second one's.
        for ended in 1..=2 {
            until(|| world.stats().backends[0].streams_active == 1).await;
            tokio::time::pause();
            let answer = head(&mut client).await;
            assert!(answer.starts_with("http/1.1 504"), "{answer}");
            gone.recv()
                .await
                .expect("the backend's connection is closed");
            tokio::time::resume();
            let stats = &world.stats().backends[0];
            assert_eq!(
                (stats.streams_timed_out, stats.streams_active),
                (ended, 0),
                "{stats:?}"
            );
            let text = "evenkeel: stream idle for too long\n";
            let mut content = vec![0; text.len()];
            client.read_exact(&mut content).await.expect("content");
            assert_eq!(String::from_utf8_lossy(&content), text);
            client.write_all(REQUEST.as_bytes()).await.expect("write");
        }
    })
    .await;
}

#[tokio::test]
async fn a_response_that_stops_ends_the_connections_on_both_sides() {
    on_one_thread(async {
        let (backend, mut gone) = silent("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await;
        let world = World::with(PATIENCE_MS, backend);
        let mut client = world.http1(REQUEST).await;
        assert!(head(&mut client).await.starts_with("http/1.1 200"));
        tokio::time::pause();
        let mut content = Vec::new();
        let _ = client.read_to_end(&mut content).await;
        assert_eq!(content, b"half");
        gone.recv()
            .await
            .expect("the backend's connection is closed");
        let stats = &world.stats().backends[0];
        assert_eq!((stats.streams_timed_out, stats.streams_active), (1, 0));
    })
    .await;
}

#[tokio::test]
async fn a_request_is_not_idle_while_its_content_moves() {
    on_one_thread(async {
        let (backend, _gone) = silent("").await;
        let world = World::with(PATIENCE_MS, backend);
        let mut client = world
            .http1("POST / HTTP/1.1\r\nHost: test\r\ncontent-length: 1000\r\n\r\n")
            .await;
        for round in 1..=6 {
            until(|| world.stats().backends[0].streams_active == 1).await;
            tokio::time::pause();
            tokio::time::sleep(Duration::from_millis(PATIENCE_MS / 2)).await;
            tokio::time::resume();
            client.write_all(b"still here").await.expect("not closed");
            until(|| world.stats().backends[0].request_bytes == 10 * round).await;
        }
        assert_eq!(world.stats().backends[0].streams_timed_out, 0);
        tokio::time::pause();
        let answer = head(&mut client).await;
        assert!(answer.starts_with("http/1.1 504"), "{answer}");
    })
    .await;
}

#[tokio::test]
async fn a_tunnel_in_which_nobody_speaks_is_not_ended() {
    on_one_thread(async {
        let switch =
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        let (backend, _gone) = silent(switch).await;
        let world = World::with(PATIENCE_MS, backend);
        let request =
            "GET / HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        let mut client = world.http1(request).await;
        assert!(head(&mut client).await.starts_with("http/1.1 101"));
        tokio::time::pause();
        tokio::time::sleep(Duration::from_millis(20 * PATIENCE_MS)).await;
        let stats = &world.stats().backends[0];
        assert_eq!((stats.streams_timed_out, stats.streams_active), (0, 1));
    })
    .await;
}
