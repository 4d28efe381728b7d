//! An HTTP/1.1 client: one request at a time, with or without keep-alive.

use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONNECTION, HOST};
use http::response::Parts;
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;

use super::dial::Dialer;
use super::plan::{Kind, Plan};
use super::record::{Failed, Failure, Recorder, bump};
use super::work::Work;
use crate::load::BACKEND_HEADER;

/// One client of the run.
pub(super) struct Client {
    pub(super) work: Rc<Work>,
    pub(super) dialer: Dialer,
    pub(super) recorder: Rc<Recorder>,
    pub(super) timeout: Duration,
    pub(super) request: Request<Full<Bytes>>,
    pub(super) keep_alive: bool,
}

/// A connection with requests left in it.
struct Link {
    requests: SendRequest<Full<Bytes>>,
    born: Instant,
    used: u64,
    most: Option<u64>,
    lifetime: Option<Duration>,
}

/// The request of a plan, the same every time.
pub(super) fn request(plan: &Plan) -> Result<Request<Full<Bytes>>, http::Error> {
    let method = if plan.payload == 0 {
        Method::GET
    } else {
        Method::POST
    };
    let path = plan.url.path_and_query().map_or("/", |path| path.as_str());
    let host = plan
        .url
        .authority()
        .map_or("", |authority| authority.as_str());
    let mut request = Request::builder()
        .method(method)
        .uri(path.parse::<Uri>()?)
        .header(HOST, host);
    if plan.kind == (Kind::Http1 { keep_alive: false }) {
        request = request.header(CONNECTION, "close");
    }
    request.body(Full::new(Bytes::from(vec![b'.'; plan.payload])))
}

impl Client {
    /// Does requests until there are no more.
    pub(super) async fn run(self) {
        let mut link = None;
        while let Some(intended) = self.work.next().await {
            let answer = match tokio::time::timeout(self.timeout, self.request(&mut link)).await {
                Ok(answer) => answer,
                Err(_) => {
                    link = None;
                    Err(Failed::new(
                        Failure::Timeout,
                        format_args!("no answer within {:?}", self.timeout),
                    ))
                }
            };
            match answer {
                Ok(backend) => self
                    .recorder
                    .succeeded(backend.as_ref(), intended.elapsed()),
                Err(failed) => self.recorder.failed(failed),
            }
        }
    }

    async fn request(&self, current: &mut Option<Link>) -> Result<Option<HeaderValue>, Failed> {
        let mut retry = true;
        loop {
            let mut link = match current.take().filter(Link::usable) {
                Some(link) => link,
                None => self.connect().await?,
            };
            let reused = link.used > 0;
            link.used += 1;
            match link.exchange(self.request.clone()).await {
                Ok(response) => {
                    *current = self.keep_alive.then_some(link);
                    return checked(&response);
                }
                // The server closed an idle connection while the request was on its way: every HTTP/1.1 client sends
                // it once more then (RFC 9112, section 9.3.1). Shown as a retry.
                Err(error)
                    if retry
                        && (error.is_canceled() || reused && error.is_incomplete_message()) =>
                {
                    retry = false;
                    bump(&self.recorder.retried);
                }
                Err(error) => {
                    let class = if error.is_parse() {
                        Failure::Protocol
                    } else {
                        Failure::ConnectionLost
                    };
                    return Err(Failed::new(class, error));
                }
            }
        }
    }

    async fn connect(&self) -> Result<Link, Failed> {
        let stream = self.dialer.dial().await?;
        let refused = |error: hyper::Error| Failed::new(Failure::Connect, error);
        let (requests, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(refused)?;
        bump(&self.recorder.connections);
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
        });
        let (most, lifetime) = self.dialer.next_lifetime();
        Ok(Link {
            requests,
            born: Instant::now(),
            used: 0,
            most,
            lifetime,
        })
    }
}

impl Link {
    fn usable(&self) -> bool {
        !self.requests.is_closed()
            && self.most.is_none_or(|most| self.used < most)
            && self
                .lifetime
                .is_none_or(|lifetime| self.born.elapsed() < lifetime)
    }

    /// Sends the request and reads the whole answer; gives its head.
    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Parts> {
        self.requests.ready().await?;
        let (head, mut body) = self.requests.send_request(request).await?.into_parts();
        while let Some(frame) = body.frame().await {
            frame?;
        }
        Ok(head)
    }
}

fn checked(head: &Parts) -> Result<Option<HeaderValue>, Failed> {
    if !head.status.is_success() {
        return Err(Failed::new(
            Failure::HttpStatus,
            format_args!("status {}", head.status),
        ));
    }
    Ok(head.headers.get(BACKEND_HEADER).cloned())
}
