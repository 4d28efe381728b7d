//! Listening sockets: one for each worker and address, in one SO_REUSEPORT group.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, SockRef, Socket, Type};
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
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Closes with RST, which costs nothing to keep, unlike a socket that waits for its last acknowledgement.
pub fn reset(connection: TcpStream) {
    let _ = SockRef::from(&connection).set_linger(Some(std::time::Duration::ZERO));
    drop(connection);
}
