//! An HTTP/2 client: its connections, so many streams at once, connections renewed when planned or told to go away.
//!
//! As in gRPC a connection counts as made once the peer's SETTINGS came, so that a backend which accepts and closes at once
//! is left alone like one that does not accept; and one that the peer ended makes the names be resolved again, because a
//! backend that goes away often has a successor elsewhere.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::answer::Answer;
use super::channel::{Channel, InFlight, Place};
use super::deadline::Deadline;
use super::dial::{self, Lifetimes};
use super::mux::Mux;
use super::record::{Failed, Failure, Listed};
use super::rpc::{Rpc, Trouble};
use super::shard::Common;
use super::work::{Start, Work};

/// A request that the peer did not process, or that could not be sent, is tried so often before it has failed.
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
    mux: Mux,
    address: SocketAddr,
    listed: Listed,
    born: Instant,
    used: Cell<u64>,
    most: Option<u64>,
    lifetime: Option<Duration>,
    retired: Cell<bool>,
}

// === impl Client ===

impl Client {
    /// One stream's worth of concurrency: does requests until there are no more.
    pub(super) async fn run_stream(self: Rc<Self>) {
        let timeout = self.common.plan.timeout;
        let recorder = &self.common.recorder;
        let mut deadline = Deadline::new(timeout);
        while let Some(start) = self.work.next(timeout, recorder).await {
            let carrier = Cell::new(None);
            let request = pin!(self.request(start, &carrier));
            let answer = deadline.keep(start.intended, request).await;
            let answer = answer.unwrap_or_else(|| {
                let cause = format_args!("no answer within {timeout:?}");
                Err(Failed::new(Failure::Timeout, cause))
            });
            match answer {
                Ok(answer) => recorder.succeeded(carrier.get(), &answer, start),
                Err(failed) => recorder.failed(carrier.get(), start.intended, failed),
            }
        }
    }

    /// Does one request; `carrier` becomes the connection that it was last sent on.
    async fn request(
        self: &Rc<Self>,
        start: Start,
        carrier: &Cell<Listed>,
    ) -> Result<Answer, Failed> {
        let exchange = self.rpc.prepare();
        let mut attempt = 1;
        loop {
            let (_in_flight, link) = self.link().await?;
            carrier.set(link.listed);
            let sent = Cell::new(false);
            let opened = || {
                sent.set(true);
                self.common.recorder.opened_stream(link.listed);
            };
            match exchange.run(&link.mux, opened).await {
                Ok(answer) => return Ok(answer),
                Err(Trouble::NotProcessed(_)) if attempt < ATTEMPTS => {
                    attempt += 1;
                    link.retired.set(true);
                    if sent.get() {
                        self.common.recorder.retried(start.intended);
                    }
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

    /// A connection that takes one more request: the one whose turn it is, or where there is none the next that can be
    /// made. Fails once all that were tried since could not be.
    async fn link(self: &Rc<Self>) -> Result<(InFlight<Rc<Link>>, Rc<Link>), Failed> {
        let mut waited = false;
        loop {
            let found = self.ready_link();
            if !self.channel.is_complete() {
                let stranded = found.is_none() && !waited;
                let missing = self.channel.to_make(stranded);
                missing.into_iter().for_each(|place| self.make(place));
            }
            if let Some(found) = found {
                return Ok(found);
            }
            if !self.channel.is_making() {
                tokio::time::sleep(PAUSE).await;
                return Err(self.channel.unreachable());
            }
            self.channel.changed().await;
            waited = true;
        }
    }

    /// The connection whose turn it is. One that takes no more is retired: its streams finish, and once the last is done
    /// it is closed with a GOAWAY.
    fn ready_link(&self) -> Option<(InFlight<Rc<Link>>, Rc<Link>)> {
        loop {
            let picked = self.channel.pick_ready()?;
            if let Some(link) = Link::at(&picked.place) {
                return Some((picked, link));
            }
            if Link::is_lost(&picked.place) {
                self.channel.lost(&picked.place);
            } else {
                self.channel.retire(&picked.place);
            }
        }
    }

    /// Makes the connection of a place, while requests go elsewhere.
    fn make(self: &Rc<Self>, place: Rc<Place<Rc<Link>>>) {
        let client = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let made = client.connect(&place.addresses()).await;
            client.channel.dialled(&place, made.map(Rc::new));
        });
    }

    async fn connect(&self, addresses: &[SocketAddr]) -> Result<Link, Failed> {
        let Common {
            connector,
            recorder,
            ..
        } = &*self.common;
        let meet = async |address| {
            let socket = connector.connect(address).await?;
            let (mux, pump) = Mux::new(socket, Rc::clone(&self.rpc.template));
            tokio::task::spawn_local(pump);
            let met = mux.met().await;
            met.map_err(|trouble| io::Error::other(trouble.failed().cause))?;
            Ok(mux)
        };
        let (mux, address) = dial::dial(addresses, meet).await?;
        let listed = recorder.opened(self.number, address, false);
        let (most, lifetime) = self.lifetimes.next();
        Ok(Link {
            mux,
            address,
            listed,
            born: Instant::now(),
            used: Cell::new(0),
            most,
            lifetime,
            retired: Cell::new(false),
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

    /// Whether the connection at `place` has ended, or the peer goes away.
    fn is_lost(place: &Place<Rc<Self>>) -> bool {
        let current = place.link.borrow();
        current.as_ref().is_some_and(|link| !link.mux.takes_more())
    }

    fn usable(&self, place: &Place<Rc<Self>>) -> bool {
        !self.retired.get()
            && self.mux.takes_more()
            && place.may_use(self.address)
            && self.most.is_none_or(|most| self.used.get() < most)
            && self
                .lifetime
                .is_none_or(|lifetime| self.born.elapsed() < lifetime)
    }
}
