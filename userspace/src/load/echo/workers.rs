//! A backend of finite capacity: so many workers, and a line before them, first come, first served.
//!
//! With one worker, Poisson arrivals and exponential service times this is the M/M/1 queue of the textbooks, with `c`
//! workers M/M/c: what a hot backend does to the latency of its requests is then known beforehand.

use std::cell::{Cell, RefCell};

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::Options;
use crate::load::distribution::ServiceTime;
use crate::load::random::{Generator, Purpose, generator};
use crate::load::timer::Timer;

/// The workers of a backend.
pub(super) struct Workers {
    /// Free ones; `None`: there is no end of them. Gives places in the order in which they were asked for.
    free: Option<Semaphore>,
    service_time: ServiceTime,
    random: RefCell<Generator>,
    timer: Timer,
    /// Requests in line.
    waiting: Cell<usize>,
    queue: usize,
    pub(super) turned_away: Cell<u64>,
    pub(super) longest_queue: Cell<u64>,
}

/// A request that waits in line, until this is dropped.
struct InLine<'a>(&'a Workers);

impl Workers {
    pub(super) fn new(options: &Options, timer: Timer) -> Self {
        let permits = |capacity: usize| Semaphore::new(capacity.min(Semaphore::MAX_PERMITS));
        Self {
            free: options.capacity.map(permits),
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
        let worker = match &self.free {
            None => None,
            Some(free) => match free.try_acquire() {
                Ok(worker) => Some(worker),
                Err(_) => {
                    let Some(_in_line) = self.stand_in_line() else {
                        return false;
                    };
                    // Nobody closes the semaphore.
                    free.acquire().await.ok()
                }
            },
        };
        let time = self.service_time.draw(&mut self.random.borrow_mut());
        if !time.is_zero() {
            self.timer.until(Instant::now() + time).await;
        }
        drop(worker);
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

impl Drop for InLine<'_> {
    fn drop(&mut self) {
        self.0.waiting.set(self.0.waiting.get() - 1);
    }
}
