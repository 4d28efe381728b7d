//! An HTTP/2 client: one connection at a time, so many streams on it, renewed when planned or told to go away.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::SendRequest;
use http::HeaderValue;
use tokio::sync::Mutex;

use super::dial::Dialer;
use super::record::{Failed, Failure, Recorder, bump};
use super::rpc::{Rpc, Trouble};
use super::work::Work;

/// The peer may send this much per stream and per connection before we answer.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;
const HEADER_LIST: u32 = 16 * 1024;
/// A request the peer did not process is sent again this often before it counts as refused.
const ATTEMPTS: u32 = 10;

/// One client of the run.
pub(super) struct Client {
    pub(super) work: Rc<Work>,
    pub(super) dialer: Dialer,
    pub(super) rpc: Rc<Rpc>,
    pub(super) recorder: Rc<Recorder>,
    pub(super) timeout: Duration,
    current: Mutex<Option<Rc<Link>>>,
}

/// One connection of a client.
struct Link {
    requests: SendRequest<Bytes>,
    born: Instant,
    used: Cell<u64>,
    most: Option<u64>,
    lifetime: Option<Duration>,
    retired: Rc<Cell<bool>>,
}

impl Client {
    pub(super) fn new(
        work: Rc<Work>,
        dialer: Dialer,
        rpc: Rc<Rpc>,
        recorder: Rc<Recorder>,
        timeout: Duration,
    ) -> Self {
        Self {
            work,
            dialer,
            rpc,
            recorder,
            timeout,
            current: Mutex::new(None),
        }
    }

    /// One stream's worth of concurrency: does requests until there are no more.
    pub(super) async fn run_stream(self: Rc<Self>) {
        while let Some(intended) = self.work.next().await {
            let answer = match tokio::time::timeout(self.timeout, self.request()).await {
                Ok(answer) => answer,
                Err(_) => Err(Failed::new(
                    Failure::Timeout,
                    format_args!("no answer within {:?}", self.timeout),
                )),
            };
            match answer {
                Ok(backend) => self
                    .recorder
                    .succeeded(backend.as_ref(), intended.elapsed()),
                Err(failed) => self.recorder.failed(failed),
            }
        }
    }

    async fn request(&self) -> Result<Option<HeaderValue>, Failed> {
        let mut attempt = 1;
        loop {
            let link = self.link().await?;
            match self
                .rpc
                .exchange(link.requests.clone(), &self.recorder)
                .await
            {
                Ok(backend) => return Ok(backend),
                Err(Trouble::NotProcessed(_)) if attempt < ATTEMPTS => {
                    attempt += 1;
                    link.retired.set(true);
                    bump(&self.recorder.retried);
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

    /// The current connection, or a new one in its place. The old one's streams finish; once the last is done `h2`
    /// closes it with a GOAWAY of its own.
    async fn link(&self) -> Result<Rc<Link>, Failed> {
        let mut current = self.current.lock().await;
        if let Some(link) = current.as_ref().filter(|link| link.usable()) {
            bump(&link.used);
            return Ok(Rc::clone(link));
        }
        *current = None;
        let link = Rc::new(self.connect().await?);
        bump(&link.used);
        *current = Some(Rc::clone(&link));
        Ok(link)
    }

    async fn connect(&self) -> Result<Link, Failed> {
        let stream = self.dialer.dial().await?;
        let refused = |error: h2::Error| Failed::new(Failure::Connect, io::Error::other(error));
        let (requests, connection) = h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_header_list_size(HEADER_LIST)
            .handshake(stream)
            .await
            .map_err(refused)?;
        bump(&self.recorder.connections);
        let retired = Rc::new(Cell::new(false));
        let ended = Rc::clone(&retired);
        tokio::task::spawn_local(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection ended");
            }
            ended.set(true);
        });
        let (most, lifetime) = self.dialer.next_lifetime();
        Ok(Link {
            requests,
            born: Instant::now(),
            used: Cell::new(0),
            most,
            lifetime,
            retired,
        })
    }
}

impl Link {
    fn usable(&self) -> bool {
        !self.retired.get()
            && self.most.is_none_or(|most| self.used.get() < most)
            && self
                .lifetime
                .is_none_or(|lifetime| self.born.elapsed() < lifetime)
    }
}
