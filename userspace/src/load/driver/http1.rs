//! An HTTP/1.1 client: one request at a time, with or without keep-alive.
//!
//! Its connections are made beside the requests, so that an address that does not answer holds up none that another
//! could take. With keep-alive all of them are made from the first request on, as over HTTP/2. Without, making a connection
//! is part of a request: it waits for that whose turn it is, and after [`HEAD_START`] for the next one as well; what is
//! made after all takes the request that comes then.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::response::Parts;
use http::{HeaderValue, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::answer::Answer;
use super::channel::{Channel, InFlight, Place};
use super::dial::{self, Lifetimes};
use super::head;
use super::payload::{Asked, Payload};
use super::plan::{Kind, Plan};
use super::record::{Failed, Failure, Listed};
use super::shard::Common;
use super::work::{Start, Work};
use crate::load::RESPONSE_SIZE_HEADER;
use crate::load::arrival::{Arrival, Latest};

/// After so long a connection that is not made yet gets another at its side (RFC 8305, section 5, "Connection Attempt
/// Delay").
const HEAD_START: Duration = Duration::from_millis(250);
/// How long a client that reaches nobody waits before it reports that.
const PAUSE: Duration = Duration::from_millis(100);

/// One client of the run.
pub(super) struct Client {
    pub(super) number: usize,
    pub(super) work: Rc<Work>,
    pub(super) lifetimes: Lifetimes,
    pub(super) channel: Channel<Link>,
    pub(super) request: Request<()>,
    pub(super) payload: RefCell<Payload>,
    pub(super) asked: RefCell<Option<Asked>>,
    pub(super) keep_alive: bool,
    pub(super) common: Rc<Common>,
}

/// A connection with requests left in it.
pub(super) struct Link {
    requests: SendRequest<Full<Bytes>>,
    /// The arrival of what was read last: with one request at a time, of the end of an answer once that was read.
    latest: Latest,
    address: SocketAddr,
    listed: Listed,
    born: Instant,
    used: u64,
    most: Option<u64>,
    lifetime: Option<Duration>,
}

/// The head of the requests of a plan, the same every time.
pub(super) fn request(plan: &Plan) -> Result<Request<()>, http::Error> {
    let path = plan.url.path_and_query().map_or("/", |path| path.as_str());
    let host = plan
        .url
        .authority()
        .map_or("", |authority| authority.as_str());
    let mut ours = vec![(HOST, HeaderValue::from_str(host)?)];
    if plan.kind == (Kind::Http1 { keep_alive: false }) {
        ours.push((CONNECTION, HeaderValue::from_static("close")));
    }
    head::head(plan, path.parse::<Uri>()?, ours)
}

impl Client {
    /// Does requests until there are no more.
    pub(super) async fn run(self: Rc<Self>) {
        let timeout = self.common.plan.timeout;
        let recorder = &self.common.recorder;
        while let Some(start) = self.work.next(timeout, recorder).await {
            let carrier = Cell::new(None);
            let answer =
                tokio::time::timeout_at(start.intended + timeout, self.request(start, &carrier));
            let answer = answer.await.unwrap_or_else(|_| {
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
        let body = Full::new(self.payload.borrow_mut().next());
        let mut request = self.request.clone().map(|()| body);
        let asked = self.asked.borrow_mut().as_mut().map(Asked::next);
        if let Some(size) = asked {
            request
                .headers_mut()
                .insert(RESPONSE_SIZE_HEADER, size.into());
        }
        let mut retry = true;
        loop {
            let (picked, mut link) = self.link().await?;
            carrier.set(link.listed);
            let reused = link.used > 0;
            link.used += 1;
            // While a request is on its way its connection is not at its place: who gives the request up drops it.
            match link.exchange(request.clone()).await {
                Ok((head, length)) => {
                    let over = link.over(&head);
                    if self.keep_alive {
                        picked.place.link.replace(Some(link));
                    }
                    return self.checked(&head, (asked, length), over);
                }
                // The server closed an idle connection while the request was on its way: every HTTP/1.1 client sends
                // it once more then (RFC 9112, section 9.3.1). Shown as a retry.
                Err(error)
                    if retry
                        && (error.is_canceled() || reused && error.is_incomplete_message()) =>
                {
                    retry = false;
                    self.channel.lost(&picked.place);
                    self.common.recorder.retried(start.intended);
                }
                Err(error) => {
                    let class = if error.is_parse() {
                        Failure::Protocol
                    } else {
                        self.channel.lost(&picked.place);
                        Failure::ConnectionLost
                    };
                    return Err(Failed::new(class, error));
                }
            }
        }
    }

    /// A connection for one request. Fails once all that were tried since could not be made.
    async fn link(self: &Rc<Self>) -> Result<(InFlight<Link>, Link), Failed> {
        let mut waited = false;
        loop {
            let found = self.ready_link();
            let missing = self.missing(found.is_some(), waited);
            missing.into_iter().for_each(|place| self.make(place));
            if let Some(found) = found {
                return Ok(found);
            }
            if !self.channel.is_making() {
                tokio::time::sleep(PAUSE).await;
                return Err(self.channel.unreachable());
            }
            // Either way it is looked at again what there is, and what can be made.
            let _ = tokio::time::timeout(HEAD_START, self.channel.changed()).await;
            waited = true;
        }
    }

    /// Takes a connection from its place: the one whose turn it is, or without keep-alive any, as turns were taken when it
    /// was to be made.
    fn ready_link(&self) -> Option<(InFlight<Link>, Link)> {
        loop {
            let picked = if self.keep_alive {
                self.channel.pick_ready()?
            } else {
                self.channel.pick_made()?
            };
            let place = &picked.place;
            match place.link.take() {
                Some(link) if link.usable(place) => {
                    if !self.keep_alive {
                        self.channel.retire(place);
                    }
                    return Some((picked, link));
                }
                // As good as not made: a peer that accepts and closes at once is left alone.
                Some(link) if link.requests.is_closed() && link.used == 0 => {
                    let cause = format_args!("connect to {}: closed unused", link.address);
                    let failed = Failed::new(Failure::Connect, cause);
                    self.channel.failed(place, failed);
                }
                Some(link) if link.requests.is_closed() => self.channel.lost(place),
                // It had its time, or was given up along with its request.
                _ => self.channel.retire(place),
            }
        }
    }

    /// The places whose connection is to be made now, for a request that `found` one or `waited` for one.
    fn missing(&self, found: bool, waited: bool) -> Vec<Rc<Place<Link>>> {
        let stranded = !found && !waited;
        match self.keep_alive {
            true if self.channel.is_complete() => Vec::new(),
            true => self.channel.to_make(stranded),
            false if found => Vec::new(),
            false => match self.channel.next_to_make() {
                Some(next) => vec![next],
                None => self.channel.to_make(stranded),
            },
        }
    }

    /// Makes the connection of a place, while requests go elsewhere.
    fn make(self: &Rc<Self>, place: Rc<Place<Link>>) {
        let client = Rc::clone(self);
        tokio::task::spawn_local(async move {
            let made = client.connect(&place.addresses()).await;
            client.channel.dialled(&place, made);
        });
    }

    async fn connect(&self, addresses: &[SocketAddr]) -> Result<Link, Failed> {
        let Common {
            connector,
            recorder,
            ..
        } = &*self.common;
        let (stream, address) = dial::dial(addresses, |address| connector.connect(address)).await?;
        let latest = stream.latest();
        let refused = |error: hyper::Error| Failed::new(Failure::Connect, error);
        let (requests, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(refused)?;
        let listed = recorder.opened(self.number, address, !self.keep_alive);
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
        let (most, lifetime) = self.lifetimes.next();
        Ok(Link {
            requests,
            latest,
            address,
            listed,
            born: Instant::now(),
            used: 0,
            most,
            lifetime,
        })
    }

    fn checked(
        &self,
        head: &Parts,
        (asked, length): (Option<u64>, u64),
        over: Arrival,
    ) -> Result<Answer, Failed> {
        if !head.status.is_success() {
            return Err(Failed::new(
                Failure::HttpStatus,
                format_args!("status {}", head.status),
            ));
        }
        match asked {
            Some(size) if size != length => {
                let cause = format_args!("asked for {size} bytes, not as many came");
                Err(Failed::new(Failure::Mismatch, cause))
            }
            _ => Ok(Answer::of(
                &head.headers,
                &self.common.plan.backend_header,
                over,
            )),
        }
    }
}

impl Link {
    fn usable(&self, place: &Place<Link>) -> bool {
        !self.requests.is_closed()
            && place.may_use(self.address)
            && self.most.is_none_or(|most| self.used < most)
            && self
                .lifetime
                .is_none_or(|lifetime| self.born.elapsed() < lifetime)
    }

    /// When the answer with that head was over, all of which was read. Where its length is not told it ends with the
    /// connection (RFC 9112, section 6.3), of which the kernel says no time.
    fn over(&self, head: &Parts) -> Arrival {
        let tells = |name| head.headers.contains_key(name);
        if tells(CONTENT_LENGTH) || tells(TRANSFER_ENCODING) {
            self.latest.get()
        } else {
            Arrival::now()
        }
    }

    /// Sends the request and reads the whole answer; gives its head and the length of its body.
    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<(Parts, u64)> {
        self.requests.ready().await?;
        let (head, mut body) = self.requests.send_request(request).await?.into_parts();
        let mut length = 0;
        while let Some(frame) = body.frame().await {
            length += frame?.data_ref().map_or(0, |data| data.len() as u64);
        }
        Ok((head, length))
    }
}
