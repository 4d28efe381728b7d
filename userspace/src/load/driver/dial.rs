//! Making connections: source addresses in turn, renewal spread out, no storm when nobody answers.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream};

use super::plan::{Plan, Renewal};
use super::record::{Failed, Failure};

/// How long a client whose connection attempt failed waits before it reports that, so that a closed loop does not
/// turn a closed port into a million failures per second.
const PAUSE: Duration = Duration::from_millis(100);

/// Makes the connections of one client.
pub(super) struct Dialer {
    target: SocketAddr,
    renewal: Renewal,
    sources: Rc<[IpAddr]>,
    next_source: Rc<Cell<usize>>,
    /// Which part of a full life the first connection gets: with `n` clients the first ones end spread over a whole
    /// life, so that the run never renews all connections at once.
    first_part: Cell<Option<f64>>,
}

impl Dialer {
    /// One per client.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a fraction of a lifetime needs no exactness"
    )]
    pub(super) fn for_clients(plan: &Plan) -> impl Iterator<Item = Dialer> {
        let sources: Rc<[IpAddr]> = plan.sources.clone().into();
        let next_source = Rc::new(Cell::new(0));
        let clients = plan.weights.len();
        let (target, renewal) = (plan.target, plan.renewal);
        (1..=clients).map(move |client| Dialer {
            target,
            renewal,
            sources: Rc::clone(&sources),
            next_source: Rc::clone(&next_source),
            first_part: Cell::new(Some(client as f64 / clients as f64)),
        })
    }

    pub(super) async fn dial(&self) -> Result<TcpStream, Failed> {
        match self.connect().await {
            Ok(stream) => Ok(stream),
            Err(error) => {
                tokio::time::sleep(PAUSE).await;
                Err(Failed::new(
                    Failure::Connect,
                    format_args!("connect to {}: {error}", self.target),
                ))
            }
        }
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let socket = if self.target.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        if !self.sources.is_empty() {
            let turn = self.next_source.get();
            self.next_source.set((turn + 1) % self.sources.len());
            socket.bind(SocketAddr::new(self.sources[turn], 0))?;
        }
        socket.set_nodelay(true)?;
        socket.connect(self.target).await
    }

    /// How many requests, and how long, the next connection lives.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a fraction of a lifetime needs no exactness"
    )]
    pub(super) fn next_lifetime(&self) -> (Option<u64>, Option<Duration>) {
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
