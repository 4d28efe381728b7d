//! Which protocol a new connection speaks, by its first bytes.
//!
//! The HTTP/2 connection preface (RFC 9113, section 3.4) was chosen so that no HTTP/1.1 request can begin with it. So: read
//! until the bytes are the whole preface, or differ from it. The former is h2c with prior knowledge, the latter is left to
//! the HTTP/1.1 parser, which answers what it does not understand with 400.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::registry::Registered;
use super::worker::{View, Worker};
use super::{downstream, http1};

/// The HTTP/2 connection preface.
pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// First read; most clients send preface, SETTINGS and the first request together.
const FIRST_READ: usize = 4_096;

/// What the first bytes tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The whole preface.
    Http2,
    /// Anything else.
    Http1,
}

impl Protocol {
    /// The name in logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http2 => "HTTP/2",
            Self::Http1 => "HTTP/1.1",
        }
    }
}

/// The protocol, or `None` while the bytes are only a part of the preface.
#[must_use]
pub fn detect(first: &[u8]) -> Option<Protocol> {
    if first.starts_with(PREFACE) {
        Some(Protocol::Http2)
    } else if PREFACE.starts_with(first) {
        None
    } else {
        Some(Protocol::Http1)
    }
}

/// Serves a downstream connection to its end.
pub async fn serve(
    worker: Rc<Worker>,
    mut socket: TcpStream,
    local: SocketAddr,
    registered: Registered,
    view: Rc<View>,
) {
    let _ = socket.set_nodelay(true);
    let counters = view.counters();
    counters.connections_opened.add(1);
    let first = tokio::time::timeout(worker.limits.detect_timeout(), first_bytes(&mut socket));
    if let Ok(Ok((protocol, first))) = first.await {
        registered.handle.heard.set(true);
        match protocol {
            Protocol::Http2 => {
                downstream::serve(worker, view, local, socket, first, registered).await;
            }
            Protocol::Http1 => {
                counters.http1_connections.add(1);
                http1::serve(worker, view, local, socket, first, registered).await;
            }
        }
    }
}

async fn first_bytes(socket: &mut TcpStream) -> io::Result<(Protocol, Bytes)> {
    let mut first = BytesMut::with_capacity(FIRST_READ);
    loop {
        if socket.read_buf(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(protocol) = detect(&first) {
            return Ok((protocol, first.freeze()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_split_of_the_preface_is_recognised() {
        for length in 0..PREFACE.len() {
            assert_eq!(detect(&PREFACE[..length]), None, "{length} bytes");
        }
        assert_eq!(detect(PREFACE), Some(Protocol::Http2));
        let mut more = PREFACE.to_vec();
        more.extend([0, 0, 0, 4, 0, 0, 0, 0, 0]);
        assert_eq!(detect(&more), Some(Protocol::Http2));
    }

    #[test]
    fn other_protocols_are_told_at_the_first_different_byte() {
        for first in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PRI * HTTP/1.1",
            b"PUT /",
            b"\x16\x03\x01",
        ] {
            assert_eq!(detect(first), Some(Protocol::Http1));
        }
    }
}
