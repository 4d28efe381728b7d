//! Who does the next request, and when was it meant to start.
//!
//! Closed loop: a client's streams take the next request as soon as they are free, up to the client's quota once the
//! warm-up is over. Open loop: [`pace`] hands out requests at their intended times whether or not anybody is free; a
//! late start counts as latency, so that a stalled server cannot slow down the clock it is measured with (coordinated
//! omission). A request whose time is over before anybody was free for it has failed and is not sent: a server that stalls
//! would only be flooded with requests that are given up at once. (One that has some time left is sent.)

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::plan::{Budget, Plan};
use super::record::{Failed, Failure, Recorder};
use super::share::{Draws, Turns};
use crate::load::random::{Purpose, generator};
use crate::load::timer::Timer;

/// Requests of one client that are due and not sent yet; further ones have failed.
const MOST_DUE: usize = 1 << 16;
/// Requests handed out, or given up, before others get to run.
const AT_ONCE: u32 = 64;

/// The requests one client still has to do.
pub(super) struct Work {
    /// Requests left in a closed loop; `None`: no end but [`Work::end`], or an open loop.
    left: Cell<Option<u64>>,
    /// The warm-up lasts until then, and takes nothing off the quota.
    measured_from: Instant,
    /// Requests due in an open loop; `None`: closed loop.
    due: Option<RefCell<VecDeque<Start>>>,
    over: Cell<bool>,
    changed: Notify,
}

/// When a request starts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start {
    /// What latency counts from.
    pub(super) intended: Instant,
    /// By how much it was given out later (open loop).
    pub(super) late: Option<Duration>,
}

/// Whose turn it is.
enum Order {
    Turns(Turns),
    Draws(Box<Draws>),
}

// === impl Work ===

impl Work {
    /// One per client, as the plan says.
    pub(super) fn share_out(plan: &Plan, started: Instant) -> impl Iterator<Item = Rc<Work>> {
        let open = plan.schedule.is_some();
        let quotas: Vec<Option<u64>> = match plan.budget {
            Budget::Requests(total) if !open => plan.quotas(total).into_iter().map(Some).collect(),
            _ => vec![None; plan.weights.len()],
        };
        let measured_from = started + plan.warm_up;
        quotas.into_iter().map(move |left| {
            Rc::new(Work {
                left: Cell::new(left),
                measured_from,
                due: open.then(RefCell::default),
                over: Cell::new(false),
                changed: Notify::new(),
            })
        })
    }

    /// Waits for a request to do, one that has time left of its `patience`; `None` when there will be no more.
    pub(super) async fn next(&self, patience: Duration, recorder: &Recorder) -> Option<Start> {
        let mut overdue = 0_u32;
        loop {
            let start = self.next_due().await?;
            // In a closed loop it starts now.
            if start.late.is_none() || start.intended.elapsed() < patience {
                return Some(start);
            }
            let cause = format_args!("not sent within {patience:?}, no stream was free");
            recorder.failed(None, start.intended, Failed::new(Failure::Timeout, cause));
            overdue = overdue.wrapping_add(1);
            if overdue.is_multiple_of(AT_ONCE) {
                tokio::task::yield_now().await;
            }
        }
    }

    async fn next_due(&self) -> Option<Start> {
        let Some(due) = &self.due else {
            return self.next_of_quota();
        };
        loop {
            let changed = self.changed.notified();
            if let Some(start) = due.borrow_mut().pop_front() {
                return Some(start);
            }
            if self.over.get() {
                // The next waiter must hear of the end as well.
                self.changed.notify_one();
                return None;
            }
            changed.await;
        }
    }

    fn next_of_quota(&self) -> Option<Start> {
        if self.over.get() {
            return None;
        }
        let now = Instant::now();
        match self.left.get() {
            _ if now < self.measured_from => {}
            Some(0) => return None,
            Some(left) => self.left.set(Some(left - 1)),
            None => {}
        }
        Some(Start {
            intended: now,
            late: None,
        })
    }

    /// No more requests than those already due.
    pub(super) fn end(&self) {
        self.over.set(true);
        self.changed.notify_one();
    }

    /// Adds a request; false when too many wait already.
    fn push(&self, intended: Instant) -> bool {
        let Some(due) = &self.due else { return true };
        let mut due = due.borrow_mut();
        if due.len() >= MOST_DUE {
            return false;
        }
        due.push_back(Start {
            intended,
            late: Some(intended.elapsed()),
        });
        self.changed.notify_one();
        true
    }
}

/// Hands out the requests of an open loop at their times, by weight, until the budget is used up or the schedule is
/// over. Every thread of a run goes through the whole schedule and keeps what is for its own clients: `works` holds
/// `None` for those of other threads.
pub(super) async fn pace(
    plan: &Plan,
    works: &[Option<Rc<Work>>],
    started: Instant,
    timer: &Timer,
    recorder: &Recorder,
) {
    let Some(schedule) = &plan.schedule else {
        return;
    };
    let mut order = Order::of(plan);
    let mut measured = 0;
    let mut handed_out = 0_u32;
    for offset in schedule.starts(plan.warm_up, plan.seed) {
        match plan.budget {
            _ if offset < plan.warm_up => {}
            Budget::Requests(total) if measured >= total => break,
            Budget::Duration(duration) if offset >= plan.warm_up + duration => break,
            _ => measured += 1,
        }
        let Some(Some(work)) = works.get(order.next()) else {
            continue;
        };
        let Some(intended) = started.checked_add(offset) else {
            break;
        };
        if Instant::now() < intended {
            // What the request before was handed out for is done first.
            tokio::task::yield_now().await;
            timer.until(intended).await;
        }
        if !work.push(intended) {
            let cause = format_args!("{MOST_DUE} requests of the client are due and not sent yet");
            recorder.failed(None, intended, Failed::new(Failure::NotSent, cause));
        }
        handed_out = handed_out.wrapping_add(1);
        if handed_out.is_multiple_of(AT_ONCE) {
            tokio::task::yield_now().await;
        }
    }
    works.iter().flatten().for_each(|work| work.end());
}

// === impl Order ===

impl Order {
    /// Independent arrivals stay independent for each client; all others are dealt as evenly as the weights allow.
    fn of(plan: &Plan) -> Self {
        if plan
            .schedule
            .as_ref()
            .is_some_and(super::Schedule::is_random)
        {
            let random = generator(plan.seed, Purpose::Turns, 0);
            Self::Draws(Box::new(Draws::new(&plan.weights, random)))
        } else {
            Self::Turns(Turns::new(&plan.weights))
        }
    }

    fn next(&mut self) -> usize {
        match self {
            Self::Turns(turns) => turns.next(),
            Self::Draws(draws) => draws.next(),
        }
    }
}
