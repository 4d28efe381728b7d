//! Timeouts of downstream connections, by a clock that only the test moves: minutes pass while nobody has anything to do.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::{JoinHandle, LocalSet, spawn_local};

use super::*;
use crate::balance::Policy;
use crate::l7::table::{BackendSpec, ServiceSpec};
use crate::l7::{ServiceStats, listener};

mod idle_requests;
mod idle_streams;

const IDLE_TIMEOUT_MS: u64 = 300_000;
const IDLE_TIMEOUT: Duration = Duration::from_millis(IDLE_TIMEOUT_MS);

/// A worker with one service, on the runtime of the test.
struct World {
    shared: Arc<Shared>,
    address: SocketAddr,
    _commands: mpsc::UnboundedSender<Command>,
}

impl World {
    fn start(backend: SocketAddr) -> Self {
        Self::with(0, backend)
    }

    fn with(stream_idle_timeout_ms: u64, backend: SocketAddr) -> Self {
        let limits = Limits {
            stream_idle_timeout_ms,
            idle_timeout_ms: IDLE_TIMEOUT_MS,
            // By this clock an answer may take any time, or none.
            detect_timeout_ms: 86_400_000,
            connect_timeout_ms: 86_400_000,
            keepalive_timeout_ms: 86_400_000,
            ..Limits::default()
        };
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listeners = listener::bind(any, 1).expect("bind");
        let address = listeners[0].local_addr().expect("address");
        let shared = Arc::new(Shared::new(limits));
        let spec = ServiceSpec {
            address,
            name: "test".to_owned(),
            policy: Policy::RoundRobin,
            backends: vec![BackendSpec {
                address: backend,
                weight: 1,
                draining: false,
            }],
            any_address: false,
        };
        shared.replace(|table| table.replaced_by(vec![spec], 1));
        let (sender, commands) = mpsc::unbounded_channel();
        spawn_local(serve(0, shared.clone(), listeners, commands));
        Self {
            shared,
            address,
            _commands: sender,
        }
    }

    fn stats(&self) -> ServiceStats {
        self.shared.table().services[0].stats()
    }

    async fn http2(&self) -> (h2::client::SendRequest<Bytes>, JoinHandle<()>) {
        let socket = TcpStream::connect(self.address).await.expect("connect");
        let (sender, connection) = h2::client::handshake(socket).await.expect("handshake");
        let task = spawn_local(async move {
            let _ = connection.await;
        });
        (sender, task)
    }

    async fn http1(&self, head: &str) -> TcpStream {
        let mut client = TcpStream::connect(self.address).await.expect("connect");
        client.write_all(head.as_bytes()).await.expect("write");
        client
    }
}

async fn on_one_thread(test: impl Future<Output = ()>) {
    LocalSet::new().run_until(test).await;
}

/// Serves each connection with `serve`.
async fn backend<F: Future<Output = ()> + 'static>(
    serve: impl Fn(TcpStream) -> F + 'static,
) -> SocketAddr {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = TcpListener::bind(any).await.expect("bind");
    let address = listener.local_addr().expect("address");
    spawn_local(async move {
        while let Ok((socket, _)) = listener.accept().await {
            spawn_local(serve(socket));
        }
    });
    address
}

/// A backend that sends the head of each response at once, and its end when it is released.
async fn held_http2() -> (SocketAddr, watch::Sender<bool>) {
    held_http2_with(Bytes::new()).await
}

/// The same with content at the end.
async fn held_http2_with(end: Bytes) -> (SocketAddr, watch::Sender<bool>) {
    let (release, released) = watch::channel(false);
    let address = backend(move |socket| {
        let (released, end) = (released.clone(), end.clone());
        async move {
            let mut connection = h2::server::handshake(socket).await.expect("handshake");
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                let (mut released, end) = (released.clone(), end.clone());
                spawn_local(async move {
                    let mut content = respond
                        .send_response(Response::new(()), false)
                        .expect("head");
                    let _ = released.wait_for(|released| *released).await;
                    content.send_data(end, true).expect("end");
                });
            }
        }
    })
    .await;
    (address, release)
}

/// The head that comes next.
async fn head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.expect("a whole head"));
    }
    String::from_utf8(head).expect("text").to_lowercase()
}

#[tokio::test]
async fn a_connection_with_a_silent_stream_is_not_idle() {
    on_one_thread(async {
        let (backend, release) = held_http2().await;
        let world = World::start(backend);
        let (mut client, connection) = world.http2().await;
        let (_idle, idle) = world.http2().await;
        let request = Request::get("http://test/").body(()).expect("request");
        let (response, _) = client.send_request(request, true).expect("send");
        let mut content = response.await.expect("head").into_body();
        tokio::time::pause();
        tokio::time::sleep(2 * IDLE_TIMEOUT).await;
        assert!(idle.is_finished(), "the one without a stream had to go");
        client = client.ready().await.expect("not asked to go away");
        release.send(true).expect("release");
        while content.data().await.is_some() {}
        tokio::time::sleep(2 * IDLE_TIMEOUT).await;
        assert!(connection.is_finished(), "and this one, without a stream");
        drop(client);
    })
    .await;
}

#[tokio::test]
async fn a_connection_with_a_silent_request_is_not_idle() {
    on_one_thread(async {
        let (release, released) = watch::channel(false);
        let backend = backend(move |mut socket| {
            let mut released = released.clone();
            async move {
                head(&mut socket).await;
                let _ = released.wait_for(|released| *released).await;
                let answer = b"HTTP/1.1 204 No Content\r\n\r\n";
                socket.write_all(answer).await.expect("write");
            }
        })
        .await;
        let world = World::start(backend);
        let mut client = world.http1("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        while world.stats().backends[0].streams_active == 0 {
            tokio::task::yield_now().await;
        }
        tokio::time::pause();
        tokio::time::sleep(2 * IDLE_TIMEOUT).await;
        release.send(true).expect("release");
        let head = head(&mut client).await;
        assert!(head.starts_with("http/1.1 204"), "{head}");
        assert!(!head.contains("connection: close"), "{head}");
    })
    .await;
}

/// A backend that answers each request head with `answer`, and then sends without end.
async fn endless(answer: &'static str) -> SocketAddr {
    backend(move |mut socket| async move {
        head(&mut socket).await;
        let _ = socket.write_all(answer.as_bytes()).await;
        while socket.write_all(&[0; 16_384]).await.is_ok() {}
    })
    .await
}

/// Looks once a second, until the connection was closed because it stalled.
async fn stalls(world: &World) {
    while world.stats().stalled == 0 {
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(world.stats().connections_active, 0);
}

#[tokio::test]
async fn an_http1_client_that_takes_nothing_is_closed() {
    on_one_thread(async {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n";
        let world = World::start(endless(answer).await);
        let _client = world.http1("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        tokio::time::pause();
        stalls(&world).await;
    })
    .await;
}

#[tokio::test]
async fn a_tunnel_whose_client_takes_nothing_is_closed() {
    on_one_thread(async {
        let switch =
            "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
        let world = World::start(endless(switch).await);
        let request =
            "GET / HTTP/1.1\r\nHost: test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        let mut client = world.http1(request).await;
        assert!(head(&mut client).await.starts_with("http/1.1 101"));
        tokio::time::pause();
        stalls(&world).await;
    })
    .await;
}

/// A request of a client with the largest windows that there are: what it does not read waits in sockets.
fn http2_with_large_windows() -> Vec<u8> {
    let mut bytes = detect::PREFACE.to_vec();
    // SETTINGS_INITIAL_WINDOW_SIZE, WINDOW_UPDATE of the connection, and GET http://a/ that ends its stream (RFC 7541).
    bytes.extend([0, 0, 6, 4, 0, 0, 0, 0, 0, 0, 4, 0x7F, 0xFF, 0xFF, 0xFF]);
    bytes.extend([0, 0, 4, 8, 0, 0, 0, 0, 0, 0x7F, 0xFF, 0, 0]);
    bytes.extend([0, 0, 6, 1, 5, 0, 0, 0, 1, 0x82, 0x86, 0x84, 0x41, 1, b'a']);
    bytes
}

async fn endless_http2() -> SocketAddr {
    backend(|socket| async move {
        let mut connection = h2::server::handshake(socket).await.expect("handshake");
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            spawn_local(async move {
                let mut content = respond
                    .send_response(Response::new(()), false)
                    .expect("head");
                loop {
                    content.reserve_capacity(16_384);
                    let room = std::future::poll_fn(|cx| content.poll_capacity(cx)).await;
                    let Some(Ok(room)) = room else { return };
                    let part = Bytes::from(vec![0; room]);
                    if content.send_data(part, false).is_err() {
                        return;
                    }
                }
            });
        }
    })
    .await
}

#[tokio::test]
async fn an_http2_client_that_reads_slowly_is_not_closed_until_it_reads_nothing() {
    on_one_thread(async {
        let world = World::start(endless_http2().await);
        let mut client = TcpStream::connect(world.address).await.expect("connect");
        let request = http2_with_large_windows();
        client.write_all(&request).await.expect("write");
        tokio::time::pause();
        let mut some = vec![0; 4 << 20];
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(30)).await;
            client.read_exact(&mut some).await.expect("content");
        }
        assert_eq!(world.stats().stalled, 0);
        stalls(&world).await;
    })
    .await;
}
