//! One request over an HTTP/2 connection, from HEADERS to a checked answer.

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri};

use super::plan::{Kind, Plan};
use super::record::{Failed, Failure, Recorder, bump};
use crate::load::wire::send;
use crate::load::{BACKEND_HEADER, GRPC_STREAM, GRPC_UNARY};

/// Everything about a request that is the same every time.
pub(super) struct Rpc {
    head: Request<()>,
    /// What is sent: the body, or one message of a gRPC stream.
    body: Bytes,
    /// Messages of a gRPC stream, one at a time; 0: the whole body at once.
    ping_pong: u32,
    grpc: bool,
}

/// Why a request got no good answer.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The peer says it did not process the request (RFC 9113, section 8.7): it may be sent again elsewhere.
    NotProcessed(Failed),
    /// It failed.
    Failed(Failed),
}

impl Rpc {
    pub(super) fn new(plan: &Plan) -> Result<Self, http::Error> {
        let (grpc, ping_pong, path) = match plan.kind {
            Kind::GrpcUnary => (true, 0, Some(GRPC_UNARY)),
            Kind::GrpcStream { messages } => (true, messages, Some(GRPC_STREAM)),
            Kind::Http2 | Kind::Http1 { .. } => (false, 0, None),
        };
        let mut uri = plan.url.clone().into_parts();
        if let Some(path) = path {
            uri.path_and_query = Some(path.parse()?);
        }
        let body = if grpc {
            grpc_message(plan.payload)
        } else {
            Bytes::from(vec![b'.'; plan.payload])
        };
        let method = if body.is_empty() {
            Method::GET
        } else {
            Method::POST
        };
        let mut head = Request::builder()
            .method(method)
            .uri(Uri::from_parts(uri)?)
            .body(())?;
        if grpc {
            head.headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            head.headers_mut()
                .insert(TE, HeaderValue::from_static("trailers"));
        }
        Ok(Self {
            head,
            body,
            ping_pong,
            grpc,
        })
    }

    /// Sends the request, checks the answer, and gives the name of the backend that served it.
    pub(super) async fn exchange(
        &self,
        connection: SendRequest<Bytes>,
        recorder: &Recorder,
    ) -> Result<Option<HeaderValue>, Trouble> {
        let mut connection = connection.ready().await?;
        let (response, mut out) =
            connection.send_request(self.head.clone(), self.body.is_empty())?;
        bump(&recorder.streams);
        if self.ping_pong > 0 {
            return self.converse(response, out).await;
        }
        // A peer may answer, or reset, before it has read the whole body; what it answered tells more.
        let sent = send(&mut out, self.body.clone(), true).await;
        let response = response.await?;
        sent?;
        let (backend, mut answer) = self.open(response)?;
        let mut expected = if self.grpc {
            Some(self.body.clone())
        } else {
            None
        };
        while let Some(piece) = answer.data().await {
            let piece = piece?;
            answer.flow_control().release_capacity(piece.len())?;
            compare(&mut expected, &piece)?;
        }
        if expected.is_some_and(|rest| !rest.is_empty()) {
            return Err(mismatch("the echo is too short"));
        }
        self.close(&mut answer).await?;
        Ok(backend)
    }

    /// A gRPC stream: the next message only after the echo of the one before. A message is sent and its echo read at
    /// the same time, because one larger than the windows comes back before it is all sent.
    async fn converse(
        &self,
        response: ResponseFuture,
        mut out: SendStream<Bytes>,
    ) -> Result<Option<HeaderValue>, Trouble> {
        let first = async {
            let (backend, mut answer) = self.open(response.await?)?;
            self.hear(&mut answer).await?;
            Ok((backend, answer))
        };
        let ((), (backend, mut answer)) = tokio::try_join!(self.say(&mut out), first)?;
        for _ in 1..self.ping_pong {
            tokio::try_join!(self.say(&mut out), self.hear(&mut answer))?;
        }
        out.send_data(Bytes::new(), true)?;
        if let Some(piece) = answer.data().await {
            piece?;
            return Err(mismatch("more came back than was sent"));
        }
        self.close(&mut answer).await?;
        Ok(backend)
    }

    async fn say(&self, out: &mut SendStream<Bytes>) -> Result<(), Trouble> {
        Ok(send(out, self.body.clone(), false).await?)
    }

    /// Reads the echo of one message.
    async fn hear(&self, answer: &mut RecvStream) -> Result<(), Trouble> {
        let mut expected = Some(self.body.clone());
        while expected.as_ref().is_some_and(|rest| !rest.is_empty()) {
            let Some(piece) = answer.data().await else {
                return Err(mismatch("the stream ended early"));
            };
            let piece = piece?;
            answer.flow_control().release_capacity(piece.len())?;
            compare(&mut expected, &piece)?;
        }
        Ok(())
    }

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

/// The gRPC framing: one byte "not compressed", four bytes length, the message.
fn grpc_message(payload: usize) -> Bytes {
    let mut message = BytesMut::with_capacity(5 + payload);
    message.put_u8(0);
    message.put_u32(u32::try_from(payload).unwrap_or(u32::MAX));
    message.put_bytes(b'.', payload);
    message.freeze()
}

fn grpc_status(headers: &HeaderMap) -> Result<(), Trouble> {
    let failed = |cause: String| Err(Trouble::Failed(Failed::new(Failure::GrpcStatus, cause)));
    match headers.get("grpc-status").map(HeaderValue::as_bytes) {
        Some(b"0") => Ok(()),
        Some(status) => failed(format!("grpc-status {}", String::from_utf8_lossy(status))),
        None => failed("no grpc-status".to_owned()),
    }
}

fn compare(expected: &mut Option<Bytes>, piece: &[u8]) -> Result<(), Trouble> {
    let Some(rest) = expected else { return Ok(()) };
    if rest.len() < piece.len() || rest.split_to(piece.len()) != *piece {
        return Err(mismatch("the echo differs from what was sent"));
    }
    Ok(())
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
