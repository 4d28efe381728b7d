//! The buffer between `h2` and the socket: fewer, larger system calls.
//!
//! `h2` reads about 8 KiB at a time and writes once for each larger DATA frame. Below it, this shim
//! - reads up to 64 KiB with one call, into memory that all connections of the thread share, and keeps only what `h2` did
//!   not take at once;
//! - gathers everything written, and sends it when the connection's task is about to wait ([`Io::flush`]) or 256 KiB are
//!   there. `poll_flush` therefore does nothing;
//! - stops reading after four reads of one poll, so that one fast peer cannot keep the thread;
//! - shows each byte read to the [`Guard`].
//!
//! Rejected: handing the buffer over by a channel to a writer task (a wakeup more for each turn), and `BufWriter` (flushes
//! whenever `h2` does).

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::guard::Guard;

const READ: usize = 64 * 1024;
const WRITE_HIGH: usize = 256 * 1024;
/// A write buffer that grew beyond this is given back once it is empty.
const WRITE_KEEP: usize = 64 * 1024;
const READS_PER_POLL: u32 = 4;

thread_local! {
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; READ].into_boxed_slice());
}

/// A buffered socket; clones are the same socket.
#[derive(Clone)]
pub struct Io(Rc<Inner>);

struct Inner {
    socket: RefCell<TcpStream>,
    /// Read from the socket, not yet taken.
    unread: RefCell<Bytes>,
    /// Written, not yet on the socket.
    unsent: RefCell<BytesMut>,
    guard: Option<RefCell<Guard>>,
    reads_left: Cell<u32>,
    received: Cell<u64>,
    sent: Cell<u64>,
}

// === impl Io ===

impl Io {
    /// Wraps a socket from which `unread` was already taken. `guard` counts what comes after `unread_preface` bytes.
    pub fn new(socket: TcpStream, unread: Bytes, unguarded: usize, guard: Option<Guard>) -> Self {
        let guard = guard.map(|mut guard| {
            guard.observe(unread.get(unguarded..).unwrap_or_default(), Instant::now());
            RefCell::new(guard)
        });
        Self(Rc::new(Inner {
            received: Cell::new(unread.len() as u64),
            socket: RefCell::new(socket),
            unread: RefCell::new(unread),
            unsent: RefCell::new(BytesMut::new()),
            guard,
            reads_left: Cell::new(READS_PER_POLL),
            sent: Cell::new(0),
        }))
    }

    /// Allows another few reads; called at the start of each poll of the connection.
    pub fn begin(&self) {
        self.0.reads_left.set(READS_PER_POLL);
    }

    /// Puts on the socket what was written. `Pending` when the socket takes no more; the task is then woken once it does.
    pub fn flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let inner = &*self.0;
        let mut unsent = inner.unsent.borrow_mut();
        while !unsent.is_empty() {
            let mut socket = inner.socket.borrow_mut();
            match Pin::new(&mut *socket).poll_write(cx, &unsent) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => {
                    unsent.advance(written);
                    inner.sent.set(inner.sent.get() + written as u64);
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if unsent.capacity() > WRITE_KEEP {
            *unsent = BytesMut::new();
        } else {
            unsent.clear();
        }
        Poll::Ready(Ok(()))
    }

    /// Reads and throws away what the peer still sends, until it closes, is silent for so long, or `most` reads were made:
    /// closing a socket with unread bytes resets the connection, and the peer would lose our last words.
    pub async fn discard(&self, most: u32, silence: Duration) {
        for _ in 0..most {
            let read = poll_fn(|cx| {
                SCRATCH.with_borrow_mut(|scratch| {
                    let mut read = ReadBuf::new(scratch);
                    let mut socket = self.0.socket.borrow_mut();
                    ready!(Pin::new(&mut *socket).poll_read(cx, &mut read))?;
                    Poll::Ready(io::Result::Ok(read.filled().len()))
                })
            });
            if !matches!(tokio::time::timeout(silence, read).await, Ok(Ok(1..))) {
                return;
            }
        }
    }

    /// Bytes received and sent so far.
    pub fn totals(&self) -> (u64, u64) {
        (self.0.received.get(), self.0.sent.get())
    }

    /// True once the guard counted a flood.
    pub fn flooded(&self) -> bool {
        self.0
            .guard
            .as_ref()
            .is_some_and(|guard| guard.borrow().tripped())
    }

    /// Tells the guard, where there is one, what the peer earned.
    pub fn earn(&self, earn: impl FnOnce(&mut Guard)) {
        if let Some(guard) = &self.0.guard {
            earn(&mut guard.borrow_mut());
        }
    }
}

impl Inner {
    /// Reads once from the socket, straight into `buf` where it is large enough, else by way of the scratch memory.
    fn read(&self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut socket = self.socket.borrow_mut();
        SCRATCH.with_borrow_mut(|scratch| {
            let mut read = ReadBuf::new(scratch);
            ready!(Pin::new(&mut *socket).poll_read(cx, &mut read))?;
            let bytes = read.filled();
            self.received.set(self.received.get() + bytes.len() as u64);
            if let Some(guard) = &self.guard {
                guard.borrow_mut().observe(bytes, Instant::now());
            }
            let (taken, kept) = bytes.split_at(bytes.len().min(buf.remaining()));
            buf.put_slice(taken);
            if !kept.is_empty() {
                *self.unread.borrow_mut() = Bytes::copy_from_slice(kept);
            }
            Poll::Ready(Ok(()))
        })
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let inner = &*self.0;
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        {
            let mut unread = inner.unread.borrow_mut();
            if !unread.is_empty() {
                let taken = unread.len().min(buf.remaining());
                buf.put_slice(&unread.split_to(taken));
                return Poll::Ready(Ok(()));
            }
        }
        // A flood is answered by the connection's task, which looks when `h2` goes pending.
        if inner.reads_left.get() == 0 || self.flooded() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        inner.reads_left.set(inner.reads_left.get() - 1);
        inner.read(cx, buf)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.0.unsent.borrow().len() >= WRITE_HIGH {
            ready!(self.flush(cx))?;
        }
        self.0.unsent.borrow_mut().extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.0.unsent.borrow().len() >= WRITE_HIGH {
            ready!(self.flush(cx))?;
        }
        let mut unsent = self.0.unsent.borrow_mut();
        let before = unsent.len();
        for part in parts {
            unsent.extend_from_slice(part);
        }
        Poll::Ready(Ok(unsent.len() - before))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.flush(cx))?;
        Pin::new(&mut *self.0.socket.borrow_mut()).poll_shutdown(cx)
    }
}
