//! HTTP/1.1 and HTTP/2 by prior knowledge, on one port.

use std::convert::Infallible;

use anyhow::Result;
use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::TcpListener;

use super::Answers;

pub(super) async fn serve(listener: TcpListener, answers: Answers) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let answers = answers.clone();
        tokio::spawn(async move {
            let service = service_fn(|request: http::Request<hyper::body::Incoming>| {
                let (head, body) = answers.to(request.uri().path());
                async {
                    Ok::<_, Infallible>(http::Response::from_parts(head, Full::<Bytes>::from(body)))
                }
            });
            let mut builder = Builder::new(TokioExecutor::new());
            builder.http2().max_concurrent_streams(10_000);
            // A client that goes away in the middle is no business of the server's.
            let _ = builder
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}
