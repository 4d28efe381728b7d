//! Many futures in one task: the streams of a downstream connection.
//!
//! A task for each stream costs an allocation, a trip through the scheduler and, worst, a wakeup between the stream and the
//! connection that must send what it produced. Here the connection's task polls its streams itself, just before it polls the
//! connection. Places are reused: a stream costs no allocation once as many were open before.
//!
//! Each place has a waker for life. A wakeup meant for an earlier stream of the place makes the later one look once in vain,
//! which is harmless.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};

/// A set of futures, polled when woken.
pub struct Streams<F> {
    places: Vec<Place<F>>,
    free: Vec<usize>,
    shared: Arc<Mutex<Shared>>,
    /// Places being polled now; kept for its memory.
    turn: Vec<usize>,
}

struct Place<F> {
    future: Pin<Box<Option<F>>>,
    waker: Waker,
}

#[derive(Default)]
struct Shared {
    /// Places woken and not yet polled, each once.
    ready: Vec<usize>,
    queued: Vec<bool>,
    /// The task that polls the set; `None` while it is doing so.
    task: Option<Waker>,
}

struct PlaceWaker {
    place: usize,
    shared: Arc<Mutex<Shared>>,
}

// === impl Streams ===

impl<F: Future<Output = ()>> Streams<F> {
    /// An empty set.
    pub fn new() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
            shared: Arc::default(),
            turn: Vec::new(),
        }
    }

    /// Adds a future and polls it once.
    pub fn push(&mut self, future: F) {
        let place = self.free.pop().unwrap_or_else(|| self.grow());
        self.places[place].future.set(Some(future));
        self.poll_place(place);
    }

    /// The task is being polled: wakeups only need to be noted until [`Streams::leave`].
    pub fn enter(&self) {
        lock(&self.shared).task = None;
    }

    /// The task goes pending. False when a place was woken meanwhile: then it must look again.
    pub fn leave(&self, task: &Waker) -> bool {
        let mut shared = lock(&self.shared);
        if shared.ready.is_empty() {
            shared.task = Some(task.clone());
            return true;
        }
        false
    }

    /// Polls each future woken before the call.
    pub fn poll_ready(&mut self) {
        let mut turn = std::mem::take(&mut self.turn);
        {
            let mut shared = lock(&self.shared);
            std::mem::swap(&mut turn, &mut shared.ready);
            for place in &turn {
                shared.queued[*place] = false;
            }
        }
        for place in turn.drain(..) {
            self.poll_place(place);
        }
        self.turn = turn;
    }

    /// Shows each future to `due`, and has those polled at the next turn for which it is true.
    pub fn wake_those(&mut self, mut due: impl FnMut(&mut F) -> bool)
    where
        F: Unpin,
    {
        for place in &mut self.places {
            if let Some(future) = place.future.as_mut().get_mut()
                && due(future)
            {
                place.waker.wake_by_ref();
            }
        }
    }

    fn poll_place(&mut self, index: usize) {
        let place = &mut self.places[index];
        let Some(future) = place.future.as_mut().as_pin_mut() else {
            return;
        };
        let mut cx = Context::from_waker(&place.waker);
        if future.poll(&mut cx).is_ready() {
            place.future.set(None);
            self.free.push(index);
        }
    }

    fn grow(&mut self) -> usize {
        let index = self.places.len();
        lock(&self.shared).queued.push(false);
        self.places.push(Place {
            future: Box::pin(None),
            waker: Arc::new(PlaceWaker {
                place: index,
                shared: self.shared.clone(),
            })
            .into(),
        });
        index
    }
}

fn lock(shared: &Mutex<Shared>) -> std::sync::MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

// === impl PlaceWaker ===

impl Wake for PlaceWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let task = {
            let mut shared = lock(&self.shared);
            if std::mem::replace(&mut shared.queued[self.place], true) {
                return;
            }
            shared.ready.push(self.place);
            shared.task.take()
        };
        if let Some(task) = task {
            task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::future::poll_fn;
    use std::rc::Rc;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::task::Poll;

    use super::*;

    #[derive(Default)]
    struct CountingWaker(AtomicUsize);

    impl Wake for CountingWaker {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    /// Futures in the set.
    fn len<F>(streams: &Streams<F>) -> usize {
        streams.places.len() - streams.free.len()
    }

    type Log = Rc<RefCell<Vec<&'static str>>>;

    fn twice(
        name: &'static str,
        log: &Log,
        saved: &Rc<RefCell<Option<Waker>>>,
    ) -> impl Future<Output = ()> + use<> {
        let (log, saved) = (log.clone(), saved.clone());
        let mut polls = 0;
        poll_fn(move |cx| {
            log.borrow_mut().push(name);
            *saved.borrow_mut() = Some(cx.waker().clone());
            polls += 1;
            if polls == 2 {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
    }

    #[test]
    fn only_woken_futures_are_polled_and_the_task_is_woken_once() {
        let log = Log::default();
        let (a, b) = (Rc::default(), Rc::default());
        let mut streams = Streams::new();
        streams.push(twice("a", &log, &a));
        streams.push(twice("b", &log, &b));
        let task = Arc::new(CountingWaker::default());
        assert!(streams.leave(&task.clone().into()));
        let waker = b.borrow().clone().expect("polled once");
        waker.wake_by_ref();
        waker.wake_by_ref();
        assert_eq!(task.0.load(SeqCst), 1);
        streams.enter();
        streams.poll_ready();
        assert_eq!(*log.borrow(), ["a", "b", "b"]);
        assert_eq!(len(&streams), 1);
    }

    #[test]
    fn a_wakeup_while_polling_is_seen_before_going_pending() {
        let log = Log::default();
        let saved = Rc::default();
        let mut streams = Streams::new();
        streams.push(twice("a", &log, &saved));
        saved.borrow().clone().expect("polled once").wake();
        let task = Arc::new(CountingWaker::default());
        assert!(!streams.leave(&task.clone().into()));
        assert_eq!(task.0.load(SeqCst), 0);
    }

    #[test]
    fn places_are_reused_and_late_wakeups_are_harmless() {
        let log = Log::default();
        let (a, b) = (Rc::default(), Rc::default());
        let mut streams = Streams::new();
        streams.push(twice("a", &log, &a));
        let stale = a.borrow().clone().expect("polled once");
        stale.wake_by_ref();
        streams.poll_ready();
        assert_eq!(len(&streams), 0);
        streams.push(twice("b", &log, &b));
        assert_eq!(streams.places.len(), 1);
        stale.wake();
        streams.poll_ready();
        assert_eq!(*log.borrow(), ["a", "a", "b", "b"]);
    }
}
