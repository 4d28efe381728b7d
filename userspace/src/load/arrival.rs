//! When what was read from a connection had arrived on this host.
//!
//! A program that waits for an answer is woken some time after the answer came: some ten microseconds where a core never
//! sleeps, hundreds on a virtual machine. Taken for the answer's latency, that is an error of whoever measures, and here it
//! was most of what was measured beyond what a backend took. The kernel knows better: with `SO_TIMESTAMPNS` (socket(7);
//! `Documentation/networking/timestamping.rst` of the kernel, section 1.1.2) it notes when a packet came out of the
//! network card, and on a loopback or veth link when the sender sent it, and hands that over with the bytes.
//!
//! What it hands over is a time of the wall clock. [`Stamped`] turns it into one of the monotonic clock at each read, by
//! the age that it has then:
//!
//! - The stamp is that of the last segment of those that were read, and where segments were merged, that of the last one of
//!   them: what was read in part has the time of the whole, which is late, never early.
//! - Nothing arrives after it was read, nor before what was read before it, whatever the wall clock was set to meanwhile.
//! - A stamp is believed as far as a wakeup goes, [`BELIEVED`]. An older one is either of a process that has too much to do,
//!   or a mistake: the wall clock was set, or a lost segment was sent again, because those behind it, which waited in the
//!   kernel, have the time at which they came and not that at which they could be read. Latency behind a lost segment is
//!   what others come here to see. So at most that much is taken off, and how old stamps really were is told apart
//!   ([`Arrival::stamped`]).
//! - Without a stamp (the first packets after stamps were asked for, kernels that give none) it arrived when it was read.
//!
//! Rejected: believing every stamp (see above); asking for the kernel's count of segments out of order at each read (another
//! system call, and none that the crates in use offer without `unsafe`); letting the runtime spin ([`super::timer::spin`])
//! by default (a core that the measured program may need).

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime};

use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, setsockopt, socket,
    sockopt::ReceiveTimestampns,
};
use nix::sys::time::TimeSpec;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// How much older than its reading an arrival is at most: longer than a wakeup of a sleeping virtual machine takes (up to
/// 0.6 ms were seen), shorter than most round trips of a network, and so than a retransmission.
const BELIEVED: Duration = Duration::from_millis(1);
/// Bytes of one read at most; as much as a datagram, and more than most HTTP/2 frames, can have.
const MOST: usize = 64 * 1024;

/// Whose clock says when something has arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clock {
    /// The kernel's: when it came to this host.
    #[default]
    Kernel,
    /// This process's: when it read it, as any other application sees it.
    Process,
}

/// When something arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// As far as that is believed.
    pub at: Instant,
    /// What the kernel says, where it says anything.
    pub stamped: Option<Instant>,
}

/// The arrival of what was read last; clones tell of the same connection.
#[derive(Clone, Default)]
pub struct Latest(Rc<Cell<Option<Arrival>>>);

/// What the connections of a thread need for their stamps; clones are the same.
#[derive(Clone)]
pub struct Stamps(Option<Rc<Landing>>);

struct Landing {
    /// Where bytes land, one read after the other. A reader's own memory would have to be cleared before each read, all
    /// that it has for the few bytes that come, because only `unsafe` code may hand out what was never written.
    bytes: RefCell<Box<[u8]>>,
    control: RefCell<Vec<u8>>,
    /// The kernel stamps packets as long as some socket wants it to, and patches its own code to begin and to end with it
    /// (`net_enable_timestamp`): not for each connection of many short ones.
    _wanted: OwnedFd,
}

/// A TCP connection that knows when what was read from it had arrived.
pub struct Stamped {
    stream: TcpStream,
    /// `None`: the kernel is not asked.
    landing: Option<Rc<Landing>>,
    latest: Latest,
    /// Nothing that is still to be read arrived before.
    previous: Instant,
}

// === impl Arrival ===

impl Arrival {
    /// Just now, as nobody knows better.
    #[must_use]
    pub fn now() -> Self {
        Self {
            at: Instant::now(),
            stamped: None,
        }
    }

    /// Of what was read at `now`, which is `wall` on the clock by which it was stamped; both since the same beginning.
    fn of(stamp: Duration, wall: Duration, now: Instant, previous: Instant) -> Self {
        let age = wall.saturating_sub(stamp);
        let age = age.min(now.saturating_duration_since(previous));
        Self {
            at: now - age.min(BELIEVED),
            stamped: Some(now - age),
        }
    }
}

// === impl Latest ===

impl Latest {
    /// That of what was read last; now, where nobody takes it down.
    #[must_use]
    pub fn get(&self) -> Arrival {
        self.0.get().unwrap_or_else(Arrival::now)
    }
}

// === impl Stamps ===

impl Stamps {
    /// What `clock` needs; a kernel that gives no stamps leaves it to the process.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        match clock {
            Clock::Process => Self(None),
            Clock::Kernel => Self(
                Landing::new()
                    .inspect_err(|error| tracing::debug!(%error, "no time stamps"))
                    .ok()
                    .map(Rc::new),
            ),
        }
    }
}

impl Landing {
    fn new() -> nix::Result<Self> {
        let wanted = socket(
            AddressFamily::Inet,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        setsockopt(&wanted, ReceiveTimestampns, &true)?;
        Ok(Self {
            bytes: RefCell::new(vec![0; MOST].into_boxed_slice()),
            control: RefCell::new(cmsg_space!(TimeSpec)),
            _wanted: wanted,
        })
    }

    /// Reads what there is and fits into `out`; gives its stamp. `WouldBlock` when there is nothing.
    fn receive(
        &self,
        stream: &TcpStream,
        out: &mut ReadBuf<'_>,
    ) -> io::Result<(usize, Option<Duration>)> {
        let (mut bytes, mut control) = (self.bytes.borrow_mut(), self.control.borrow_mut());
        let room = out.remaining().min(bytes.len());
        let bytes = &mut bytes[..room];
        let mut received = None;
        let read = stream.try_io(Interest::READABLE, || {
            let mut slices = [IoSliceMut::new(bytes)];
            let control = Some(control.as_mut_slice());
            let message =
                recvmsg::<()>(stream.as_raw_fd(), &mut slices, control, MsgFlags::empty())?;
            let stamp = message
                .cmsgs()
                .ok()
                .and_then(|mut all| all.find_map(|message| stamp(&message)));
            received = Some((message.bytes, stamp));
            // Less than there was room for: the socket is empty, and to say so here, as the runtime's own reads do, saves
            // the call that finds nothing.
            match message.bytes {
                length if length > 0 && length < room => Err(io::ErrorKind::WouldBlock.into()),
                _ => Ok(()),
            }
        });
        match (received, read) {
            (Some((length, stamp)), _) => {
                out.put_slice(&bytes[..length]);
                Ok((length, stamp))
            }
            (None, Err(error)) => Err(error),
            (None, Ok(())) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

/// The time in a message of the kernel, since 1970.
fn stamp(message: &ControlMessageOwned) -> Option<Duration> {
    let ControlMessageOwned::ScmTimestampns(time) = message else {
        return None;
    };
    let seconds = u64::try_from(time.tv_sec()).ok()?;
    Some(Duration::from_secs(seconds) + Duration::from_nanos(u64::try_from(time.tv_nsec()).ok()?))
}

// === impl Stamped ===

impl Stamped {
    /// `stream`, of which nothing was read yet.
    #[must_use]
    pub fn new(stream: TcpStream, stamps: &Stamps) -> Self {
        let wanted = |_: &&Rc<Landing>| {
            setsockopt(&stream, ReceiveTimestampns, &true)
                .inspect_err(|error| tracing::debug!(%error, "no time stamps on a connection"))
                .is_ok()
        };
        Self {
            landing: stamps.0.as_ref().filter(wanted).cloned(),
            stream,
            latest: Latest::default(),
            previous: Instant::now(),
        }
    }

    /// The arrival of what was read last.
    #[must_use]
    pub fn latest(&self) -> Latest {
        self.latest.clone()
    }

    /// Sends what there is at once.
    pub fn set_nodelay(&self) -> io::Result<()> {
        self.stream.set_nodelay(true)
    }

    fn arrived(&mut self, stamp: Option<Duration>) {
        // In this order: what passes between the two makes an arrival later, not earlier.
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let now = Instant::now();
        let arrival = match (stamp, wall) {
            (Some(stamp), Ok(wall)) => Arrival::of(stamp, wall, now, self.previous),
            _ => Arrival {
                at: now,
                stamped: None,
            },
        };
        self.previous = arrival.at;
        self.latest.0.set(Some(arrival));
    }
}

impl AsyncRead for Stamped {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        out: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Some(landing) = self.landing.clone() else {
            return Pin::new(&mut self.stream).poll_read(cx, out);
        };
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            match landing.receive(&self.stream, out) {
                Ok((length, stamp)) => {
                    if length > 0 {
                        self.arrived(stamp);
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Stamped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
