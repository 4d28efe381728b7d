//! The way to the state: one thread that owns it, closures that are sent there and run in order.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::oneshot;

use super::plane::PlaneError;
use super::state::State;

/// How often the state looks whether something is due.
const TICK: Duration = Duration::from_millis(250);

/// Stack of the state's thread: reading a Maglev table moves 128 KiB values by value, several times over in a build
/// without optimisation, and the default of 2 MiB overflows.
const STACK: usize = 16 << 20;

type Job = Box<dyn FnOnce(&mut State) + Send>;

enum Message {
    Job(Job),
    Stop {
        keep_datapath: bool,
        grace: Duration,
        done: oneshot::Sender<Result<(), PlaneError>>,
    },
}

/// The state is no longer there: the daemon is stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the daemon is stopping")]
pub struct Gone;

/// Sends work to the state; cheap to clone.
#[derive(Clone)]
pub struct Handle {
    sender: Sender<Message>,
}

impl Handle {
    /// Gives the state a thread of its own. The second value resolves when that thread ends.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub fn spawn(state: State) -> std::io::Result<(Self, oneshot::Receiver<()>)> {
        let (sender, receiver) = channel();
        let (ended, end) = oneshot::channel();
        std::thread::Builder::new()
            .name("state".to_owned())
            .stack_size(STACK)
            .spawn(move || {
                own(state, &receiver);
                // Nobody listens any more once the daemon is on its way out.
                let _ = ended.send(());
            })?;
        Ok((Self { sender }, end))
    }

    /// Runs `work` on the state and returns what it returns.
    ///
    /// # Errors
    /// The state is gone.
    pub async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut State) -> T + Send + 'static,
    ) -> Result<T, Gone> {
        let (reply, answer) = oneshot::channel();
        let job: Job = Box::new(move |state| {
            // Whoever asked may have hung up; the work is done all the same.
            let _ = reply.send(work(state));
        });
        self.sender.send(Message::Job(job)).map_err(|_| Gone)?;
        answer.await.map_err(|_| Gone)
    }

    /// Ends the state: see [`State::stop`].
    ///
    /// # Errors
    /// The kernel refused to let the data path go, or the state was gone already.
    pub async fn stop(&self, keep_datapath: bool, grace: Duration) -> Result<(), PlaneError> {
        let gone = |_| PlaneError(Gone.to_string());
        let (done, answer) = oneshot::channel();
        let message = Message::Stop {
            keep_datapath,
            grace,
            done,
        };
        self.sender
            .send(message)
            .map_err(|_| PlaneError(Gone.to_string()))?;
        answer.await.map_err(gone)?
    }
}

fn own(mut state: State, receiver: &Receiver<Message>) {
    let mut next = Instant::now();
    loop {
        let now = Instant::now();
        if now >= next {
            state.tick(now);
            next = Instant::now() + TICK;
        }
        match receiver.recv_timeout(next.saturating_duration_since(now)) {
            Ok(Message::Job(job)) => job(&mut state),
            Ok(Message::Stop {
                keep_datapath,
                grace,
                done,
            }) => {
                let _ = done.send(state.stop(keep_datapath, grace));
                return;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
