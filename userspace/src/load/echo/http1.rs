//! HTTP/1.1 side of the echo backend: keep-alive, `connection: close` on shutdown.

use std::cell::Cell;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::rc::Rc;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use super::content::{self, Content, MOST_BYTES};
use super::rewind::Rewind;
use super::{Backend, add_one, say_time, wanted_size};
use crate::load::arrival::Latest;
use crate::load::{BACKEND_HEADER, STATS_PATH};

pub(super) async fn serve(
    io: Rewind<impl AsyncRead + AsyncWrite + Unpin + 'static>,
    client: SocketAddr,
    backend: Rc<Backend>,
    latest: Latest,
    mut stop: watch::Receiver<bool>,
) -> hyper::Result<()> {
    let counted = Cell::new(false);
    let service = service_fn(|request| answer(request, client, &backend, &latest, &counted));
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(io), service);
    tokio::pin!(connection);
    tokio::select! {
        served = connection.as_mut() => return served,
        _ = stop.wait_for(|stop| *stop) => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

async fn answer(
    request: Request<Incoming>,
    client: SocketAddr,
    backend: &Backend,
    latest: &Latest,
    connection_counted: &Cell<bool>,
) -> Result<Response<Content>, Infallible> {
    let began = backend.arrival(latest);
    let path = request.uri().path().to_owned();
    if path != STATS_PATH {
        add_one(&backend.http1_requests);
        if !connection_counted.replace(true) {
            add_one(&backend.connections);
        }
    }
    let (head, mut body) = request.into_parts();
    // A body that breaks off ends the connection; hyper notices by itself.
    while let Some(Ok(_)) = body.frame().await {}
    let served = path == STATS_PATH || backend.work(began).await;
    let size = wanted_size(&head.headers, MOST_BYTES);
    let mut response = Response::new(content::answer(&path, size, client, backend));
    if !served {
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    response
        .headers_mut()
        .insert(BACKEND_HEADER, backend.options.name.clone());
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content::TYPE));
    if path != STATS_PATH {
        say_time(response.headers_mut(), began);
    }
    Ok(response)
}
