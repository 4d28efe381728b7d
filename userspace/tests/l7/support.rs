//! A proxy, backends that do as they are told, and clients.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use bytes::Bytes;
use evenkeel::l7::{BackendSpec, Limits, Policy, Proxy, ServiceSpec};
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Ends a test that hangs.
pub async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), future)
        .await
        .expect("the test hangs")
}

/// A backend's end of one stream.
pub type Stream = (Request<RecvStream>, SendResponse<Bytes>);

/// A running backend.
pub struct Backend {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    pub streams: Arc<AtomicUsize>,
}

impl Backend {
    /// Serves each stream with `handler`.
    pub async fn start<F, R>(handler: F) -> Self
    where
        F: Fn(Stream) -> R + Clone + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        Self::with(h2::server::Builder::new(), None, handler).await
    }

    /// The same with settings of its own, and a GOAWAY after so many streams of a connection.
    pub async fn with<F, R>(
        builder: h2::server::Builder,
        leave_after: Option<usize>,
        handler: F,
    ) -> Self
    where
        F: Fn(Stream) -> R + Clone + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let backend = Self {
            address: listener.local_addr().expect("address"),
            connections: Arc::default(),
            streams: Arc::default(),
        };
        let (connections, streams) = (backend.connections.clone(), backend.streams.clone());
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.expect("accept");
                connections.fetch_add(1, SeqCst);
                let (builder, handler, streams) =
                    (builder.clone(), handler.clone(), streams.clone());
                tokio::spawn(async move {
                    let Ok(mut connection) = builder.handshake::<_, Bytes>(socket).await else {
                        return;
                    };
                    let mut served = 0;
                    while let Some(Ok(stream)) = connection.accept().await {
                        streams.fetch_add(1, SeqCst);
                        served += 1;
                        if Some(served) == leave_after {
                            connection.graceful_shutdown();
                        }
                        tokio::spawn(handler(stream));
                    }
                });
            }
        });
        backend
    }

    /// Answers every stream at once with its name.
    pub async fn named(name: &'static str) -> Self {
        Self::start(move |(_, mut respond)| async move {
            let response = Response::builder()
                .header("backend", name)
                .body(())
                .expect("response");
            let _ = respond.send_response(response, true);
        })
        .await
    }

    pub fn streams(&self) -> usize {
        self.streams.load(SeqCst)
    }

    pub fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

/// An address on which nobody listens, and which nobody else is given as long as this lives.
pub struct Nobody {
    pub address: SocketAddr,
    socket: TcpSocket,
}

impl Nobody {
    pub fn new() -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        socket.bind(any).expect("bind");
        Self {
            address: socket.local_addr().expect("address"),
            socket,
        }
    }

    /// Somebody listens from now on.
    pub fn listen(self) -> TcpListener {
        self.socket.listen(16).expect("listen")
    }
}

/// One worker, so that what a test sees does not depend on which worker got its connection.
pub fn one_worker() -> Limits {
    Limits {
        workers: 1,
        ..Limits::default()
    }
}

/// A proxy with one service in front of `backends`.
pub fn proxy(backends: &[SocketAddr]) -> (Proxy, SocketAddr) {
    proxy_with(one_worker(), Policy::RoundRobin, backends)
}

/// The same with limits and a policy.
pub fn proxy_with(limits: Limits, policy: Policy, backends: &[SocketAddr]) -> (Proxy, SocketAddr) {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let proxy = Proxy::start(limits, &[any]).expect("start");
    let address = proxy.local_addrs()[0];
    proxy.update(vec![service(address, policy, backends)]);
    (proxy, address)
}

/// A service as the proxy is told of it.
pub fn service(address: SocketAddr, policy: Policy, backends: &[SocketAddr]) -> ServiceSpec {
    ServiceSpec {
        address,
        name: "test".to_owned(),
        policy,
        backends: backends
            .iter()
            .map(|address| BackendSpec {
                address: *address,
                weight: 1,
                draining: false,
            })
            .collect(),
        any_address: false,
    }
}

/// A client with the settings of `h2`.
pub async fn client(address: SocketAddr) -> SendRequest<Bytes> {
    client_with(&h2::client::Builder::new(), address).await.0
}

/// The same with settings of its own; the task ends with the connection, and returns how.
pub async fn client_with(
    builder: &h2::client::Builder,
    address: SocketAddr,
) -> (
    SendRequest<Bytes>,
    tokio::task::JoinHandle<Result<(), h2::Error>>,
) {
    let socket = TcpStream::connect(address).await.expect("connect");
    let (sender, connection) = builder.handshake(socket).await.expect("handshake");
    (sender, tokio::spawn(connection))
}

/// A request without content.
pub fn get(path: &str) -> Request<()> {
    Request::get(format!("http://test{path}"))
        .body(())
        .expect("request")
}

/// A gRPC request.
pub fn grpc() -> Request<()> {
    Request::post("http://test/package.Service/Method")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("request")
}

/// Sends a request as soon as the connection takes one.
pub async fn send(
    client: &mut SendRequest<Bytes>,
    request: Request<()>,
    end: bool,
) -> (ResponseFuture, SendStream<Bytes>) {
    let mut ready = client.clone().ready().await.expect("ready");
    ready.send_request(request, end).expect("send")
}

/// A whole exchange without request content.
pub async fn fetch(
    client: &mut SendRequest<Bytes>,
    request: Request<()>,
) -> Result<Response<RecvStream>, h2::Error> {
    send(client, request, true).await.0.await
}

/// All content and the trailers.
pub async fn read(mut content: RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = content.data().await {
        let chunk = chunk?;
        content.flow_control().release_capacity(chunk.len())?;
        bytes.extend_from_slice(&chunk);
    }
    Ok((bytes, content.trailers().await?))
}

/// Sends `bytes` as the windows allow.
pub async fn write(
    stream: &mut SendStream<Bytes>,
    mut bytes: Bytes,
    end: bool,
) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let room = room.transpose()?.unwrap_or(0).min(bytes.len());
        let part = bytes.split_to(room);
        let last = end && bytes.is_empty();
        stream.send_data(part, last)?;
    }
    Ok(())
}

/// Waits until `condition` holds.
pub async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Text up to `end`, or what came before the connection ended.
pub async fn read_until(socket: &mut TcpStream, end: &str) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(end.as_bytes()) {
        match socket.read_u8().await {
            Ok(byte) => bytes.push(byte),
            Err(_) => break,
        }
    }
    String::from_utf8(bytes).expect("text")
}
