//! One request over an HTTP/2 connection, from HEADERS to a checked answer.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, TE};
use http::{HeaderMap, HeaderName, HeaderValue, Uri};

use super::answer::Answer;
use super::head;
use super::mux::{Head, Mux, Sender, Stream, Template};
use super::payload::{Asked, Payload};
use super::plan::{Kind, Plan};
use super::record::{Failed, Failure};
use crate::load::distribution::Sizes;
use crate::load::{GRPC_UNARY, RESPONSE_SIZE_HEADER};

/// The requests of one client.
pub(super) struct Rpc {
    pub(super) template: Rc<Template>,
    /// What is sent: the bodies, or the messages of gRPC streams.
    payload: RefCell<Payload>,
    /// Messages of a gRPC stream, one at a time; 0: the whole body at once.
    ping_pong: u32,
    grpc: bool,
    /// Whether the answer is the message that was sent: what any other service answers is its own matter.
    echoes: bool,
    /// Bytes of payload that are asked for.
    asked: RefCell<Option<Asked>>,
    /// Whether they differ, so that each request says them by itself.
    asks_anew: bool,
    /// The header field that names the backend.
    backend_header: HeaderName,
}

/// One request; the same one however often it is sent.
pub(super) struct Exchange<'a> {
    rpc: &'a Rpc,
    body: Bytes,
    /// Bytes of payload that it asks for.
    asked: Option<u64>,
}

/// Why a request got no good answer.
#[derive(Clone, Debug)]
pub(super) enum Trouble {
    /// The peer says it did not process the request (RFC 9113, section 8.7), or it was never sent: it may be sent again
    /// elsewhere.
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

/// Bytes of the gRPC framing of a message.
const GRPC_FRAMING: u64 = 5;

// === impl Trouble ===

impl Trouble {
    /// What is told of it.
    pub(super) fn failed(self) -> Failed {
        match self {
            Self::NotProcessed(failed) | Self::Failed(failed) => failed,
        }
    }
}

// === impl Rpc ===

impl Rpc {
    /// Those of client number `client`.
    pub(super) fn new(plan: &Plan, client: usize) -> Result<Self, http::Error> {
        let ping_pong = match plan.kind {
            Kind::GrpcStream { messages } => messages,
            Kind::GrpcUnary | Kind::Http2 | Kind::Http1 { .. } => 0,
        };
        let path = plan.grpc_path();
        let mut uri = plan.url.clone().into_parts();
        let mut ours = Vec::new();
        if let Some(path) = path {
            uri.path_and_query = Some(path.parse()?);
            ours.push((CONTENT_TYPE, HeaderValue::from_static("application/grpc")));
            ours.push((TE, HeaderValue::from_static("trailers")));
        }
        if let Some(Sizes::Fixed(size)) = plan.response_size {
            let name = HeaderName::from_static(RESPONSE_SIZE_HEADER);
            ours.push((name, size.into()));
        }
        let head = head::head(plan, Uri::from_parts(uri)?, ours)?;
        Ok(Self {
            template: Rc::new(Template::new(&head)),
            payload: RefCell::new(Payload::new(plan, path.is_some(), client)),
            ping_pong,
            grpc: path.is_some(),
            echoes: path == Some(GRPC_UNARY) || ping_pong > 0,
            asked: RefCell::new(Asked::new(plan, client)),
            asks_anew: !matches!(plan.response_size, Some(Sizes::Fixed(_))),
            backend_header: plan.backend_header.clone(),
        })
    }

    /// The next request.
    pub(super) fn prepare(&self) -> Exchange<'_> {
        Exchange {
            rpc: self,
            body: self.payload.borrow_mut().next(),
            asked: self.asked.borrow_mut().as_mut().map(Asked::next),
        }
    }
}

// === impl Exchange ===

impl Exchange<'_> {
    fn expected(&self) -> Expected {
        match self.asked {
            Some(size) => Expected::Length(size + if self.rpc.grpc { GRPC_FRAMING } else { 0 }),
            None if self.rpc.echoes => Expected::Echo(self.body.clone()),
            None => Expected::Anything,
        }
    }

    /// Sends the request, checks the answer, and gives what it says of itself. Calls `opened` once there
    /// is a stream for it.
    pub(super) async fn run(
        &self,
        connection: &Mux,
        opened: impl FnOnce(),
    ) -> Result<Answer, Trouble> {
        let Self { rpc, body, asked } = self;
        let asked = asked.filter(|_| rpc.asks_anew);
        let mut stream = connection.open(body.is_empty(), asked).await?;
        opened();
        if rpc.ping_pong > 0 {
            // Apart, or every request would take the place of this one.
            return Box::pin(self.converse(stream)).await;
        }
        if !body.is_empty() {
            stream.sender().send(body.clone(), true).await;
        }
        let fields = rpc.open(stream.head().await?, &stream)?;
        let mut expected = self.expected();
        while let Some(piece) = stream.piece().await {
            expected.take(&piece?)?;
        }
        if !expected.is_complete() {
            return Err(mismatch("the answer is too short"));
        }
        rpc.close(&mut stream)?;
        Ok(Answer::of(&fields, &rpc.backend_header, stream.over()))
    }

    /// A gRPC stream: the next message only after the echo of the one before. A message is sent and its echo read at
    /// the same time, because one larger than the windows comes back before it is all sent.
    async fn converse(&self, mut stream: Stream) -> Result<Answer, Trouble> {
        let Self { rpc, body, .. } = self;
        let sender = stream.sender();
        let first = async {
            let fields = rpc.open(stream.head().await?, &stream)?;
            hear(&mut stream, body).await?;
            Ok(fields)
        };
        let ((), fields) = tokio::try_join!(say(&sender, body), first)?;
        for _ in 1..rpc.ping_pong {
            let message = rpc.payload.borrow_mut().next();
            tokio::try_join!(say(&sender, &message), hear(&mut stream, &message))?;
        }
        sender.send(Bytes::new(), true).await;
        if let Some(piece) = stream.piece().await {
            piece?;
            return Err(mismatch("more came back than was sent"));
        }
        rpc.close(&mut stream)?;
        Ok(Answer::of(&fields, &rpc.backend_header, stream.over()))
    }
}

/// Sends one message of a stream.
async fn say(sender: &Sender, message: &Bytes) -> Result<(), Trouble> {
    sender.send(message.clone(), false).await;
    Ok(())
}

/// Reads the echo of one message.
async fn hear(stream: &mut Stream, message: &Bytes) -> Result<(), Trouble> {
    let mut expected = Expected::Echo(message.clone());
    while !expected.is_complete() {
        let Some(piece) = stream.piece().await else {
            return Err(mismatch("the stream ended early"));
        };
        expected.take(&piece?)?;
    }
    Ok(())
}

impl Rpc {
    /// Checks the head of the answer on `stream`; gives its fields.
    fn open(&self, head: Head, stream: &Stream) -> Result<HeaderMap, Trouble> {
        let Head { status, fields } = head;
        if !status.is_success() {
            return Err(Trouble::Failed(Failed::new(
                Failure::HttpStatus,
                format_args!("status {status}"),
            )));
        }
        if self.grpc && stream.is_over() {
            grpc_status(&fields)?;
            return Err(mismatch("an answer of headers only"));
        }
        Ok(fields)
    }

    /// Checks how the answer ended.
    fn close(&self, stream: &mut Stream) -> Result<(), Trouble> {
        if self.grpc {
            grpc_status(&stream.trailers().unwrap_or_default())?;
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
