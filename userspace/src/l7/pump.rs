//! Content in one direction of one stream: from one `h2` stream to another, with backpressure.
//!
//! - Send capacity is reserved only for bytes in hand, so no stream keeps window that another could use.
//! - Receive capacity is released only when the other side took the bytes: whoever reads slowly slows the sender of *this*
//!   stream down, and nobody else, because the connection window has room for every stream's window.
//! - What comes while there is no capacity is taken out of `h2` all the same, and kept in a [`Backlog`]: many small frames
//!   cost memory there, and the connection its budget for them.
//! - The first chunk, up to one frame, goes without a reservation: nearly all messages are that small, and it saves three
//!   locks. Its receive capacity is released with the next chunk's, or when the content ends.
//! - END_STREAM goes where the sender put it: on the last DATA frame, on an empty one, or on the trailers.

mod backlog;

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};

use self::backlog::Backlog;

/// Content that goes ahead without a reservation: one frame of the smallest size that peers must accept.
const AHEAD: usize = 16_384;

/// Moves the content of one direction.
pub struct Pump {
    from: RecvStream,
    /// Received, not yet sent.
    held: Bytes,
    /// Received after it; most streams never have any.
    behind: Option<Box<Backlog>>,
    /// The content ends with what was received.
    received_last: bool,
    /// Sent without a reservation, and not yet released.
    ahead: usize,
    started: bool,
}

/// How the content ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pumped {
    /// All of it was handed over.
    Done,
    /// The sender reset its stream.
    Reset(Reason),
    /// The sender's connection was lost.
    Lost,
    /// The receiver takes no more: its stream is closed or reset.
    Refused,
}

/// Sees each chunk before it is handed over.
pub trait Watch {
    /// `last` where the content ends with this chunk.
    fn chunk(&mut self, chunk: &Bytes, last: bool);
    /// The content ends with trailers.
    fn trailers(&mut self) {}
}

// === impl Pump ===

impl Pump {
    /// A pump for the content of `from`.
    pub fn new(from: RecvStream) -> Self {
        Self {
            from,
            held: Bytes::new(),
            behind: None,
            received_last: false,
            ahead: 0,
            started: false,
        }
    }

    /// Moves what can be moved to `to`; `Ready` when there is no more to come.
    pub fn poll(
        &mut self,
        to: &mut SendStream<Bytes>,
        watch: &mut impl Watch,
        cx: &mut Context<'_>,
    ) -> Poll<Pumped> {
        loop {
            if !self.held.is_empty() {
                match self.hand_over(to, watch, cx) {
                    Poll::Ready(None) => continue,
                    Poll::Ready(Some(end)) => return Poll::Ready(end),
                    Poll::Pending => {
                        self.gather(cx);
                        return Poll::Pending;
                    }
                }
            }
            match self.from.poll_data(cx) {
                Poll::Ready(Some(Ok(chunk))) => {
                    self.received_last = self.from.is_end_stream();
                    if chunk.is_empty() && self.received_last {
                        return Poll::Ready(finish(to, watch));
                    }
                    self.held = chunk;
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(broken(&error)),
                Poll::Ready(None) => return self.end(to, watch, cx),
                Poll::Pending => {
                    self.settle(to, cx);
                    return Poll::Pending;
                }
            }
        }
    }

    /// Takes what comes while nothing can be sent, so that it does not pile up in `h2` frame by frame.
    pub fn gather(&mut self, cx: &mut Context<'_>) {
        // The end without content, trailers and errors stay where they are, and are seen when all before them has been sent.
        while !self.received_last
            && let Poll::Ready(Some(Ok(chunk))) = self.from.poll_data(cx)
        {
            if chunk.is_empty() {
                continue;
            }
            self.received_last = self.from.is_end_stream();
            if self.held.is_empty() {
                self.held = chunk;
            } else {
                self.behind.get_or_insert_default().push(chunk);
            }
        }
    }

    /// Sends as much of what is held as there is capacity for; `Some` at the end of the content.
    fn hand_over(
        &mut self,
        to: &mut SendStream<Bytes>,
        watch: &mut impl Watch,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Pumped>> {
        let goes_ahead = !self.started && self.held.len() <= AHEAD;
        self.started = true;
        let room = if goes_ahead {
            self.ahead = self.held.len();
            self.held.len()
        } else {
            match ready!(capacity(to, self.held.len(), cx)) {
                Some(room) => room.min(self.held.len()),
                None => return Poll::Ready(Some(Pumped::Refused)),
            }
        };
        let part = self.held.split_to(room);
        if self.held.is_empty()
            && let Some(behind) = &mut self.behind
        {
            self.held = behind.pop().unwrap_or_default();
        }
        let last = self.held.is_empty() && self.received_last;
        watch.chunk(&part, last);
        let mut taken = part.len();
        if to.send_data(part, last).is_err() {
            return Poll::Ready(Some(Pumped::Refused));
        }
        if last {
            // Dropping the stream releases the rest.
            return Poll::Ready(Some(Pumped::Done));
        }
        if !goes_ahead {
            // There was capacity, hence what went ahead has left as well.
            taken += std::mem::take(&mut self.ahead);
            self.release(taken);
        }
        Poll::Ready(None)
    }

    /// Nothing more to send now: releases what went ahead once it has left, else the sender might wait for the window that
    /// it occupies.
    fn settle(&mut self, to: &mut SendStream<Bytes>, cx: &mut Context<'_>) {
        if self.ahead > 0
            && let Poll::Ready(Some(_)) = capacity(to, 1, cx)
        {
            to.reserve_capacity(0);
            let ahead = std::mem::take(&mut self.ahead);
            self.release(ahead);
        }
    }

    fn release(&mut self, amount: usize) {
        // Refused only for more than was received, which the sums above exclude.
        let _ = self.from.flow_control().release_capacity(amount);
    }

    /// After the last DATA frame: trailers, or nothing.
    fn end(
        &mut self,
        to: &mut SendStream<Bytes>,
        watch: &mut impl Watch,
        cx: &mut Context<'_>,
    ) -> Poll<Pumped> {
        Poll::Ready(match ready!(self.from.poll_trailers(cx)) {
            Ok(Some(trailers)) => {
                watch.trailers();
                match to.send_trailers(trailers) {
                    Ok(()) => Pumped::Done,
                    Err(_) => Pumped::Refused,
                }
            }
            Ok(None) => finish(to, watch),
            Err(error) => broken(&error),
        })
    }
}

/// Capacity to send at least one byte of `wanted`; `None` when the stream takes no more.
fn capacity(
    to: &mut SendStream<Bytes>,
    wanted: usize,
    cx: &mut Context<'_>,
) -> Poll<Option<usize>> {
    to.reserve_capacity(wanted);
    match to.capacity() {
        0 => match ready!(to.poll_capacity(cx)) {
            Some(Ok(room)) => Poll::Ready(Some(room)),
            Some(Err(_)) | None => Poll::Ready(None),
        },
        room => Poll::Ready(Some(room)),
    }
}

fn finish(to: &mut SendStream<Bytes>, watch: &mut impl Watch) -> Pumped {
    watch.chunk(&Bytes::new(), true);
    match to.send_data(Bytes::new(), true) {
        Ok(()) => Pumped::Done,
        Err(_) => Pumped::Refused,
    }
}

fn broken(error: &h2::Error) -> Pumped {
    match error.reason() {
        Some(reason) if error.is_reset() => Pumped::Reset(reason),
        _ => Pumped::Lost,
    }
}
