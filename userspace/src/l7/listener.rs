//! Sockets: those listened on, one for each worker and address, in one SO_REUSEPORT group; and what holds for all.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::TcpStream;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4_096;

/// Listens on an address with one socket for each worker. Port 0 becomes the same free port for all.
pub fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    let first = one(address)?;
    let address = first.local_addr()?;
    let mut group = vec![first];
    for _ in 1..workers {
        group.push(one(address)?);
    }
    Ok(group)
}

fn one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    // Connections inherit it.
    socket.set_tcp_keepalive(&keepalive())?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A silent tunnel may last for ever, but not its connection to a peer that vanished without a word: asked after a minute of
/// silence, it is given up half a minute later.
pub fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10))
        .with_retries(3)
}

/// Closes with RST, which costs nothing to keep, unlike a socket that waits for its last acknowledgement.
pub fn reset(connection: TcpStream) {
    let _ = SockRef::from(&connection).set_linger(Some(Duration::ZERO));
    drop(connection);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn accepted_connections_ask_whether_a_silent_client_is_still_there() {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = bind(any, 1).expect("bind").swap_remove(0);
        let listener = tokio::net::TcpListener::from_std(listener).expect("listener");
        let address = listener.local_addr().expect("address");
        let _client = TcpStream::connect(address).await.expect("connect");
        let (accepted, _) = listener.accept().await.expect("accept");
        let accepted = SockRef::from(&accepted);
        assert!(accepted.keepalive().expect("SO_KEEPALIVE"));
        let silence = accepted.tcp_keepalive_time().expect("TCP_KEEPIDLE");
        assert_eq!(silence, Duration::from_secs(60));
    }
}
