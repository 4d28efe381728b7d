//! The task of a connection: reads all that is there and hands it to the streams, then sends all that they have to say.
//!
//! Streams that were woken run before the task does again, so that what they send goes out with one system call. Reading
//! stops while the peer takes nothing, so that answers to its PING and SETTINGS frames never pile up.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use futures_core::Stream as _;
use h2::frame::{self, StreamId};
use h2::proto::Error;
use h2::{Codec, Reason};
use tokio::io::AsyncWrite as _;

use super::super::dial::Socket;
use super::super::record::{Failed, Failure};
use super::super::rpc::Trouble;
use super::stream::State;
use super::template::Table;
use super::{FIRST_WINDOW, HEADER_LIST, LARGEST_WINDOW, Out, STREAM_WINDOW, Shared};
use crate::load::arrival::Latest;

/// What a client says first (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Unsent bytes beyond which nothing is added to them, and the place that is kept for them.
const MOST_UNSENT: usize = 256 * 1024;
const KEEP: usize = 16 * 1024;

/// Carries the frames of a connection; ends when the connection does.
pub(in super::super) struct Pump {
    /// Reads; what is written goes past it.
    codec: Codec<Socket, Bytes>,
    /// The arrival of the frame that was taken last: the codec reads only when it has no whole frame left.
    pub(super) latest: Latest,
    pub(super) shared: Rc<Shared>,
    /// To be written.
    pub(super) unsent: BytesMut,
    /// What the peer knows of the head of our requests.
    pub(super) table: Table,
    /// The stream that the last frame was for: the next one often is for the same.
    pub(super) last: Option<(StreamId, Rc<State>)>,
    /// Received on the connection and not given back.
    pub(super) taken: u32,
    /// Whether our GOAWAY is in `unsent`: all that is left is to send it and to close.
    leaving: bool,
}

/// Why a connection cannot go on.
pub(super) enum Broken {
    /// The peer broke the protocol: it is told why.
    Protocol(Reason, String),
    /// There is nobody to tell.
    Lost(String),
}

// === impl Pump ===

impl Pump {
    pub(super) fn new(socket: Socket, shared: Rc<Shared>) -> Self {
        let latest = socket.latest();
        let mut codec = Codec::new(socket);
        codec.set_max_recv_header_list_size(HEADER_LIST as usize);
        let mut unsent = BytesMut::with_capacity(KEEP);
        unsent.extend_from_slice(PREFACE);
        let mut settings = frame::Settings::default();
        settings.set_enable_push(false);
        settings.set_initial_window_size(Some(STREAM_WINDOW));
        settings.set_max_header_list_size(Some(HEADER_LIST));
        settings.encode(&mut unsent);
        let more = LARGEST_WINDOW - FIRST_WINDOW;
        frame::WindowUpdate::new(StreamId::ZERO, more).encode(&mut unsent);
        Self {
            codec,
            latest,
            shared,
            unsent,
            table: Table::Empty,
            last: None,
            taken: 0,
            leaving: false,
        }
    }

    /// One turn; ready when the connection is over.
    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if !self.leaving {
            // Whether or not there is more to read, there may be something to send.
            if let Poll::Ready(broken) = self.receive(cx) {
                return Poll::Ready(Err(broken));
            }
            ready!(self.send(cx))?;
            if self.shared.is_done() {
                frame::GoAway::new(StreamId::ZERO, Reason::NO_ERROR).encode(&mut self.unsent);
                self.leaving = true;
            }
        }
        ready!(self.flush(cx))?;
        if !self.leaving {
            return Poll::Pending;
        }
        ready!(Pin::new(self.codec.get_mut()).poll_shutdown(cx))?;
        Poll::Ready(Ok(()))
    }

    /// Writes what is to be written.
    fn flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        while !self.unsent.is_empty() {
            let socket = Pin::new(self.codec.get_mut());
            match ready!(socket.poll_write(cx, &self.unsent))? {
                0 => return Poll::Ready(Err(Broken::Lost("nothing can be sent".to_owned()))),
                sent => self.unsent.advance(sent),
            }
        }
        // What `advance` took off its beginning comes back.
        self.unsent.clear();
        self.unsent.reserve(KEEP);
        Poll::Ready(Ok(()))
    }

    /// Ready when there is room for more.
    fn room(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        if self.unsent.len() < MOST_UNSENT {
            return Poll::Ready(Ok(()));
        }
        self.flush(cx)
    }

    /// Takes all that is there to be read; ready only when the connection is over.
    fn receive(&mut self, cx: &mut Context<'_>) -> Poll<Broken> {
        loop {
            // Room for an answer.
            if let Err(broken) = ready!(self.room(cx)) {
                return Poll::Ready(broken);
            }
            let taken = match ready!(Pin::new(&mut self.codec).poll_next(cx)) {
                Some(Ok(frame)) => self.take(frame),
                Some(Err(error)) => self.refuse(error),
                None => Err(Broken::Lost("the peer closed the connection".to_owned())),
            };
            if let Err(broken) = taken {
                return Poll::Ready(broken);
            }
        }
    }

    /// Takes what the streams have to say.
    fn send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        loop {
            if self.shared.out.borrow().is_empty() {
                return Poll::Ready(Ok(()));
            }
            ready!(self.room(cx))?;
            let Some(out) = self.shared.out.borrow_mut().pop_front() else {
                return Poll::Ready(Ok(()));
            };
            let to = &mut self.unsent;
            match out {
                Out::Request { id, end, asked } => {
                    let template = &self.shared.template;
                    template.write(to, &mut self.table, id, end, asked);
                }
                Out::Data { id, piece, end } => {
                    let head = frame::Head::new(frame::Kind::Data, u8::from(end), id);
                    head.encode(piece.len(), to);
                    to.extend_from_slice(&piece);
                    if let Some(state) = self.shared.stream(id) {
                        state.queued.set(false);
                        state.wake();
                    }
                }
                Out::Window { id, bytes } => frame::WindowUpdate::new(id, bytes).encode(to),
                Out::Reset { id, reason } => frame::Reset::new(id, reason).encode(to),
            }
        }
    }

    /// A frame that the codec could not read.
    fn refuse(&mut self, error: Error) -> Result<(), Broken> {
        match error {
            Error::Reset(id, reason, _) => self.reset(id, reason, "a malformed answer"),
            Error::GoAway(_, reason, _) => {
                let cause = h2::Error::from(error).to_string();
                Err(Broken::Protocol(reason, cause))
            }
            Error::Io(..) => Err(Broken::Lost(h2::Error::from(error).to_string())),
        }
    }

    /// Nothing more comes: every stream fails, and the peer is told why if it is to blame.
    fn give_up(&mut self, broken: Broken) {
        let (class, cause) = match broken {
            Broken::Protocol(reason, cause) => {
                // Where the socket takes nothing more the peer hears nothing.
                let mut cx = Context::from_waker(std::task::Waker::noop());
                frame::GoAway::new(StreamId::ZERO, reason).encode(&mut self.unsent);
                let _ = self.flush(&mut cx);
                (Failure::Protocol, cause)
            }
            Broken::Lost(cause) => (Failure::ConnectionLost, cause),
        };
        tracing::debug!(cause, "connection ended");
        let trouble = Trouble::Failed(Failed::new(class, cause));
        self.shared.fail_above(0, &trouble);
        self.shared.close(trouble);
    }
}

impl Future for Pump {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let turned = self.turn(cx);
        // Set last: what streams said during the turn, it has sent.
        *self.shared.pump.borrow_mut() = Some(cx.waker().clone());
        match turned {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Ok(())) => Poll::Ready(()),
            Poll::Ready(Err(broken)) => {
                self.give_up(broken);
                Poll::Ready(())
            }
        }
    }
}

impl Drop for Pump {
    /// The task may end before the connection does, with the runtime.
    fn drop(&mut self) {
        let cause = "the connection is closed";
        let trouble = Trouble::Failed(Failed::new(Failure::ConnectionLost, cause));
        self.shared.fail_above(0, &trouble);
        self.shared.close(trouble);
    }
}

// === impl Broken ===

impl Broken {
    pub(super) fn protocol(cause: &str) -> Self {
        Self::Protocol(Reason::PROTOCOL_ERROR, cause.to_owned())
    }

    pub(super) fn window(cause: &str) -> Self {
        Self::Protocol(Reason::FLOW_CONTROL_ERROR, cause.to_owned())
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self::Lost(error.to_string())
    }
}
