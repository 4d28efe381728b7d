//! Several things waited for at once, so that one that takes its time holds up no other.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

/// What each of `futures` comes to, in their order. No more than `most` of them run at once: one begins as soon as one
/// before it is done.
pub(super) async fn join<F: Future>(
    futures: impl IntoIterator<Item = F>,
    most: usize,
) -> Vec<F::Output> {
    let mut running: Vec<Joined<F>> = futures
        .into_iter()
        .map(|future| Joined::Waits(Box::pin(future)))
        .collect();
    poll_fn(|context| {
        let mut pending = 0;
        for joined in &mut running {
            let Joined::Waits(future) = joined else {
                continue;
            };
            if pending == most.max(1) {
                break;
            }
            match future.as_mut().poll(context) {
                Poll::Ready(output) => *joined = Joined::Done(output),
                Poll::Pending => pending += 1,
            }
        }
        if pending == 0 {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    let done = running.into_iter().filter_map(|joined| match joined {
        Joined::Done(output) => Some(output),
        Joined::Waits(_) => None,
    });
    done.collect()
}

/// One of them.
enum Joined<F: Future> {
    Waits(Pin<Box<F>>),
    Done(F::Output),
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};
    use tokio::sync::Notify;

    #[tokio::test]
    async fn each_may_wait_for_one_that_comes_after_it() {
        let said = Notify::new();
        let order = RefCell::new(Vec::new());
        let one = |number| {
            let (said, order) = (&said, &order);
            async move {
                match number {
                    0 => said.notified().await,
                    _ => said.notify_one(),
                }
                order.borrow_mut().push(number);
                number
            }
        };
        assert_eq!(join([0, 1].map(one), 2).await, [0, 1], "as they were given");
        assert_eq!(*order.borrow(), [1, 0]);
    }

    #[tokio::test]
    async fn no_more_run_at_once_than_said() {
        for most in [1, 3, 10, 100] {
            let (running, highest) = (Cell::new(0), Cell::new(0));
            let one = |number: usize| {
                let (running, highest) = (&running, &highest);
                async move {
                    running.set(running.get() + 1);
                    highest.set(highest.get().max(running.get()));
                    for _ in 0..=number % 3 {
                        tokio::task::yield_now().await;
                    }
                    running.set(running.get() - 1);
                }
            };
            assert_eq!(join((0..10).map(one), most).await.len(), 10);
            assert_eq!(highest.get(), most.min(10));
        }
    }
}
