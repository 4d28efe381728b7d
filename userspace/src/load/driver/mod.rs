//! The load driver: so many clients with so many concurrent streams each, closed or open loop, every answer checked and
//! counted by the backend that gave it.
//!
//! A connection that the server sends away with GOAWAY is replaced without failing a request: streams in flight
//! finish on it, those the server did not process are sent again and counted as retried. Everything else that goes
//! wrong is a failure, classified by [`Failure`].
//!
//! | part | what it decides |
//! | --- | --- |
//! | [`plan`] | what a run is; refuses what makes no sense |
//! | [`schedule`], [`share`], [`work`] | when a request is meant to start, and which client does it |
//! | [`balance`], [`target`], [`channel`], [`dial`] | which connection of the client takes it, and how that is made |
//! | [`head`], [`payload`] | what a request says |
//! | [`http2`], [`http1`], [`rpc`], [`mux`] | how it goes over the wire, and whether the answer is good |
//! | [`record`], [`report`], [`interval`], [`progress`], [`log`] | what is told of it |
//! | [`shard`] | all of that on one thread |
//! | [`single`] | a connection outside of all that |

mod answer;
mod balance;
mod channel;
mod deadline;
mod dial;
mod head;
mod http1;
mod http2;
mod interval;
mod log;
mod mux;
mod payload;
mod plan;
mod progress;
mod record;
mod report;
mod rpc;
mod schedule;
mod shard;
mod share;
mod single;
mod target;
#[cfg(test)]
mod tests;
mod work;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::thread;

use tokio::sync::{oneshot, watch};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::Instant;

pub use balance::Balance;
pub use head::{Field, FieldError};
pub use log::Logs;
pub use plan::{Budget, Kind, Plan, PlanError, Renewal};
pub use progress::Progress;
pub use record::{Failure, WarmUp};
pub use report::{Connection, Latency, Report};
pub use schedule::Schedule;
pub use share::{Turns, Weights, quotas};
pub use target::{Target, resolve};

pub(super) use single::Single;

use progress::Watch;
use record::{Counts, Recorder};
use shard::{Means, Shard};
use target::Addresses;

/// Why a run could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The settings make no sense.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The request cannot be built from the settings.
    #[error("request: {0}")]
    Request(#[from] ::http::Error),
    /// No timer from the kernel, or no thread.
    #[error("start: {0}")]
    Start(#[from] io::Error),
    /// A log cannot be written.
    #[error("log: {0}")]
    Log(io::Error),
    /// A thread of the run broke off.
    #[error("a thread of the load driver broke off; this is a bug")]
    Broken,
}

/// What is told of a run while it lasts.
#[derive(Default)]
pub struct Outputs {
    /// For people.
    pub progress: Progress,
    /// For programs.
    pub logs: Logs,
}

/// Carries out `plan`; ends early, and in order, when `stop` resolves.
///
/// Must run inside a [`LocalSet`], in which the clients of a plan for one thread run.
pub async fn run(
    plan: &Plan,
    outputs: Outputs,
    stop: impl Future<Output = ()>,
) -> Result<Report, LoadError> {
    plan.validate()?;
    let means = Means::real(plan)?;
    run_with(plan, outputs, stop, means).await
}

/// The same; a plan for one thread is done by `means`.
async fn run_with(
    plan: &Plan,
    outputs: Outputs,
    stop: impl Future<Output = ()>,
    means: Means,
) -> Result<Report, LoadError> {
    let plan = Arc::new(plan.clone());
    let started = Instant::now();
    let addresses = Arc::new(Addresses::new(plan.addresses.concat()));
    let recorder = |_| Arc::new(Recorder::new(started + plan.warm_up));
    let recorders: Vec<Arc<Recorder>> = (0..plan.threads).map(recorder).collect();
    let (end, ended) = watch::channel(false);
    let shard = |number| Shard {
        plan: Arc::clone(&plan),
        number,
        started,
        recorder: Arc::clone(&recorders[number]),
        addresses: Arc::clone(&addresses),
        stop: ended.clone(),
    };
    let mut parts = start(plan.threads, shard, means)?;
    let mut watched = Watch::new(outputs.progress, outputs.logs, &plan, &recorders, started);
    let known = plan.addresses.clone();
    let resolving = addresses.keep(&plan.targets, known, plan.resolve_every, Target::resolve);
    {
        let watching = watched.run();
        tokio::pin!(stop, resolving, watching);
        let mut stopped = false;
        loop {
            tokio::select! {
                part = parts.join_next() => match part {
                    Some(part) => part.map_err(|_| LoadError::Broken)??,
                    None => break,
                },
                written = &mut watching => written.map_err(LoadError::Log)?,
                () = &mut resolving => {}
                () = &mut stop, if !stopped => {
                    stopped = true;
                    // Nobody listens any more when all are done.
                    let _ = end.send(true);
                }
            }
        }
    }
    let elapsed = started.elapsed();
    watched.finish().map_err(LoadError::Log)?;
    let mut counts = Counts::new();
    recorders
        .iter()
        .for_each(|recorder| counts.add(&recorder.counts()));
    Ok(report::build(&plan, &counts, elapsed))
}

/// Starts every shard, on this thread if there is only one.
fn start(
    threads: usize,
    shard: impl Fn(usize) -> Shard,
    means: Means,
) -> Result<JoinSet<Result<(), LoadError>>, LoadError> {
    let mut parts = JoinSet::new();
    if threads == 1 {
        parts.spawn_local(shard(0).run(means));
        return Ok(parts);
    }
    for number in 0..threads {
        let (done, result) = oneshot::channel();
        let shard = shard(number);
        thread::Builder::new()
            .name(format!("load-{number}"))
            .spawn(move || {
                // Nobody wants the result when the run was given up.
                let _ = done.send(run_on_thread(shard));
            })?;
        parts.spawn_local(async move { result.await.unwrap_or(Err(LoadError::Broken)) });
    }
    Ok(parts)
}

fn run_on_thread(shard: Shard) -> Result<(), LoadError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    LocalSet::new().block_on(&runtime, async {
        let means = Means::real(&shard.plan)?;
        shard.run(means).await
    })
}
