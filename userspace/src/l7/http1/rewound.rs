//! A client's socket with the bytes back in front that were read to detect the protocol. It stays below a tunnel, and tells
//! the worker's books whether the client takes what is written, and how many bytes went either way.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::l7::registry::Outflow;
use crate::l7::stats::ServiceCounters;

/// Reads `first`, then the socket.
pub struct Rewound {
    first: Bytes,
    socket: TcpStream,
    outflow: Arc<Outflow>,
    meter: Meter,
}

/// Where bytes are counted: a worker's counters, of which it stays the only writer. Shared only because hyper wants sockets
/// that could move to another thread.
pub struct Meter {
    /// Of the service, by worker.
    pub counters: Arc<[ServiceCounters]>,
    /// Which are this worker's.
    pub worker: usize,
}

// === impl Rewound ===

impl Rewound {
    /// Puts `first` in front of what the socket still holds.
    pub fn new(first: Bytes, socket: TcpStream, outflow: Arc<Outflow>, meter: Meter) -> Self {
        meter.mine().received_bytes.add(first.len() as u64);
        Self {
            first,
            socket,
            outflow,
            meter,
        }
    }

    fn note(&self, written: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(written)) = written {
            self.meter.mine().sent_bytes.add(*written as u64);
        }
        let any = matches!(written, Poll::Ready(Ok(1..)));
        self.outflow.wrote(any, written.is_pending());
    }
}

impl Meter {
    fn mine(&self) -> &ServiceCounters {
        &self.counters[self.worker]
    }
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            let before = buf.filled().len();
            let read = Pin::new(&mut self.socket).poll_read(cx, buf);
            let received = buf.filled().len() - before;
            self.meter.mine().received_bytes.add(received as u64);
            return read;
        }
        let taken = self.first.len().min(buf.remaining());
        buf.put_slice(&self.first.split_to(taken));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write(cx, bytes);
        self.note(&written);
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.socket).poll_write_vectored(cx, parts);
        self.note(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
