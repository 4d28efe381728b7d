//! A backend of finite capacity: so many workers, and a line before them, first come, first served.
//!
//! With one worker, Poisson arrivals and exponential service times this is the M/M/1 queue of the textbooks, with `c`
//! workers M/M/c: what a hot backend does to the latency of its requests is then known beforehand.
//!
//! A worker takes up the next request in line at the moment at which it was to be done with the one before, not when the
//! timer for it expired: an answer is late by that, what comes after it is not, and a backend that always has somebody in line
//! serves as many requests a second as its workers can.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::Options;
use crate::load::distribution::ServiceTime;
use crate::load::random::{Generator, Purpose, generator};
use crate::load::timer::Timer;

/// The workers of a backend.
pub(super) struct Workers {
    /// Free ones; `None`: there is no end of them. Gives places in the order in which they were asked for.
    free: Option<Semaphore>,
    /// Since when those are free that have worked before; at most as many as there are permits.
    since: RefCell<VecDeque<Instant>>,
    service_time: ServiceTime,
    random: RefCell<Generator>,
    timer: Timer,
    /// Requests in line.
    waiting: Cell<usize>,
    queue: usize,
    pub(super) turned_away: Cell<u64>,
    pub(super) longest_queue: Cell<u64>,
}

/// One that has a request, until this is dropped.
struct AtWork<'a> {
    workers: &'a Workers,
    /// When it is to be done.
    until: Instant,
    _permit: SemaphorePermit<'a>,
}

/// A request that waits in line, until this is dropped.
struct InLine<'a>(&'a Workers);

impl Workers {
    pub(super) fn new(options: &Options, timer: Timer) -> Self {
        let permits = |capacity: usize| Semaphore::new(capacity.min(Semaphore::MAX_PERMITS));
        Self {
            free: options.capacity.map(permits),
            since: RefCell::default(),
            service_time: options.service_time,
            random: RefCell::new(generator(options.seed, Purpose::Service, 0)),
            timer,
            waiting: Cell::new(0),
            queue: options.queue,
            turned_away: Cell::new(0),
            longest_queue: Cell::new(0),
        }
    }

    /// Waits for a worker, and for it to be done; false when the line is too long.
    pub(super) async fn work(&self) -> bool {
        let arrived = Instant::now();
        let permit = match &self.free {
            None => None,
            Some(free) => match free.try_acquire() {
                Ok(permit) => Some(permit),
                Err(_) => {
                    let Some(_in_line) = self.stand_in_line() else {
                        return false;
                    };
                    // Nobody closes the semaphore.
                    free.acquire().await.ok()
                }
            },
        };
        let begun = match &permit {
            // First free, first to work.
            Some(_) => self.since.borrow_mut().pop_front(),
            None => None,
        };
        let time = self.service_time.draw(&mut self.random.borrow_mut());
        let until = begun.unwrap_or(arrived).max(arrived) + time;
        let _at_work = permit.map(|permit| AtWork {
            workers: self,
            until,
            _permit: permit,
        });
        if !time.is_zero() {
            self.timer.until(until).await;
        }
        true
    }

    /// Whether a request has to wait for anything.
    pub(super) fn take_time(&self) -> bool {
        self.free.is_some() || !self.service_time.is_nothing()
    }

    fn stand_in_line(&self) -> Option<InLine<'_>> {
        if self.waiting.get() >= self.queue {
            self.turned_away.set(self.turned_away.get() + 1);
            return None;
        }
        let waiting = self.waiting.get() + 1;
        self.waiting.set(waiting);
        self.longest_queue
            .set(self.longest_queue.get().max(waiting as u64));
        Some(InLine(self))
    }
}

impl Drop for AtWork<'_> {
    /// The permit comes after this, and finds since when the worker is free.
    fn drop(&mut self) {
        // A request that was given up is left before it is done.
        let since = self.until.min(Instant::now());
        self.workers.since.borrow_mut().push_back(since);
    }
}

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::time::Duration;

    use http::HeaderValue;
    use tokio::task::{JoinSet, LocalSet};

    use super::*;

    /// When each of `requests`, all made at once, was done, in milliseconds; with a stopped clock.
    fn done(
        capacity: Option<usize>,
        queue: usize,
        requests: usize,
        service_time: Duration,
    ) -> (Vec<Option<u128>>, u64) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        LocalSet::new().block_on(&runtime, async {
            let options = Options {
                capacity,
                queue,
                service_time: ServiceTime::Fixed(service_time),
                ..Options::named(HeaderValue::from_static("b"))
            };
            let workers = Rc::new(Workers::new(&options, Timer::of_runtime()));
            let start = Instant::now();
            let mut tasks = JoinSet::new();
            for _ in 0..requests {
                let workers = Rc::clone(&workers);
                tasks.spawn_local(async move {
                    workers.work().await.then(|| start.elapsed().as_millis())
                });
            }
            let mut times = tasks.join_all().await;
            times.sort_unstable();
            assert_eq!(workers.waiting.get(), 0);
            (times, workers.turned_away.get())
        })
    }

    #[test]
    fn a_backend_serves_no_more_at_once_than_its_capacity() {
        let times = |times: &[u128]| times.iter().copied().map(Some).collect::<Vec<_>>();
        let ten = Duration::from_millis(10);
        assert_eq!(done(None, 0, 4, ten).0, times(&[10, 10, 10, 10]));
        assert_eq!(done(Some(2), 9, 5, ten).0, times(&[10, 10, 20, 20, 30]));
    }

    #[test]
    fn a_timer_that_is_late_keeps_nobody_from_working() {
        // The runtime's timers round up to a millisecond.
        let (times, _) = done(Some(1), 9, 4, Duration::from_micros(2_500));
        assert_eq!(times, [3, 5, 8, 10].map(Some));
    }

    #[test]
    fn who_finds_the_line_full_is_turned_away() {
        assert_eq!(
            done(Some(1), 1, 4, Duration::from_millis(10)),
            (vec![None, None, Some(10), Some(20)], 2)
        );
    }
}
