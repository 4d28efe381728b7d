//! Who does the next request, and when was it meant to start.
//!
//! Closed loop: a client's streams take the next request as soon as they are free, up to the client's quota.
//! Open loop: [`pace`] hands out requests at their intended times whether or not anybody is free; a late start counts
//! as latency, so that a stalled server cannot slow down the clock it is measured with (coordinated omission).

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc};

use super::plan::{Budget, Plan, Turns};

/// The requests one client still has to do.
pub(super) struct Work {
    /// Requests left in a closed loop; `None`: no end but [`Work::end`], or an open loop.
    left: Cell<Option<u64>>,
    /// Requests due in an open loop; `None`: closed loop.
    due: Option<RefCell<VecDeque<Instant>>>,
    over: Cell<bool>,
    changed: Notify,
}

impl Work {
    /// One per client, as the plan says.
    pub(super) fn share_out(plan: &Plan) -> Vec<Rc<Work>> {
        let quotas: Vec<Option<u64>> = match (plan.budget, plan.rate) {
            (Budget::Requests(total), None) => plan.quotas(total).into_iter().map(Some).collect(),
            _ => vec![None; plan.weights.len()],
        };
        let work = |left| {
            let due = plan.rate.map(|_| RefCell::new(VecDeque::new()));
            Rc::new(Work {
                left: Cell::new(left),
                due,
                over: Cell::new(false),
                changed: Notify::new(),
            })
        };
        quotas.into_iter().map(work).collect()
    }

    /// Waits for a request to do; gives the time it was meant to start, or `None` when there will be no more.
    pub(super) async fn next(&self) -> Option<Instant> {
        let Some(due) = &self.due else {
            return self.next_of_quota();
        };
        loop {
            let changed = self.changed.notified();
            if let Some(intended) = due.borrow_mut().pop_front() {
                return Some(intended);
            }
            if self.over.get() {
                // The next waiter must hear of the end as well.
                self.changed.notify_one();
                return None;
            }
            changed.await;
        }
    }

    fn next_of_quota(&self) -> Option<Instant> {
        if self.over.get() {
            return None;
        }
        match self.left.get() {
            Some(0) => return None,
            Some(left) => self.left.set(Some(left - 1)),
            None => {}
        }
        Some(Instant::now())
    }

    /// No more requests than those already due.
    pub(super) fn end(&self) {
        self.over.set(true);
        self.changed.notify_one();
    }

    fn push(&self, intended: Instant) {
        if let Some(due) = &self.due {
            due.borrow_mut().push_back(intended);
            self.changed.notify_one();
        }
    }
}

/// Hands out requests at `rate` per second, to the clients by weight, until the budget is used up.
pub(super) async fn pace(rate: f64, plan: &Plan, clients: &[Rc<Work>]) -> io::Result<()> {
    let mut turns = Turns::new(&plan.weights);
    let mut due = metronome(rate, plan.budget)?;
    while let Some(intended) = due.recv().await {
        clients[turns.next()].push(intended);
    }
    clients.iter().for_each(|work| work.end());
    Ok(())
}

/// Gives every intended start when it is due. On a thread of its own, because the runtime's timer rounds up to the
/// next millisecond, and that would show as latency; a sleeping thread is late by some 50 us.
fn metronome(rate: f64, budget: Budget) -> io::Result<mpsc::UnboundedReceiver<Instant>> {
    let (due, receiver) = mpsc::unbounded_channel();
    let start = Instant::now();
    let beat = move || {
        for sequence in 0u64.. {
            #[expect(clippy::cast_precision_loss, reason = "2^53 requests are not reached")]
            let offset =
                Duration::try_from_secs_f64(sequence as f64 / rate).unwrap_or(Duration::MAX);
            let over = match budget {
                Budget::Requests(total) => sequence >= total,
                Budget::Duration(duration) => offset >= duration,
            };
            let Some(intended) = start.checked_add(offset) else {
                return;
            };
            std::thread::sleep(intended.saturating_duration_since(Instant::now()));
            // Sending fails when the run was stopped early.
            if over || due.send(intended).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new()
        .name("metronome".into())
        .spawn(beat)?;
    Ok(receiver)
}
