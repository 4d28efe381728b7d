//! HTTP/2 side of the echo backend: gRPC echo with correct trailers, plain answers, GOAWAY on shutdown.

use std::net::SocketAddr;
use std::rc::Rc;

use bytes::{BufMut, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::header::CONTENT_TYPE;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::Instant;

use super::rewind::Rewind;
use super::{Backend, add_one, content, say_time, wanted_size};
use crate::load::arrival::Latest;
use crate::load::distribution::LARGEST;
use crate::load::wire::send;
use crate::load::{BACKEND_HEADER, GRPC_STREAM, GRPC_UNARY, STATS_PATH};

/// Small windows for one stream, a large one for the connection: one slow stream cannot stall the others.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
/// A header list longer than this is refused; ours are a tenth of it.
const HEADER_LIST: u32 = 16 * 1024;
/// The longest unary message echoed; a longer one ends with `grpc-status: 8`.
const LONGEST_MESSAGE: usize = LARGEST;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const OK: HeaderValue = HeaderValue::from_static("0");
const RESOURCE_EXHAUSTED: HeaderValue = HeaderValue::from_static("8");
const UNIMPLEMENTED: HeaderValue = HeaderValue::from_static("12");
const UNAVAILABLE: HeaderValue = HeaderValue::from_static("14");

pub(super) async fn serve(
    io: Rewind<impl AsyncRead + AsyncWrite + Unpin + 'static>,
    client: SocketAddr,
    backend: Rc<Backend>,
    latest: Latest,
    mut stop: watch::Receiver<bool>,
) -> Result<(), h2::Error> {
    add_one(&backend.connections);
    let mut connection = h2::server::Builder::new()
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEADER_LIST)
        .max_concurrent_streams(backend.options.max_streams)
        .handshake::<_, Bytes>(io)
        .await?;
    let stop = stop.wait_for(|stop| *stop);
    tokio::pin!(stop);
    let mut stopping = false;
    loop {
        tokio::select! {
            accepted = connection.accept() => {
                let Some(accepted) = accepted else { return Ok(()) };
                let (request, respond) = accepted?;
                add_one(&backend.streams);
                let began = backend.arrival(&latest);
                let served = serve_stream(request, respond, client, Rc::clone(&backend), began);
                tokio::task::spawn_local(served);
            }
            _ = &mut stop, if !stopping => {
                stopping = true;
                connection.graceful_shutdown();
            }
        }
    }
}

async fn serve_stream(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    client: SocketAddr,
    backend: Rc<Backend>,
    began: Option<Instant>,
) {
    let (head, body) = request.into_parts();
    let is_grpc = head
        .headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    let answered = match head.uri.path() {
        GRPC_UNARY if is_grpc => unary(&head, body, &mut respond, &backend, began).await,
        GRPC_STREAM if is_grpc => stream(body, &mut respond, &backend).await,
        _ if is_grpc => unimplemented(&mut respond, &backend),
        _ => plain(&head, body, &mut respond, (client, began), &backend).await,
    };
    if let Err(error) = answered {
        add_one(&backend.broken);
        tracing::debug!(%client, %error, "stream ended early");
    }
}

async fn unary(
    head: &Parts,
    mut body: RecvStream,
    respond: &mut SendResponse<Bytes>,
    backend: &Backend,
    began: Option<Instant>,
) -> Result<(), h2::Error> {
    let mut message = Vec::new();
    let mut length = 0;
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        length += piece.len();
        if length <= LONGEST_MESSAGE {
            message.push(piece);
        }
    }
    body.trailers().await?;
    if !work(backend, respond, began).await? {
        return refuse(respond, backend, UNAVAILABLE);
    }
    if length > LONGEST_MESSAGE {
        return refuse(respond, backend, RESOURCE_EXHAUSTED);
    }
    let mut response = grpc_head(backend);
    say_time(response.headers_mut(), began);
    let mut out = respond.send_response(response, false)?;
    if let Some(size) = wanted_size(&head.headers, LONGEST_MESSAGE as u64) {
        return send_message(&mut out, size).await;
    }
    for piece in message {
        send(&mut out, piece, false).await?;
    }
    out.send_trailers(HeaderMap::from_iter([(GRPC_STATUS, OK)]))
}

async fn stream(
    mut body: RecvStream,
    respond: &mut SendResponse<Bytes>,
    backend: &Backend,
) -> Result<(), h2::Error> {
    let mut out = respond.send_response(grpc_head(backend), false)?;
    while let Some(piece) = body.data().await {
        let piece = piece?;
        let length = piece.len();
        if !work(backend, respond, None).await? {
            return out.send_trailers(HeaderMap::from_iter([(GRPC_STATUS, UNAVAILABLE)]));
        }
        send(&mut out, piece, false).await?;
        // Only now: a client that does not read is not allowed to send either.
        body.flow_control().release_capacity(length)?;
    }
    body.trailers().await?;
    out.send_trailers(HeaderMap::from_iter([(GRPC_STATUS, OK)]))
}

fn unimplemented(respond: &mut SendResponse<Bytes>, backend: &Backend) -> Result<(), h2::Error> {
    refuse(respond, backend, UNIMPLEMENTED)
}

/// A "trailers-only" answer: one HEADERS frame that carries the status and ends the stream.
fn refuse(
    respond: &mut SendResponse<Bytes>,
    backend: &Backend,
    status: HeaderValue,
) -> Result<(), h2::Error> {
    let mut head = grpc_head(backend);
    head.headers_mut().insert(GRPC_STATUS, status);
    respond.send_response(head, true)?;
    Ok(())
}

/// A gRPC message of `size` bytes, and a good end.
async fn send_message(out: &mut SendStream<Bytes>, size: u64) -> Result<(), h2::Error> {
    let mut framing = BytesMut::with_capacity(5);
    framing.put_u8(0);
    framing.put_u32(u32::try_from(size).unwrap_or(u32::MAX));
    let mut next = Some(framing.freeze());
    let mut filler = content::Content::Filler { left: size };
    while let Some(piece) = next {
        next = filler.next_piece();
        send(out, piece, false).await?;
    }
    out.send_trailers(HeaderMap::from_iter([(GRPC_STATUS, OK)]))
}

async fn plain(
    request: &Parts,
    mut body: RecvStream,
    respond: &mut SendResponse<Bytes>,
    (client, began): (SocketAddr, Option<Instant>),
    backend: &Backend,
) -> Result<(), h2::Error> {
    while let Some(piece) = body.data().await {
        body.flow_control().release_capacity(piece?.len())?;
    }
    let path = request.uri.path();
    let mut head = Response::new(());
    if path != STATS_PATH && !work(backend, respond, began).await? {
        *head.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    }
    head.headers_mut()
        .insert(BACKEND_HEADER, backend.options.name.clone());
    head.headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(content::TYPE));
    let size = wanted_size(&request.headers, content::MOST_BYTES);
    let mut content = content::answer(path, size, client, backend);
    let mut next = content.next_piece();
    say_time(head.headers_mut(), began);
    let mut out = respond.send_response(head, next.is_none())?;
    while let Some(piece) = next {
        next = content.next_piece();
        send(&mut out, piece, next.is_none()).await?;
    }
    Ok(())
}

fn grpc_head(backend: &Backend) -> Response<()> {
    let mut head = Response::new(());
    head.headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    head.headers_mut()
        .insert(BACKEND_HEADER, backend.options.name.clone());
    head
}

/// Takes the time that a request takes, or until the client resets the stream; false when it is turned away.
async fn work(
    backend: &Backend,
    respond: &mut SendResponse<Bytes>,
    arrived: Option<Instant>,
) -> Result<bool, h2::Error> {
    if !backend.works() {
        return Ok(true);
    }
    tokio::select! {
        served = backend.work(arrived) => Ok(served),
        reset = std::future::poll_fn(|cx| respond.poll_reset(cx)) => Err(reset?.into()),
    }
}
