//! The load driver: so many connections with so many concurrent streams each, closed or open loop, every answer
//! checked and counted by the backend that gave it.
//!
//! A connection that the server sends away with GOAWAY is replaced without failing a request: streams in flight
//! finish on it, those the server did not process are sent again and counted as retried. Everything else that goes
//! wrong is a failure, classified by [`Failure`].

mod dial;
mod http1;
mod http2;
mod plan;
mod progress;
mod record;
mod report;
mod rpc;
mod work;

use std::future::Future;
use std::io;
use std::rc::Rc;

use tokio::task::JoinSet;

pub use plan::{Budget, Kind, Plan, PlanError, Renewal, Turns};
pub use progress::Progress;
pub use record::{Failure, Latency};
pub use report::Report;

use dial::Dialer;
use record::Recorder;
use rpc::Rpc;
use work::Work;

/// Why a run could not be made.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The settings make no sense.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The request cannot be built from the settings.
    #[error("request: {0}")]
    Request(#[from] ::http::Error),
    /// No timer from the kernel.
    #[error("timer: {0}")]
    Timer(#[from] io::Error),
}

/// Carries out `plan`, showing `progress`; ends early, and in order, when `stop` resolves.
///
/// Must run inside a [`tokio::task::LocalSet`]: the clients share their counts without atomics.
pub async fn run(
    plan: &Plan,
    progress: Progress,
    stop: impl Future<Output = ()>,
) -> Result<Report, LoadError> {
    plan.validate()?;
    let recorder = Rc::new(Recorder::new());
    let works = Work::share_out(plan);
    let mut clients = spawn_clients(plan, &works, &recorder)?;
    let end = || works.iter().for_each(|work| work.end());
    let shown = progress::show(progress, plan, &recorder);
    let paced = async {
        match (plan.rate, plan.budget) {
            (Some(rate), _) => work::pace(rate, plan, &works).await?,
            (None, Budget::Duration(duration)) => {
                tokio::time::sleep(duration).await;
                end();
            }
            (None, Budget::Requests(_)) => {}
        }
        std::future::pending::<()>().await;
        io::Result::Ok(())
    };
    tokio::pin!(shown, paced, stop);
    let mut stopped = false;
    loop {
        tokio::select! {
            joined = clients.join_next() => if joined.is_none() { break },
            () = &mut shown => {}
            result = &mut paced, if !stopped => result?,
            () = &mut stop, if !stopped => {
                stopped = true;
                end();
            }
        }
    }
    progress::finish(progress);
    Ok(report::build(plan, &recorder))
}

fn spawn_clients(
    plan: &Plan,
    works: &[Rc<Work>],
    recorder: &Rc<Recorder>,
) -> Result<JoinSet<()>, LoadError> {
    let mut clients = JoinSet::new();
    let dialers = Dialer::for_clients(plan);
    let each = works.iter().zip(dialers).zip(plan.concurrency());
    if let Kind::Http1 { keep_alive } = plan.kind {
        let request = http1::request(plan)?;
        for ((work, dialer), _) in each.filter(|(_, streams)| *streams > 0) {
            let (work, recorder, request) = (Rc::clone(work), Rc::clone(recorder), request.clone());
            let client = http1::Client {
                work,
                dialer,
                recorder,
                timeout: plan.timeout,
                request,
                keep_alive,
            };
            clients.spawn_local(client.run());
        }
        return Ok(clients);
    }
    let rpc = Rc::new(Rpc::new(plan)?);
    for ((work, dialer), streams) in each {
        let (work, rpc, recorder) = (Rc::clone(work), Rc::clone(&rpc), Rc::clone(recorder));
        let client = Rc::new(http2::Client::new(
            work,
            dialer,
            rpc,
            recorder,
            plan.timeout,
        ));
        for _ in 0..streams {
            clients.spawn_local(Rc::clone(&client).run_stream());
        }
    }
    Ok(clients)
}
