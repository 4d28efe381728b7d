//! An HTTP/2 client: its connections, so many streams at once, connections renewed when planned or told to go away.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::HeaderValue;
use tokio::time::Instant;

use super::channel::{Channel, Place};
use super::deadline::Deadline;
use super::dial::{self, Lifetimes};
use super::record::{Failed, Failure, Listed};
use super::rpc::{Exchange, Rpc, Trouble};
use super::shard::Common;
use super::work::Work;

/// Streams at most before the peer has said how many it takes: what RFC 9113 section 6.5.2 says that every peer should
/// take. `h2` knows no limit by itself, and a peer refuses what is too many.
const STREAMS_AT_FIRST: usize = 100;
/// The peer may send this much per stream and per connection before we answer.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
const HEADER_LIST: u32 = 16 * 1024;
/// A request the peer did not process is sent again this often before it counts as refused.
const ATTEMPTS: u32 = 10;
/// How long a client that reaches nobody waits before it reports that, so that a closed loop does not turn a closed port
/// into a million failures per second.
const PAUSE: Duration = Duration::from_millis(100);

/// One client of the run.
pub(super) struct Client {
    pub(super) number: usize,
    pub(super) work: Rc<Work>,
    pub(super) lifetimes: Lifetimes,
    pub(super) channel: Channel<Rc<Link>>,
    pub(super) rpc: Rpc,
    pub(super) common: Rc<Common>,
}

/// One connection of a client.
pub(super) struct Link {
    requests: SendRequest<Bytes>,
    /// Handles of the same connection that no request uses now. Making one, and giving it back, takes `h2`'s lock twice.
    spare: RefCell<Vec<SendRequest<Bytes>>>,
    address: SocketAddr,
    listed: Listed,
    born: Instant,
    used: Cell<u64>,
    most: Option<u64>,
    lifetime: Option<Duration>,
    retired: Rc<Cell<bool>>,
}

// === impl Client ===

impl Client {
    /// One stream's worth of concurrency: does requests until there are no more.
    pub(super) async fn run_stream(self: Rc<Self>) {
        let mut deadline = Deadline::new(self.common.plan.timeout);
        while let Some(intended) = self.work.next().await {
            let carrier = Cell::new(None);
            let answer = deadline.keep(intended, self.request(&carrier)).await;
            let answer = answer.unwrap_or_else(|| {
                let cause = format_args!("no answer within {:?}", self.common.plan.timeout);
                Err(Failed::new(Failure::Timeout, cause))
            });
            let recorder = &self.common.recorder;
            match answer {
                Ok(backend) => recorder.succeeded(carrier.get(), backend.as_ref(), intended),
                Err(failed) => recorder.failed(carrier.get(), intended, failed),
            }
        }
    }

    /// Does one request; `carrier` becomes the connection that it was last sent on.
    async fn request(&self, carrier: &Cell<Listed>) -> Result<Option<HeaderValue>, Failed> {
        let exchange = self.rpc.prepare();
        let mut attempt = 1;
        let mut unreachable = 0;
        loop {
            let Some(picked) = self.channel.pick() else {
                return Err(Failed::new(Failure::Connect, "no address"));
            };
            let link = match self.link(&picked.place).await {
                Ok(link) => link,
                Err(failed) => {
                    self.channel.failed(&picked.place);
                    unreachable += 1;
                    if unreachable < self.channel.len() {
                        continue;
                    }
                    tokio::time::sleep(PAUSE).await;
                    return Err(failed);
                }
            };
            carrier.set(link.listed);
            match self.send(&exchange, &link).await {
                Ok(backend) => return Ok(backend),
                Err(Trouble::NotProcessed(_)) if attempt < ATTEMPTS => {
                    attempt += 1;
                    link.retired.set(true);
                    self.common.recorder.retried();
                }
                Err(Trouble::NotProcessed(failed)) => return Err(failed),
                Err(Trouble::Failed(failed)) => {
                    if failed.class == Failure::ConnectionLost {
                        link.retired.set(true);
                    }
                    return Err(failed);
                }
            }
        }
    }

    async fn send(
        &self,
        exchange: &Exchange<'_>,
        link: &Link,
    ) -> Result<Option<HeaderValue>, Trouble> {
        let spare = link.spare.borrow_mut().pop();
        let mut requests = spare.unwrap_or_else(|| link.requests.clone());
        let opened = || self.common.recorder.opened_stream(link.listed);
        let answer = exchange.run(&mut requests, opened).await;
        link.spare.borrow_mut().push(requests);
        answer
    }

    /// The connection at `place`, or a new one there. The old one's streams finish; once the last is done `h2` closes it
    /// with a GOAWAY of its own.
    async fn link(&self, place: &Place<Rc<Link>>) -> Result<Rc<Link>, Failed> {
        if let Some(link) = Link::at(place) {
            return Ok(link);
        }
        let _making = place.making.lock().await;
        if let Some(link) = Link::at(place) {
            return Ok(link);
        }
        place.link.replace(None);
        let link = Rc::new(self.connect(&place.addresses()).await?);
        place.link.replace(Some(Rc::clone(&link)));
        Ok(link)
    }

    async fn connect(&self, addresses: &[SocketAddr]) -> Result<Link, Failed> {
        let Common {
            connector,
            recorder,
            ..
        } = &*self.common;
        let (stream, address) = dial::dial(&**connector, addresses).await?;
        let refused = |error: h2::Error| Failed::new(Failure::Connect, io::Error::other(error));
        let (requests, connection) = h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEADER_LIST)
            .initial_max_send_streams(STREAMS_AT_FIRST)
            .handshake(stream)
            .await
            .map_err(refused)?;
        let listed = recorder.opened(self.number, address, false);
        let retired = Rc::new(Cell::new(false));
        let ended = Rc::clone(&retired);
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
            ended.set(true);
        });
        let (most, lifetime) = self.lifetimes.next();
        Ok(Link {
            requests,
            spare: RefCell::default(),
            address,
            listed,
            born: Instant::now(),
            used: Cell::new(1),
            most,
            lifetime,
            retired,
        })
    }
}

// === impl Link ===

impl Link {
    /// The connection at `place` if it takes one more request.
    fn at(place: &Place<Rc<Self>>) -> Option<Rc<Self>> {
        let current = place.link.borrow();
        let link = current.as_ref().filter(|link| link.usable(place))?;
        link.used.set(link.used.get() + 1);
        Some(Rc::clone(link))
    }

    fn usable(&self, place: &Place<Rc<Self>>) -> bool {
        !self.retired.get()
            && place.may_use(self.address)
            && self.most.is_none_or(|most| self.used.get() < most)
            && self
                .lifetime
                .is_none_or(|lifetime| self.born.elapsed() < lifetime)
    }
}
