//! One request over an HTTP/2 connection, from HEADERS to a checked answer.

use std::cell::RefCell;
use std::future::poll_fn;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};

use super::payload::Payload;
use super::plan::{Kind, Plan};
use super::record::{Failed, Failure};
use crate::load::random::Generator;
use crate::load::wire::send;
use crate::load::{BACKEND_HEADER, GRPC_STREAM, GRPC_UNARY, RESPONSE_SIZE_HEADER};

/// The requests of one client.
pub(super) struct Rpc {
    head: Request<()>,
    /// What is sent: the bodies, or the messages of gRPC streams.
    payload: RefCell<Payload>,
    /// Messages of a gRPC stream, one at a time; 0: the whole body at once.
    ping_pong: u32,
    grpc: bool,
    /// Bytes of payload that were asked for.
    response_size: Option<u64>,
}

/// One request; the same one however often it is sent.
pub(super) struct Exchange<'a> {
    rpc: &'a Rpc,
    body: Bytes,
}

/// Why a request got no good answer.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The peer says it did not process the request (RFC 9113, section 8.7): it may be sent again elsewhere.
    NotProcessed(Failed),
    /// It failed.
    Failed(Failed),
}

/// What must come back.
enum Expected {
    /// Anything.
    Anything,
    /// This.
    Echo(Bytes),
    /// So many bytes more.
    Length(u64),
}

/// Bytes received of a stream whose place in the windows is not given back yet; a part of the smaller window.
const MOST_KEPT: usize = 256 * 1024;
/// Bytes of the gRPC framing of a message.
const GRPC_FRAMING: u64 = 5;

// === impl Rpc ===

impl Rpc {
    pub(super) fn new(plan: &Plan, random: Generator) -> Result<Self, http::Error> {
        let (grpc, ping_pong, path) = match plan.kind {
            Kind::GrpcUnary => (true, 0, Some(GRPC_UNARY)),
            Kind::GrpcStream { messages } => (true, messages, Some(GRPC_STREAM)),
            Kind::Http2 | Kind::Http1 { .. } => (false, 0, None),
        };
        let mut uri = plan.url.clone().into_parts();
        if let Some(path) = path {
            uri.path_and_query = Some(path.parse()?);
        }
        let method = if grpc || !plan.payload.is_nothing() {
            Method::POST
        } else {
            Method::GET
        };
        let mut head = Request::builder()
            .method(method)
            .uri(Uri::from_parts(uri)?)
            .body(())?;
        let headers = head.headers_mut();
        if grpc {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
        if let Some(size) = plan.response_size {
            headers.insert(RESPONSE_SIZE_HEADER, size.into());
        }
        Ok(Self {
            head,
            payload: RefCell::new(Payload::new(&plan.payload, grpc, random)),
            ping_pong,
            grpc,
            response_size: plan.response_size,
        })
    }

    /// The next request.
    pub(super) fn prepare(&self) -> Exchange<'_> {
        Exchange {
            rpc: self,
            body: self.payload.borrow_mut().next(),
        }
    }

    fn expected(&self, body: &Bytes) -> Expected {
        match self.response_size {
            Some(size) => Expected::Length(size + if self.grpc { GRPC_FRAMING } else { 0 }),
            None if self.grpc => Expected::Echo(body.clone()),
            None => Expected::Anything,
        }
    }
}

// === impl Exchange ===

impl Exchange<'_> {
    /// Sends the request, checks the answer, and gives the name of the backend that served it. Calls `opened` once there
    /// is a stream for it.
    pub(super) async fn run(
        &self,
        connection: &mut SendRequest<Bytes>,
        opened: impl FnOnce(),
    ) -> Result<Option<HeaderValue>, Trouble> {
        let Self { rpc, body } = self;
        poll_fn(|cx| connection.poll_ready(cx)).await?;
        let (response, mut out) = connection.send_request(rpc.head.clone(), body.is_empty())?;
        opened();
        if rpc.ping_pong > 0 {
            return self.converse(response, out).await;
        }
        // A peer may answer, or reset, before it has read the whole body; what it answered tells more.
        let sent = if body.is_empty() {
            Ok(())
        } else {
            send(&mut out, body.clone(), true).await
        };
        let response = response.await?;
        sent?;
        let (backend, mut answer) = rpc.open(response)?;
        let mut expected = rpc.expected(body);
        let mut kept = 0;
        while let Some(piece) = answer.data().await {
            let piece = piece?;
            expected.take(&piece)?;
            kept += piece.len();
            // What is kept is given back when the stream is dropped, without a lock of its own.
            if kept > MOST_KEPT {
                answer.flow_control().release_capacity(kept)?;
                kept = 0;
            }
            // Nothing comes after the last piece: no need to ask for trailers.
            if !rpc.grpc && answer.is_end_stream() {
                break;
            }
        }
        if !expected.is_complete() {
            return Err(mismatch("the answer is too short"));
        }
        if rpc.grpc || !answer.is_end_stream() {
            rpc.close(&mut answer).await?;
        }
        Ok(backend)
    }

    /// A gRPC stream: the next message only after the echo of the one before. A message is sent and its echo read at
    /// the same time, because one larger than the windows comes back before it is all sent.
    async fn converse(
        &self,
        response: ResponseFuture,
        mut out: SendStream<Bytes>,
    ) -> Result<Option<HeaderValue>, Trouble> {
        let Self { rpc, body } = self;
        let first = async {
            let (backend, mut answer) = rpc.open(response.await?)?;
            hear(&mut answer, body).await?;
            Ok((backend, answer))
        };
        let ((), (backend, mut answer)) = tokio::try_join!(say(&mut out, body), first)?;
        for _ in 1..rpc.ping_pong {
            let message = rpc.payload.borrow_mut().next();
            tokio::try_join!(say(&mut out, &message), hear(&mut answer, &message))?;
        }
        out.send_data(Bytes::new(), true)?;
        if let Some(piece) = answer.data().await {
            piece?;
            return Err(mismatch("more came back than was sent"));
        }
        rpc.close(&mut answer).await?;
        Ok(backend)
    }
}

/// Sends one message of a stream.
async fn say(out: &mut SendStream<Bytes>, message: &Bytes) -> Result<(), Trouble> {
    Ok(send(out, message.clone(), false).await?)
}

/// Reads the echo of one message.
async fn hear(answer: &mut RecvStream, message: &Bytes) -> Result<(), Trouble> {
    let mut expected = Expected::Echo(message.clone());
    while !expected.is_complete() {
        let Some(piece) = answer.data().await else {
            return Err(mismatch("the stream ended early"));
        };
        let piece = piece?;
        answer.flow_control().release_capacity(piece.len())?;
        expected.take(&piece)?;
    }
    Ok(())
}

impl Rpc {
    /// Checks the head of the response.
    fn open(
        &self,
        response: Response<RecvStream>,
    ) -> Result<(Option<HeaderValue>, RecvStream), Trouble> {
        let (head, body) = response.into_parts();
        if !head.status.is_success() {
            return Err(Trouble::Failed(Failed::new(
                Failure::HttpStatus,
                format_args!("status {}", head.status),
            )));
        }
        if self.grpc && body.is_end_stream() {
            grpc_status(&head.headers)?;
            return Err(mismatch("an answer of headers only"));
        }
        Ok((head.headers.get(BACKEND_HEADER).cloned(), body))
    }

    /// Checks how the response ended.
    async fn close(&self, answer: &mut RecvStream) -> Result<(), Trouble> {
        let trailers = answer.trailers().await?;
        if self.grpc {
            grpc_status(&trailers.unwrap_or_default())?;
        }
        Ok(())
    }
}

fn grpc_status(headers: &HeaderMap) -> Result<(), Trouble> {
    let failed = |cause: String| Err(Trouble::Failed(Failed::new(Failure::GrpcStatus, cause)));
    match headers.get("grpc-status").map(HeaderValue::as_bytes) {
        Some(b"0") => Ok(()),
        Some(status) => failed(format!("grpc-status {}", String::from_utf8_lossy(status))),
        None => failed("no grpc-status".to_owned()),
    }
}

// === impl Expected ===

impl Expected {
    fn take(&mut self, piece: &[u8]) -> Result<(), Trouble> {
        let good = match self {
            Self::Anything => true,
            Self::Echo(rest) => rest.len() >= piece.len() && rest.split_to(piece.len()) == *piece,
            Self::Length(left) => {
                let after = left.checked_sub(piece.len() as u64);
                *left = after.unwrap_or(0);
                after.is_some()
            }
        };
        if good {
            Ok(())
        } else {
            Err(mismatch("the answer differs from what was asked for"))
        }
    }

    fn is_complete(&self) -> bool {
        match self {
            Self::Anything => true,
            Self::Echo(rest) => rest.is_empty(),
            Self::Length(left) => *left == 0,
        }
    }
}

fn mismatch(cause: &str) -> Trouble {
    Trouble::Failed(Failed::new(Failure::Mismatch, cause))
}

impl From<h2::Error> for Trouble {
    fn from(error: h2::Error) -> Self {
        let remote = error.is_remote();
        if remote && error.is_go_away() {
            // `h2` fails streams above GOAWAY's last id this way, and new ones on such a connection. It reports a
            // stream below it the same way when the connection then breaks: hence retries are counted and shown.
            return Self::NotProcessed(Failed::new(Failure::Refused, error));
        }
        if remote && error.is_reset() {
            let failed = |class| Failed::new(class, &error);
            return match error.reason() {
                Some(Reason::REFUSED_STREAM) => Self::NotProcessed(failed(Failure::Refused)),
                _ => Self::Failed(failed(Failure::Reset)),
            };
        }
        let class = if error.is_io() {
            Failure::ConnectionLost
        } else {
            Failure::Protocol
        };
        Self::Failed(Failed::new(class, error))
    }
}
