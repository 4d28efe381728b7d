//! The part of a run that one thread does: its clients, and the pace that they are given.

use std::rc::Rc;
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::channel::Channel;
use super::dial::{Connect, Lifetimes, Tcp};
use super::payload::{Asked, Payload};
use super::plan::{Budget, Kind, Plan};
use super::record::Recorder;
use super::rpc::Rpc;
use super::target::Addresses;
use super::work::{self, Work};
use super::{LoadError, http1, http2};
use crate::load::random::{Purpose, generator};
use crate::load::timer::{Timer, spin};
use crate::load::warm::Warmth;

/// One of the threads of a run.
pub(super) struct Shard {
    pub(super) plan: Arc<Plan>,
    /// Its position among `plan.threads`; it has every so-manieth client.
    pub(super) number: usize,
    pub(super) started: Instant,
    pub(super) recorder: Arc<Recorder>,
    pub(super) addresses: Arc<Addresses>,
    /// True once no more requests are wanted.
    pub(super) stop: watch::Receiver<bool>,
}

/// What the clients of a thread share.
pub(super) struct Common {
    pub(super) plan: Arc<Plan>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) connector: Box<dyn Connect>,
}

/// How requests get out, and how their time is kept.
pub(super) struct Means {
    pub(super) connector: Box<dyn Connect>,
    pub(super) timer: Timer,
}

// === impl Means ===

impl Means {
    /// TCP, and the kernel's timer.
    pub(super) fn real(plan: &Plan) -> Result<Self, LoadError> {
        Ok(Self {
            connector: Box::new(Tcp::new(&plan.sources, plan.clock)),
            timer: Timer::punctual(Warmth::new())?,
        })
    }
}

// === impl Shard ===

impl Shard {
    /// Does its part, within a [`tokio::task::LocalSet`].
    pub(super) async fn run(self, means: Means) -> Result<(), LoadError> {
        let Means { connector, timer } = means;
        let common = Rc::new(Common {
            plan: Arc::clone(&self.plan),
            recorder: Arc::clone(&self.recorder),
            connector,
        });
        let mine = |client: usize| client % self.plan.threads == self.number;
        let works: Vec<Option<Rc<Work>>> = Work::share_out(&self.plan, self.started)
            .enumerate()
            .map(|(client, work)| mine(client).then_some(work))
            .collect();
        let mut clients = self.spawn_clients(&works, &common)?;
        let end = || works.iter().flatten().for_each(|work| work.end());
        let paced = async {
            match (&self.plan.schedule, self.plan.budget) {
                (Some(_), _) => {
                    work::pace(&self.plan, &works, self.started, &timer, &self.recorder).await;
                }
                (None, Budget::Duration(duration)) => {
                    timer
                        .until(self.started + self.plan.warm_up + duration)
                        .await;
                    end();
                }
                (None, Budget::Requests(_)) => {}
            }
            std::future::pending::<()>().await;
        };
        let spinning = async {
            if self.plan.spin {
                spin(&[&timer]).await;
            }
            std::future::pending::<()>().await;
        };
        let mut stop = self.stop.clone();
        let stop = async {
            // The other end is gone only when the whole run is.
            let _ = stop.wait_for(|stop| *stop).await;
        };
        tokio::pin!(paced, spinning, stop);
        let mut stopped = false;
        loop {
            tokio::select! {
                joined = clients.join_next() => if joined.is_none() { return Ok(()) },
                () = &mut paced, if !stopped => {}
                () = &mut spinning => {}
                () = &mut stop, if !stopped => {
                    stopped = true;
                    end();
                }
            }
        }
    }

    fn spawn_clients(
        &self,
        works: &[Option<Rc<Work>>],
        common: &Rc<Common>,
    ) -> Result<JoinSet<()>, LoadError> {
        let mut tasks = JoinSet::new();
        let each = works.iter().zip(self.plan.concurrency()).enumerate();
        for (number, (work, streams)) in each {
            let Some(work) = work.as_ref().filter(|_| streams > 0) else {
                continue;
            };
            let client = ClientParts {
                number,
                work: Rc::clone(work),
                common: Rc::clone(common),
            };
            if let Kind::Http1 { keep_alive } = self.plan.kind {
                let client = Rc::new(self.http1(client, keep_alive)?);
                tasks.spawn_local(client.run());
                continue;
            }
            let client = Rc::new(self.http2(client)?);
            for _ in 0..streams {
                tasks.spawn_local(Rc::clone(&client).run_stream());
            }
        }
        Ok(tasks)
    }

    fn http1(&self, parts: ClientParts, keep_alive: bool) -> Result<http1::Client, LoadError> {
        let ClientParts {
            number,
            work,
            common,
        } = parts;
        Ok(http1::Client {
            number,
            work,
            lifetimes: self.lifetimes(number),
            channel: self.channel(number),
            request: http1::request(&self.plan)?,
            payload: Payload::new(&self.plan, false, number).into(),
            asked: Asked::new(&self.plan, number).into(),
            keep_alive,
            common,
        })
    }

    fn http2(&self, parts: ClientParts) -> Result<http2::Client, LoadError> {
        let ClientParts {
            number,
            work,
            common,
        } = parts;
        Ok(http2::Client {
            number,
            work,
            lifetimes: self.lifetimes(number),
            channel: self.channel(number),
            rpc: Rpc::new(&self.plan, number)?,
            common,
        })
    }

    fn lifetimes(&self, client: usize) -> Lifetimes {
        Lifetimes::new(self.plan.renewal, client, self.plan.weights.len())
    }

    fn channel<L>(&self, client: usize) -> Channel<L> {
        Channel::new(
            self.plan.balance,
            Arc::clone(&self.addresses),
            generator(self.plan.seed, Purpose::Balance, client),
        )
    }
}

/// What every client has, whichever protocol it speaks.
struct ClientParts {
    number: usize,
    work: Rc<Work>,
    common: Rc<Common>,
}
