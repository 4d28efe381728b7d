//! How an exchange begins: a backend is chosen, and the request sent to it on a connection that has room.

use std::task::{Context, Poll};

use http::Request;
use tokio::time::Instant;

use super::{Attempt, Exchange, Opened};
use crate::l7::detect::Protocol;
use crate::l7::stats::InFlight;
use crate::l7::upstream::Acquired;

impl Exchange {
    /// Sends the request to a backend; false when the client was answered because there is none.
    pub(super) fn open(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            let position = match &self.attempt {
                Some(attempt) => attempt.position,
                None => match self.choose() {
                    Some((position, in_flight)) if !self.searched_enough() => {
                        self.attempt = Some(Attempt {
                            position,
                            _in_flight: in_flight,
                            opened: None,
                        });
                        position
                    }
                    _ => {
                        self.give_up();
                        return Poll::Ready(false);
                    }
                },
            };
            let pool = &self.view.pools[position];
            match pool.acquire(cx) {
                Acquired::Ready(upstream) => {
                    let Ok((response, mut send, ticket)) =
                        upstream.open(copy(&self.head), self.without_content)
                    else {
                        // Going away, and nothing was sent: the pool looks for another connection.
                        pool.remove(&upstream);
                        continue;
                    };
                    pool.counters().opened.add(1);
                    self.moved_at = self.client.worker.now();
                    // An error shows again, with its reason, when the response is awaited.
                    let _ = self.replay.send(&mut send);
                    if self.replay.has_ended() {
                        self.upload = None;
                    }
                    if let Some(attempt) = &mut self.attempt {
                        attempt.opened = Some(Opened {
                            send,
                            response,
                            _ticket: ticket,
                        });
                    }
                    return Poll::Ready(true);
                }
                Acquired::Waiting => {
                    if let Some(pump) = &mut self.upload {
                        pump.gather(cx);
                    }
                    return Poll::Pending;
                }
                Acquired::Unavailable => {
                    self.unreachable(position);
                }
            }
        }
    }

    fn choose(&self) -> Option<(usize, InFlight)> {
        let worker = &self.client.worker;
        worker.choose(&self.view, Protocol::Http2, &self.tried)
    }

    /// A backend could not be reached, hence has not seen the request: others are tried while there is time.
    fn unreachable(&mut self, position: usize) {
        self.tried.push(position);
        self.attempt = None;
        let limits = &self.client.worker.limits;
        self.search_ends
            .get_or_insert_with(|| Instant::now() + limits.search_time());
    }

    /// True when there is no time left to try others.
    fn searched_enough(&self) -> bool {
        self.search_ends.is_some_and(|end| Instant::now() >= end)
    }
}

/// A copy of the request's head. Its extensions are `h2`'s own, of the client's connection.
fn copy(head: &Request<()>) -> Request<()> {
    let mut request = Request::new(());
    *request.method_mut() = head.method().clone();
    *request.uri_mut() = head.uri().clone();
    *request.version_mut() = head.version();
    *request.headers_mut() = head.headers().clone();
    request
}
