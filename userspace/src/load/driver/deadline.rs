//! Giving up on requests that take too long, at the price of one timer for many requests.
//!
//! A timer for each request costs an entry in the runtime's timer wheel and its removal, for nothing as long as answers
//! come. Here a timer stays set for the deadline of some earlier request; when it fires, it is set to that of the present
//! one, unless that has passed as well. Requests one after the other of the same patience never have a deadline that is
//! earlier than the timer's; of an open loop neither, because intended starts never go back.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// The deadline of requests that are done one after the other.
pub(super) struct Deadline {
    patience: Duration,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            patience,
            timer: None,
        }
    }

    /// The outcome of `request`, which stays where it is, or `None` where it did not come within the patience after `start`.
    pub(super) async fn keep<F: Future>(
        &mut self,
        start: Instant,
        mut request: Pin<&mut F>,
    ) -> Option<F::Output> {
        let deadline = start + self.patience;
        poll_fn(|cx| {
            if let Poll::Ready(output) = request.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            let timer = self
                .timer
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline)));
            while timer.as_mut().poll(cx).is_ready() {
                if timer.deadline() >= deadline {
                    self.timer = None;
                    return Poll::Ready(None);
                }
                timer.as_mut().reset(deadline);
            }
            Poll::Pending
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_request_has_its_own_deadline_whatever_the_timer_was_set_for() {
        let start = Instant::now();
        let mut deadline = Deadline::new(Duration::from_secs(1));
        let sleep = |millis| tokio::time::sleep(Duration::from_millis(millis));
        assert_eq!(deadline.keep(start, pin!(sleep(900))).await, Some(()));
        // Started at 0.9 s, so in time until 1.9 s, though the timer was set for 1 s.
        let second = Instant::now();
        assert_eq!(deadline.keep(second, pin!(sleep(950))).await, Some(()));
        let third = Instant::now();
        assert_eq!(deadline.keep(third, pin!(sleep(1500))).await, None);
        assert_eq!(third.elapsed(), Duration::from_secs(1));
        let fourth = Instant::now();
        assert_eq!(deadline.keep(fourth, pin!(sleep(1500))).await, None);
        assert_eq!(fourth.elapsed(), Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn time_that_passed_before_a_request_was_sent_counts() {
        let start = Instant::now();
        tokio::time::advance(Duration::from_secs(5)).await;
        let mut deadline = Deadline::new(Duration::from_secs(1));
        let never = std::future::pending::<()>();
        assert_eq!(deadline.keep(start, pin!(never)).await, None);
        assert_eq!(start.elapsed(), Duration::from_secs(5));
    }
}
