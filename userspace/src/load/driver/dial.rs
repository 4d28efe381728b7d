//! Making connections: source addresses in turn, renewal spread out, one address after the other.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpSocket;

use super::plan::Renewal;
use super::record::{Failed, Failure};
use crate::load::arrival::{Clock, Latest, Stamped, Stamps};

/// An address that did not answer by then is given up for the next: the first SYN and the one a second later
/// (RFC 6298, section 5.7) had their time. Over HTTP/2 its SETTINGS must have come as well.
const PATIENCE: Duration = Duration::from_secs(2);

/// A connection.
pub(super) type Socket = Box<dyn Stream>;

/// What a connection does.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin {
    /// When what was read last had arrived.
    fn latest(&self) -> Latest;
}

/// A connection that is being made.
pub(super) type Connecting<'a> = Pin<Box<dyn Future<Output = io::Result<Socket>> + 'a>>;

/// Makes connections.
pub(super) trait Connect {
    /// One to `address`.
    fn connect(&self, address: SocketAddr) -> Connecting<'_>;
}

/// Makes TCP connections, from each source address in turn.
pub(super) struct Tcp {
    sources: Vec<IpAddr>,
    next: Cell<usize>,
    stamps: Stamps,
}

/// How long the connections of one client live.
pub(super) struct Lifetimes {
    renewal: Renewal,
    /// Which part of a full life the first connection gets: with `n` clients the first ones end spread over a whole
    /// life, so that the run never renews all connections at once.
    first_part: Cell<Option<f64>>,
}

/// What `attempt` makes with the first of `addresses` with which it succeeds.
pub(super) async fn dial<T>(
    addresses: &[SocketAddr],
    attempt: impl AsyncFn(SocketAddr) -> io::Result<T>,
) -> Result<(T, SocketAddr), Failed> {
    let mut failed = Failed::new(Failure::Connect, "no address");
    for address in addresses {
        let made = tokio::time::timeout(PATIENCE, attempt(*address)).await;
        let made = made.unwrap_or_else(|_| {
            let waited = format!("no answer within {PATIENCE:?}");
            Err(io::Error::new(io::ErrorKind::TimedOut, waited))
        });
        match made {
            Ok(made) => return Ok((made, *address)),
            Err(error) => {
                let cause = format_args!("connect to {address}: {error}");
                failed = Failed::new(Failure::Connect, cause);
            }
        }
    }
    Err(failed)
}

// === impl Stream ===

impl Stream for Stamped {
    fn latest(&self) -> Latest {
        Stamped::latest(self)
    }
}

/// Whose clock is stopped wherever it is used.
#[cfg(test)]
impl Stream for tokio::io::DuplexStream {
    fn latest(&self) -> Latest {
        Latest::default()
    }
}

// === impl Tcp ===

impl Tcp {
    pub(super) fn new(sources: &[IpAddr], clock: Clock) -> Self {
        Self {
            sources: sources.to_vec(),
            next: Cell::new(0),
            stamps: Stamps::new(clock),
        }
    }
}

impl Connect for Tcp {
    fn connect(&self, address: SocketAddr) -> Connecting<'_> {
        Box::pin(async move {
            let socket = if address.is_ipv4() {
                TcpSocket::new_v4()?
            } else {
                TcpSocket::new_v6()?
            };
            if !self.sources.is_empty() {
                let turn = self.next.get();
                self.next.set((turn + 1) % self.sources.len());
                socket.bind(SocketAddr::new(self.sources[turn], 0))?;
            }
            socket.set_nodelay(true)?;
            let stream = socket.connect(address).await?;
            let stream: Socket = Box::new(Stamped::new(stream, &self.stamps));
            Ok(stream)
        })
    }
}

// === impl Lifetimes ===

impl Lifetimes {
    /// Those of client number `client` of `clients`.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a fraction of a lifetime needs no exactness"
    )]
    pub(super) fn new(renewal: Renewal, client: usize, clients: usize) -> Self {
        Self {
            renewal,
            first_part: Cell::new(Some((client + 1) as f64 / clients as f64)),
        }
    }

    /// How many requests, and how long, the next connection lives.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a fraction of a lifetime needs no exactness"
    )]
    pub(super) fn next(&self) -> (Option<u64>, Option<Duration>) {
        let part = self.first_part.take().unwrap_or(1.0);
        let Renewal {
            after_requests,
            after,
        } = self.renewal;
        (
            after_requests.map(|most| ((most as f64 * part) as u64).max(1)),
            after.map(|age| age.mul_f64(part)),
        )
    }
}
