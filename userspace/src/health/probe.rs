//! One check: a TCP connection.
//!
//! It is given up with a reset instead of a FIN: nothing waits for its end on either side, and a check each second does not
//! fill a table with connections in TIME-WAIT. No byte is sent, by which the data path tells it from the proxy's connections
//! (`ebpf/src/observe.rs`).

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::TcpStream;

/// Why a check failed, in a few words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// Nobody answered in time.
    #[error("no answer within {0:?}")]
    Silent(Duration),
    /// The connection could not be made.
    #[error("{0}")]
    Refused(io::ErrorKind),
    /// This host is out of something, or forbids it: that says nothing of the backend.
    #[error("not tried: {0}")]
    NotTried(String),
}

impl From<io::Error> for Unreachable {
    fn from(error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(
                Errno::MFILE
                | Errno::NFILE
                | Errno::NOBUFS
                | Errno::NOMEM
                | Errno::ADDRNOTAVAIL
                | Errno::PERM,
            ) => Self::NotTried(error.to_string()),
            _ => Self::Refused(error.kind()),
        }
    }
}

/// Connects to `backend`, and gives that up.
///
/// # Errors
/// It could not be connected to.
pub async fn probe(backend: SocketAddr, timeout: Duration) -> Result<(), Unreachable> {
    match tokio::time::timeout(timeout, TcpStream::connect(backend)).await {
        Err(_) => Err(Unreachable::Silent(timeout)),
        Ok(Err(error)) => Err(error.into()),
        Ok(Ok(stream)) => {
            // Where that fails it ends with a FIN.
            let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn who_listens_is_reached_and_sees_a_reset_and_no_byte() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let accepted = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accept");
            stream.read(&mut [0]).await
        });
        assert_eq!(probe(address, PATIENCE).await, Ok(()));
        let read = accepted.await.expect("no panic");
        let error = read.expect_err("neither a byte nor a FIN");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn where_nobody_listens_the_reason_is_told_in_words() {
        let socket = tokio::net::TcpSocket::new_v4().expect("socket");
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        socket.bind(any).expect("bind");
        let address = socket.local_addr().expect("address");
        let error = probe(address, PATIENCE).await.expect_err("nobody listens");
        assert_eq!(error.to_string(), "connection refused");
        let full = io::Error::from_raw_os_error(Errno::MFILE.raw_os_error());
        assert!(matches!(full.into(), Unreachable::NotTried(_)));
        assert_eq!(
            Unreachable::Silent(Duration::from_millis(1500)).to_string(),
            "no answer within 1.5s"
        );
    }
}
