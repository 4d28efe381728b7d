//! The thread of a relay: reads what came, waits until it is due, writes it out at the other side.

use std::{
    collections::VecDeque,
    os::fd::AsFd as _,
    sync::{PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, ppoll},
    sys::time::TimeSpec,
};
use tun_rs::SyncDevice;

use super::{Fate, Shared};

/// The longest packet that a device hands over: the largest IPv4 packet.
const LONGEST: usize = 65_535;
/// Packets read in one go before those that are due get their turn.
const BATCH: usize = 64;
/// How often to look whether to stop, when nothing happens.
const IDLE: Duration = Duration::from_millis(50);

/// Packets of one direction that are on their way, the first to arrive in front.
type Way = VecDeque<(u64, Vec<u8>)>;

/// Carries packets until told to stop.
pub(super) fn carry(devices: &[SyncDevice; 2], shared: &Shared) {
    let begun = Instant::now();
    let now = || u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
    let mut ways: [Way; 2] = Default::default();
    let mut buffer = vec![0; LONGEST];
    while !shared.stop.load(Ordering::Relaxed) {
        wait(devices, &ways, now());
        for from in 0..2 {
            take(
                &devices[from],
                from,
                shared,
                &mut ways[from],
                &mut buffer,
                now(),
            );
        }
        for from in 0..2 {
            let refused = deliver(&devices[1 - from], &mut ways[from], now());
            if refused > 0 {
                let mut link = shared.link.lock().unwrap_or_else(PoisonError::into_inner);
                link.passed[from].refused += refused;
            }
        }
    }
}

/// Until a packet comes or is due.
fn wait(devices: &[SyncDevice; 2], ways: &[Way; 2], now: u64) {
    let due = ways.iter().filter_map(|way| Some(way.front()?.0)).min();
    let wait = due.map_or(IDLE, |due| {
        Duration::from_nanos(due.saturating_sub(now)).min(IDLE)
    });
    let mut ends = devices
        .each_ref()
        .map(|device| PollFd::new(device.as_fd(), PollFlags::POLLIN));
    // Interrupted or not, what follows looks for itself.
    let _ = ppoll(&mut ends, Some(TimeSpec::from_duration(wait)), None);
}

/// Reads what came in at `device` and decides what becomes of it.
fn take(
    device: &SyncDevice,
    from: usize,
    shared: &Shared,
    way: &mut Way,
    buffer: &mut [u8],
    now: u64,
) {
    for _ in 0..BATCH {
        // Nothing there, or the device is down: either way there is nothing to carry.
        let Ok(length) = device.recv(buffer) else {
            return;
        };
        let mut link = shared.link.lock().unwrap_or_else(PoisonError::into_inner);
        let fate = link.schedules[from].decide(now, length);
        let passed = &mut link.passed[from];
        passed.packets += 1;
        match fate {
            Fate::Lost => passed.lost += 1,
            Fate::Overflowed => passed.overflowed += 1,
            // A link that became faster does not let packets overtake those on their way.
            Fate::Arrives(due) => {
                let due = way.back().map_or(due, |(last, _)| due.max(*last));
                way.push_back((due, buffer[..length].to_vec()));
            }
        }
    }
}

/// Writes what is due; how many packets the device refused.
fn deliver(device: &SyncDevice, way: &mut Way, now: u64) -> u64 {
    let mut refused = 0;
    while way.front().is_some_and(|(due, _)| *due <= now) {
        if let Some((_, packet)) = way.pop_front() {
            refused += u64::from(device.send(&packet).is_err());
        }
    }
    refused
}
