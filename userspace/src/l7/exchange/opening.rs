//! How an exchange begins: a backend is chosen, and the request sent to it on a connection that has room.
//!
//! Until it is sent it belongs to no backend. So when the table is replaced while it waits for a connection, and its backend is
//! removed or gets no new streams any more, it is placed again, by the new table.

use std::rc::Rc;
use std::task::{Context, Poll};

use http::Request;
use tokio::time::Instant;

use super::{Attempt, Exchange, Opened};
use crate::l7::detect::Protocol;
use crate::l7::respond::Failure;
use crate::l7::stats::InFlight;
use crate::l7::upstream::{Acquired, Upstream};

/// How often a stream is placed again. Each takes a new table within the time of one dial, so nobody needs as many.
const PLACED_AGAIN: u32 = 8;

impl Exchange {
    /// Sends the request to a backend; false when the client was answered because there is none.
    pub(super) fn open(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        loop {
            if !self.client.worker.is_current(&self.view) && !self.follow_table() {
                return Poll::Ready(false);
            }
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
                    if self.send(position, &upstream) {
                        return Poll::Ready(true);
                    }
                    // Going away, and nothing was sent: the pool looks for another connection.
                    self.view.pools[position].remove(&upstream);
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

    /// Sends the request on a connection; false when that takes no more streams.
    fn send(&mut self, position: usize, upstream: &Rc<Upstream>) -> bool {
        let Ok((response, mut send, ticket)) =
            upstream.open(copy(&self.head), self.without_content)
        else {
            return false;
        };
        self.view.pools[position].counters().opened.add(1);
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
        true
    }

    /// Goes on by the table of now: with the same backend where that still takes new streams, else with none. False when the
    /// client was answered, because the service is gone or there were too many tables.
    fn follow_table(&mut self) -> bool {
        let Some(view) = self.client.view() else {
            self.answer(Failure::NoService);
            return false;
        };
        let old = std::mem::replace(&mut self.view, view);
        let now = |position: usize| self.view.position_of(&old.pools[position]);
        self.tried = self.tried.iter().copied().filter_map(now).collect();
        let Some(attempt) = &mut self.attempt else {
            return true;
        };
        match now(attempt.position).filter(|position| self.view.takes_streams(*position)) {
            Some(position) => attempt.position = position,
            None => {
                self.attempt = None;
                self.placed_again += 1;
                if self.placed_again > PLACED_AGAIN {
                    self.give_up();
                    return false;
                }
                self.view.counters().placed_again.add(1);
            }
        }
        true
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
