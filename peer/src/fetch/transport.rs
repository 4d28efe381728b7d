//! A request and its answer, over connections of one kind of HTTP.

use std::{cell::Cell, cell::RefCell, net::SocketAddr};

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{Buf as _, Bytes};
use futures_util::future::try_join_all;
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::{Args, Version};
use crate::tls::{self, CONNECTION_WINDOW, STREAM_WINDOW};

type Nothing = Empty<Bytes>;
type Http3 = h3::client::SendRequest<h3_quinn::OpenStreams, Bytes>;

/// Connections of HTTP/1.1 that are made at once; more as they are needed. Browsers have as many.
const HTTP1_AT_FIRST: usize = 6;

/// Connections to one server.
pub struct Transport {
    target: SocketAddr,
    kind: Kind,
    made: Cell<u64>,
}

enum Kind {
    /// Those that nobody uses now, and how many may still be taken.
    Http1 {
        idle: RefCell<Vec<http1::SendRequest<Nothing>>>,
        free: Semaphore,
    },
    Http2(Vec<http2::SendRequest<Nothing>>),
    /// The endpoint lives as long as its connections should.
    Http3(
        Vec<Http3>,
        #[expect(dead_code, reason = "held, not used")] quinn::Endpoint,
    ),
}

impl Transport {
    /// Makes the connections, and uses each once.
    pub async fn connect(args: &Args) -> Result<Self> {
        let target = args.target;
        ensure!(args.connections > 0, "no connections, no requests");
        let kind = match args.version {
            Version::Http1 => Kind::Http1 {
                idle: RefCell::default(),
                free: Semaphore::new(args.connections),
            },
            Version::Http2 => {
                Kind::Http2(try_join_all((0..args.connections).map(|_| http2(target))).await?)
            }
            Version::Http3 => {
                let certificate = args.certificate.as_deref();
                let trusted = tls::client(certificate.context("HTTP/3 needs --certificate")?)?;
                let mut endpoint = quinn::Endpoint::client("0.0.0.0:0".parse()?)?;
                endpoint.set_default_client_config(trusted);
                let senders = (0..args.connections).map(|_| http3(&endpoint, target));
                Kind::Http3(try_join_all(senders).await?, endpoint)
            }
        };
        let made = match &kind {
            Kind::Http1 { .. } => 0,
            Kind::Http2(_) | Kind::Http3(..) => args.connections as u64,
        };
        let transport = Self {
            target,
            kind,
            made: Cell::new(made),
        };
        let first = match &transport.kind {
            Kind::Http1 { .. } => args.connections.min(HTTP1_AT_FIRST),
            Kind::Http2(_) | Kind::Http3(..) => args.connections,
        };
        try_join_all((0..first).map(|turn| transport.get(turn, "/0", |_| ()))).await?;
        Ok(transport)
    }

    /// Connections made so far.
    pub fn connections(&self) -> u64 {
        self.made.get()
    }

    /// Asks for `path`, on connection `turn` of a pool, and tells `seen` the length of every piece of the answer.
    pub async fn get(&self, turn: usize, path: &str, seen: impl Fn(usize)) -> Result<()> {
        let uri = format!("http://{}{path}", self.target);
        match &self.kind {
            Kind::Http1 { idle, free } => {
                let _permit = free.acquire().await?;
                let kept = idle.borrow_mut().pop();
                let mut sender = match kept.filter(http1::SendRequest::is_ready) {
                    Some(sender) => sender,
                    None => self.http1().await?,
                };
                let request = http::Request::get(path).header("host", self.target.to_string());
                let answer = sender.send_request(request.body(Nothing::new())?).await?;
                whole(answer, seen).await?;
                sender.ready().await?;
                idle.borrow_mut().push(sender);
            }
            Kind::Http2(senders) => {
                let mut sender = senders[turn % senders.len()].clone();
                let request = http::Request::get(uri).body(Nothing::new())?;
                whole(sender.send_request(request).await?, seen).await?;
            }
            Kind::Http3(senders, _) => {
                let mut sender = senders[turn % senders.len()].clone();
                let mut stream = sender
                    .send_request(http::Request::get(uri).body(())?)
                    .await?;
                stream.finish().await?;
                check(stream.recv_response().await?.status())?;
                while let Some(piece) = stream.recv_data().await? {
                    seen(piece.remaining());
                }
            }
        }
        Ok(())
    }

    async fn http1(&self) -> Result<http1::SendRequest<Nothing>> {
        let stream = TcpStream::connect(self.target).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::task::spawn_local(connection);
        self.made.set(self.made.get() + 1);
        Ok(sender)
    }
}

async fn http2(target: SocketAddr) -> Result<http2::SendRequest<Nothing>> {
    let stream = TcpStream::connect(target).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake(TokioIo::new(stream))
        .await?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn http3(endpoint: &quinn::Endpoint, target: SocketAddr) -> Result<Http3> {
    let connection = endpoint.connect(target, tls::NAME)?.await?;
    let (mut driver, sender) = h3::client::new(h3_quinn::Connection::new(connection)).await?;
    tokio::spawn(async move {
        // Ends with the connection; requests on it then fail, and are counted.
        let _ = driver.wait_idle().await;
    });
    Ok(sender)
}

/// Reads an answer to its end.
async fn whole(answer: http::Response<Incoming>, seen: impl Fn(usize)) -> Result<()> {
    check(answer.status())?;
    let mut body = answer.into_body();
    while let Some(frame) = body.frame().await {
        if let Some(piece) = frame?.data_ref() {
            seen(piece.len());
        }
    }
    Ok(())
}

fn check(status: http::StatusCode) -> Result<()> {
    if !status.is_success() {
        bail!("the server answered {status}");
    }
    Ok(())
}
