//! Waiting until a moment, to some ten microseconds.
//!
//! The runtime's own timers tick in milliseconds and round up: an open loop of 5,000 requests per second would start
//! all of them in bursts of five, and a backend with a delay of 1 ms would answer after 2. Here the kernel's
//! high-resolution timer (timerfd_create(2)) sits in the runtime's epoll set like a socket: it expires to the
//! nanosecond, needs no thread of its own and no second wakeup, and costs nothing while nobody waits.
//!
//! What is left is the interrupt and the wakeup: on a virtual machine a timer set for 1 ms was 70 us late, one set for
//! 20 ms 220 us, and 80 us where the core never slept. Where a core can be spared, [`spin`] does away with both: it looks
//! at the clock itself, and was 1 us late. A [`Timer::punctual`] does so for the last part of a wait only: it is for what
//! starts requests at their times and for the delays of a backend, and costs a tenth of a core at most.
//!
//! Rejected: a sleeping thread that sends the moments over a channel (one more wakeup and the 50 us of timer slack that
//! nanosleep(2) has, see PR_SET_TIMERSLACK in prctl(2)); spinning in place through the last part before a moment (with one
//! thread, everything that is received meanwhile is late by the spin: between two looks at the clock the runtime gets its
//! turn); being punctual for the service times of a backend of finite capacity (ten of them on two cores would spend one on it,
//! and what comes of their queues does not hang on a tenth of a millisecond).

mod punctual;

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::warm::Warmth;
use punctual::Punctual;

/// How often a thread that spins is kept warm: of 0.1 to 2 ms all were as good, 4 ms were not ([`super::warm`]).
const WARMED: Duration = Duration::from_millis(2);
/// And how long before a moment it is not any more: 1,000 exchanges in a row took 47 ms.
const SOON: Duration = Duration::from_micros(100);

/// A timer; clones are the same timer. One serves any number of waiting tasks.
#[derive(Clone)]
pub struct Timer(Source);

#[derive(Clone)]
enum Source {
    Kernel(Rc<Kernel>),
    /// The runtime's own: what tests use that stop the clock.
    #[cfg(test)]
    Runtime,
}

struct Kernel {
    fd: AsyncFd<OwnedFd>,
    waiting: RefCell<Waiting>,
    punctual: Option<RefCell<Punctual>>,
}

/// Who waits, the earliest moment on top; as many as there are waiting tasks, and those that gave up since.
#[derive(Default)]
struct Waiting {
    tasks: BinaryHeap<Reverse<Waiter>>,
    /// Tells equal moments apart: first come, first woken.
    next: u64,
}

struct Waiter {
    until: Instant,
    number: u64,
    wake: oneshot::Sender<()>,
}

// === impl Timer ===

impl Timer {
    /// A timer of the kernel; within a [`tokio::task::LocalSet`], in which its task runs.
    pub fn new() -> io::Result<Self> {
        Self::of_kernel(None)
    }

    /// One that is awake when a moment comes ([`punctual`]), and warm.
    pub fn punctual(warmth: Rc<Warmth>) -> io::Result<Self> {
        Self::of_kernel(Some(Punctual::new(Instant::now(), warmth)))
    }

    fn of_kernel(punctual: Option<Punctual>) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        #[expect(
            deprecated,
            reason = "unsound for types that close their descriptor or show another one later; an OwnedFd does neither, \
                      and the successor is an unsafe function"
        )]
        let fd = AsyncFd::new(fd)?;
        let kernel = Rc::new(Kernel {
            fd,
            waiting: RefCell::default(),
            punctual: punctual.map(RefCell::new),
        });
        tokio::task::spawn_local(Rc::clone(&kernel).run());
        Ok(Self(Source::Kernel(kernel)))
    }

    /// The runtime's timer, which a stopped clock stops.
    #[cfg(test)]
    pub(crate) fn of_runtime() -> Self {
        Self(Source::Runtime)
    }

    /// Waits until `moment`; not at all if it has passed.
    pub async fn until(&self, moment: Instant) {
        match &self.0 {
            Source::Kernel(kernel) => kernel.until(moment).await,
            #[cfg(test)]
            Source::Runtime => tokio::time::sleep_until(moment).await,
        }
    }

    /// Wakes those whose moment has come; gives the next one.
    fn wake_due(&self, now: Instant) -> Option<Instant> {
        match &self.0 {
            Source::Kernel(kernel) => kernel.waiting.borrow_mut().wake_due(now),
            #[cfg(test)]
            Source::Runtime => None,
        }
    }

    fn keep_warm(&self) {
        match &self.0 {
            Source::Kernel(kernel) => {
                if let Some(punctual) = &kernel.punctual {
                    punctual.borrow().warm();
                }
            }
            #[cfg(test)]
            Source::Runtime => {}
        }
    }
}

/// Keeps the runtime from sleeping, for ever: it looks at the clock and for events again and again, and takes a core for it.
/// What it finds it handles at once, be it a moment that has come on one of `timers` or something received. In between it
/// keeps what sends warm.
pub async fn spin(timers: &[&Timer]) {
    let mut warmed = Instant::now();
    loop {
        let now = Instant::now();
        let next = timers.iter().filter_map(|timer| timer.wake_due(now)).min();
        if now >= warmed + WARMED && next.is_none_or(|next| next >= now + SOON) {
            timers.iter().for_each(|timer| timer.keep_warm());
            warmed = now;
        }
        tokio::task::yield_now().await;
    }
}

// === impl Kernel ===

impl Kernel {
    async fn until(&self, moment: Instant) {
        let now = Instant::now();
        if moment <= now {
            return;
        }
        let (wake, woken) = oneshot::channel();
        if self.waiting.borrow_mut().add(moment, wake) && !self.set(moment, now) {
            // Without the kernel's timer the runtime's will do.
            return tokio::time::sleep_until(moment).await;
        }
        // Fails when the runtime ends, and this task with it.
        let _ = woken.await;
    }

    /// Makes the timer expire for `moment`.
    fn set(&self, moment: Instant, now: Instant) -> bool {
        let alarm = match &self.punctual {
            Some(punctual) => punctual.borrow_mut().alarm(moment, now),
            None => moment,
        };
        let left = alarm.saturating_duration_since(now);
        let it_value = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            // 0 would switch it off.
            tv_nsec: i64::from(left.subsec_nanos()).max(1),
        };
        let it_interval = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let times = Itimerspec {
            it_interval,
            it_value,
        };
        timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &times).is_ok()
    }

    /// Wakes those whose moment has come, each time the timer expires.
    async fn run(self: Rc<Self>) {
        while let Ok(mut ready) = self.fd.readable().await {
            let mut expirations = [0; 8];
            let _ = ready.try_io(|fd| Ok(rustix::io::read(fd, &mut expirations)?));
            let next = match &self.punctual {
                Some(punctual) => self.stay_awake(punctual).await,
                None => self.waiting.borrow_mut().wake_due(Instant::now()),
            };
            if let Some(next) = next {
                self.set(next, Instant::now());
            }
        }
    }

    /// Looks at the clock until the moment has come for which the timer expired; gives the next one.
    async fn stay_awake(&self, punctual: &RefCell<Punctual>) -> Option<Instant> {
        let woken = Instant::now();
        let mut next = self.waiting.borrow_mut().wake_due(woken);
        punctual.borrow_mut().woken(woken);
        // What comes up later has an alarm of its own.
        let last = next.filter(|next| *next <= woken + punctual::MOST);
        while last.is_some() && next.is_some() && next <= last {
            tokio::task::yield_now().await;
            let now = Instant::now();
            punctual.borrow_mut().learn(now);
            next = self.waiting.borrow_mut().wake_due(now);
        }
        punctual.borrow_mut().awake(Instant::now());
        next
    }
}

// === impl Waiting ===

impl Waiting {
    /// Adds a waiter; true when it is now the first.
    fn add(&mut self, until: Instant, wake: oneshot::Sender<()>) -> bool {
        let first = self
            .tasks
            .peek()
            .is_none_or(|Reverse(first)| until < first.until);
        let number = self.next;
        self.next += 1;
        self.tasks.push(Reverse(Waiter {
            until,
            number,
            wake,
        }));
        first
    }

    /// Wakes everybody who waits for `now` or earlier; gives the next moment that somebody waits for.
    fn wake_due(&mut self, now: Instant) -> Option<Instant> {
        while let Some(Reverse(first)) = self.tasks.peek() {
            if first.until > now && !first.wake.is_closed() {
                return Some(first.until);
            }
            if let Some(Reverse(due)) = self.tasks.pop() {
                // Fails when it gave up.
                let _ = due.wake.send(());
            }
        }
        None
    }
}

// === impl Waiter ===

impl Ord for Waiter {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.until, self.number).cmp(&(other.until, other.number))
    }
}

impl PartialOrd for Waiter {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Waiter {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Waiter {}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::task::LocalSet;

    fn local<T>(test: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        LocalSet::new().block_on(&runtime, test)
    }

    #[test]
    fn nobody_is_woken_early_and_earlier_moments_come_first() {
        in_order(Timer::new);
    }

    #[test]
    fn nobody_is_woken_early_by_a_punctual_timer_either() {
        in_order(|| Timer::punctual(Warmth::new()));
    }

    fn in_order(timer: fn() -> io::Result<Timer>) {
        local(async {
            let timer = timer().unwrap();
            let start = Instant::now();
            let woken = Rc::new(RefCell::new(Vec::new()));
            let mut tasks = tokio::task::JoinSet::new();
            for micros in [3000, 1000, 2000, 1000, 0] {
                let (timer, woken) = (timer.clone(), Rc::clone(&woken));
                tasks.spawn_local(async move {
                    let until = start + Duration::from_micros(micros);
                    timer.until(until).await;
                    assert!(Instant::now() >= until);
                    woken.borrow_mut().push(micros);
                });
            }
            while tasks.join_next().await.is_some() {}
            assert_eq!(*woken.borrow(), [0, 1000, 1000, 2000, 3000]);
        });
    }

    #[test]
    fn who_waits_is_woken_while_somebody_spins() {
        local(async {
            let timer = Timer::new().unwrap();
            let until = Instant::now() + Duration::from_millis(2);
            let timers = [&timer];
            tokio::select! {
                () = spin(&timers) => {}
                () = timer.until(until) => {}
            }
            assert!(Instant::now() >= until);
        });
    }

    #[test]
    fn who_gave_up_is_not_waited_for() {
        let now = Instant::now();
        let after = |millis| now + Duration::from_millis(millis);
        let mut waiting = Waiting::default();
        let mut add = |millis| {
            let (wake, woken) = oneshot::channel();
            (waiting.add(after(millis), wake), woken)
        };
        let (first, mut early) = add(1);
        let (second, gone) = add(2);
        let (third, mut late) = add(3);
        assert!(first && !second && !third);
        drop(gone);
        assert_eq!(waiting.wake_due(after(1)), Some(after(3)));
        assert!(early.try_recv().is_ok() && late.try_recv().is_err());
        assert_eq!(waiting.wake_due(after(3)), None);
        assert!(late.try_recv().is_ok() && waiting.tasks.is_empty());
    }
}
