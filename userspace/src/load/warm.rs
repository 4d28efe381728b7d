//! Keeping warm what sends and answers.
//!
//! What a thread has not run for some milliseconds it runs slowly: its code and data, and those of the kernel's TCP, have
//! left the caches by then, whether the thread slept or looked at the clock all the while. Between two programs of a page of C
//! each, awake on a core of its own each, an exchange of 50 bytes over the loopback took 22 to 30 us when the last one was
//! 1 ms ago, 60 to 80 after 5 ms and 106 to 116 after 20 ms; with a message to oneself in between it took 17 to 28 after
//! any of them, be it each 0.1 ms or each 2, and a little more with each 4. That is nothing that the other end did, and in a
//! median of latencies it is an error of whoever measures.
//!
//! So a thread keeps an HTTP/2 connection to itself over the loopback, of which it is both ends, and before it has something
//! to do at a time, or every now and then while it spins, it sends a request through it and answers it ([`Warmth::ask`]).
//! Nothing of that is counted. Where there is no loopback (a network namespace in which it is down) things stay as cold as
//! they are.

use std::cell::Cell;
use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Notify;

use super::driver::Single;
use super::echo;

/// By then a connection over the loopback is made, unless another process was accepted in its place.
const PATIENCE: Duration = Duration::from_secs(1);

/// What asks a thread's connection to itself for an exchange, and sees whether it is over.
#[derive(Default)]
pub(super) struct Warmth {
    asked: Notify,
    /// An exchange was asked for and is not over.
    pending: Cell<bool>,
    /// There will be none any more.
    over: Cell<bool>,
}

// === impl Warmth ===

impl Warmth {
    /// That of a thread; within a [`tokio::task::LocalSet`], in which both ends run. It connects when it is first asked.
    pub(super) fn new() -> Rc<Self> {
        let warmth = Rc::new(Self::default());
        tokio::task::spawn_local(Rc::clone(&warmth).keep());
        warmth
    }

    /// Begins an exchange, unless one is going on.
    pub(super) fn ask(&self) {
        if !self.over.get() && !self.pending.replace(true) {
            self.asked.notify_one();
        }
    }

    /// Whether an exchange is going on.
    pub(super) fn is_pending(&self) -> bool {
        self.pending.get()
    }

    async fn keep(self: Rc<Self>) {
        self.asked.notified().await;
        if let Err(error) = self.exchange().await {
            tracing::debug!(%error, "no connection to oneself");
        }
        self.over.set(true);
        self.pending.set(false);
    }

    async fn exchange(&self) -> io::Result<()> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let accepted = async {
            let (stream, _) = listener.accept().await?;
            tokio::task::spawn_local(echo::answer_quietly(stream)?);
            Ok(())
        };
        let connected = async { tokio::try_join!(Single::connect(address), accepted) };
        let (single, ()) = tokio::time::timeout(PATIENCE, connected).await??;
        loop {
            single.request().await?;
            self.pending.set(false);
            self.asked.notified().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::LocalSet;

    #[tokio::test]
    async fn each_exchange_that_is_asked_for_comes_to_its_end() {
        let exchanges = async {
            let warmth = Warmth::new();
            for _ in 0..1000 {
                warmth.ask();
                assert!(warmth.is_pending());
                while warmth.is_pending() {
                    tokio::task::yield_now().await;
                }
                assert!(!warmth.over.get(), "the connection broke");
            }
        };
        LocalSet::new().run_until(exchanges).await;
    }

    #[test]
    fn nothing_waits_for_an_exchange_that_cannot_be_made() {
        let warmth = Warmth::default();
        warmth.over.set(true);
        warmth.ask();
        assert!(!warmth.is_pending());
    }
}
