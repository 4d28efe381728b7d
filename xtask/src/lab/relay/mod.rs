//! A link with delay, loss, a rate and a queue, made of two TUN devices and a thread that carries packets between them.
//!
//! Kernels without netem have nothing of the kind: a drop on the sender's own egress is reported to the sender, which
//! no real network does, and delay by departure times needs the fq scheduler. What happens to each packet is decided by
//! a [`Schedule`], from a seed; the thread only reads, waits and writes.
//!
//! A TUN device takes no segments larger than its MTU (it offers no segmentation offload), so a packet here is a packet
//! as on a wire, whatever the other cards of the lab do.

mod carry;
mod schedule;

use std::{
    fs::File,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sched::{CloneFlags, setns};
use tun_rs::{DeviceBuilder, SyncDevice};

pub use schedule::{Direction, Fate, Schedule};

use super::namespace::{NAMES, Namespace};

/// A link that is not ideal; the same in both directions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RelaySpec {
    /// Share of packets that are lost, 0 to 1, in each direction.
    pub loss: f64,
    /// How long a packet is on its way, in each direction: half of what it adds to the round-trip time.
    pub delay: Duration,
    /// Bits a second, in each direction; `None`: as fast as the relay can.
    pub rate: Option<u64>,
    /// Packets that may wait for the transmitter; what comes then is dropped.
    pub queue: usize,
    /// Which packets are lost follows from this, and from nothing else.
    pub seed: u64,
}

impl RelaySpec {
    /// The schedules: client to router, router to client.
    #[must_use]
    pub fn schedules(&self) -> [Schedule; 2] {
        let direction = Direction {
            loss: self.loss,
            delay: u64::try_from(self.delay.as_nanos()).unwrap_or(u64::MAX),
            rate: self.rate,
            queue: self.queue,
        };
        // The directions must not lose the same numbers; any other seed will do for the second.
        [self.seed, !self.seed].map(|seed| Schedule::new(direction, seed))
    }
}

/// What became of the packets of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Packets that came.
    pub packets: u64,
    /// Of those, lost by chance.
    pub lost: u64,
    /// Of those, dropped because the queue was full.
    pub overflowed: u64,
    /// Of those, refused by the device at the far end.
    pub refused: u64,
}

/// What the thread and its owner share.
#[derive(Debug)]
struct Shared {
    stop: AtomicBool,
    link: Mutex<Link>,
}

/// The link as it is now.
#[derive(Debug)]
struct Link {
    schedules: [Schedule; 2],
    passed: [Passed; 2],
}

/// A running relay; its devices are gone when it is dropped.
#[derive(Debug)]
pub struct Relay {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Relay {
    /// Joins `near` and `far`: each has a device called `name` then, up and without an address.
    pub(super) fn start(
        spec: &RelaySpec,
        near: &Namespace,
        far: &Namespace,
        name: [&str; 2],
    ) -> Result<Self> {
        ensure!(
            (0.0..=1.0).contains(&spec.loss),
            "a share of {} packets cannot be lost",
            spec.loss
        );
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            link: Mutex::new(Link {
                schedules: spec.schedules(),
                passed: Default::default(),
            }),
        });
        let ends = [
            (near.name().to_owned(), name[0].to_owned()),
            (far.name().to_owned(), name[1].to_owned()),
        ];
        let (ready, made) = mpsc::channel();
        let theirs = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("relay".to_owned())
            .spawn(move || match open(&ends) {
                Ok(devices) => {
                    // Whoever waits for it cannot be gone: it is us.
                    let _ = ready.send(Ok(()));
                    carry::carry(&devices, &theirs);
                }
                Err(error) => {
                    let _ = ready.send(Err(error));
                }
            })?;
        match made.recv() {
            Ok(made) => made?,
            Err(_) => bail!("the relay ended before it began"),
        }
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Makes another link of it. Packets on their way still arrive; numbers and counts begin at 0 again.
    pub fn reshape(&self, spec: &RelaySpec) {
        let mut link = self.link();
        link.schedules = spec.schedules();
        link.passed = Default::default();
    }

    /// What became of the packets so far: client to router, router to client.
    #[must_use]
    pub fn passed(&self) -> [Passed; 2] {
        self.link().passed
    }

    fn link(&self) -> std::sync::MutexGuard<'_, Link> {
        self.shared
            .link
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It panics nowhere; and if it did, the devices would be gone all the same.
            let _ = thread.join();
        }
    }
}

/// Makes the devices, each in its namespace. Only this thread moves between namespaces; a device stays where it was
/// made, and its file can be used from anywhere.
fn open(ends: &[(String, String); 2]) -> Result<[SyncDevice; 2]> {
    let home = File::open("/proc/thread-self/ns/net")?;
    let make = |(namespace, name): &(String, String)| -> Result<SyncDevice> {
        let there = File::open(Path::new(NAMES).join(namespace))
            .with_context(|| format!("cannot open namespace {namespace}"))?;
        setns(&there, CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("cannot enter namespace {namespace}"))?;
        let device = DeviceBuilder::new()
            .name(name.clone())
            .build_sync()
            .with_context(|| format!("cannot make TUN device {name} in {namespace}"))?;
        device.set_nonblocking(true)?;
        Ok(device)
    };
    let devices = [make(&ends[0])?, make(&ends[1])?];
    setns(&home, CloneFlags::CLONE_NEWNET).context("cannot go home")?;
    Ok(devices)
}
