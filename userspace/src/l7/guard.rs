//! Floods of small frames: counted from the frame headers, before `h2` sees them.
//!
//! `h2` limits what costs memory, but not how often a peer resets accepted streams or sends PING, SETTINGS, PRIORITY and
//! WINDOW_UPDATE, each of which costs CPU and some an answer. So every byte of a client passes a [`Guard`], which walks
//! the 9-byte frame headers (RFC 9113, section 4.1; never compressed) and keeps two budgets:
//!
//! | budget | spent by | earned by |
//! | --- | --- | --- |
//! | resets | RST_STREAM | time, and each stream that the client let finish |
//! | control | PING, PRIORITY, WINDOW_UPDATE (1), SETTINGS (10, it is answered) | time, HEADERS and DATA received, DATA sent and its bytes |
//!
//! Earning is what keeps honest clients safe whatever their rate: gRPC clients send a PING and a WINDOW_UPDATE beside each
//! message, and cancel some of many calls. A flood earns nothing. A budget that is spent trips the guard for good.

use std::time::Instant;

use super::limits::Limits;

const HEADER: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;

/// Control frames that one HEADERS or DATA frame earns: one WINDOW_UPDATE for the stream, one for the connection, a PING
/// and its answer.
const EARNED_BY_DATA: u32 = 4;

/// Sent bytes that earn one more. Go's HTTP/2 client sends WINDOW_UPDATE for every 4 KiB that it reads, one for the stream and
/// one for the connection, however large the DATA frames were.
const BYTES_EARN: usize = 2_048;

/// What a SETTINGS frame costs: it must be answered, and may rewrite the window of every stream.
const SETTINGS_COST: u32 = 10;

/// A budget that time refills.
#[derive(Debug)]
struct Bucket {
    left: u32,
    burst: u32,
    rate: u32,
}

/// Counts the frames of one client.
#[derive(Debug)]
pub struct Guard {
    /// Payload bytes until the next frame header.
    skip: usize,
    /// The part of a frame header that came so far.
    partial: [u8; HEADER],
    partial_len: usize,
    resets: Bucket,
    control: Bucket,
    refilled: Instant,
    tripped: bool,
}

impl Guard {
    /// A guard with full budgets. `now` is the caller's clock.
    #[must_use]
    pub fn new(limits: &Limits, now: Instant) -> Self {
        Self {
            skip: 0,
            partial: [0; HEADER],
            partial_len: 0,
            resets: Bucket::new(limits.reset_burst, limits.reset_rate),
            control: Bucket::new(limits.control_burst, limits.control_rate),
            refilled: now,
            tripped: false,
        }
    }

    /// True once a budget was spent.
    #[must_use]
    pub fn tripped(&self) -> bool {
        self.tripped
    }

    /// Walks bytes that came after the connection preface, in order.
    pub fn observe(&mut self, mut bytes: &[u8], now: Instant) {
        self.refill(now);
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            let wanted = HEADER - self.partial_len;
            let taken = wanted.min(bytes.len());
            self.partial[self.partial_len..self.partial_len + taken]
                .copy_from_slice(&bytes[..taken]);
            self.partial_len += taken;
            bytes = &bytes[taken..];
            if self.partial_len == HEADER {
                self.partial_len = 0;
                self.frame();
            }
        }
    }

    /// A stream came to its end without a reset by the client.
    pub fn stream_finished(&mut self) {
        self.resets.earn(1);
    }

    /// So many bytes of content were sent to the client, which it will answer with WINDOW_UPDATE.
    pub fn data_sent(&mut self, bytes: usize) {
        let by_bytes = u32::try_from(bytes / BYTES_EARN).unwrap_or(u32::MAX);
        self.control.earn(EARNED_BY_DATA.saturating_add(by_bytes));
    }

    fn frame(&mut self) {
        let [a, b, c, kind, ..] = self.partial;
        self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        let within = match kind {
            HEADERS => self.control.earn(EARNED_BY_DATA),
            // Empty DATA is no progress, and earns nothing.
            DATA if self.skip > 0 => self.control.earn(EARNED_BY_DATA),
            RST_STREAM => self.resets.spend(1),
            SETTINGS => self.control.spend(SETTINGS_COST),
            PRIORITY | PING | WINDOW_UPDATE => self.control.spend(1),
            _ => true,
        };
        self.tripped |= !within;
    }

    fn refill(&mut self, now: Instant) {
        let whole = now.saturating_duration_since(self.refilled).as_secs();
        if whole > 0 {
            self.refilled = now;
            let seconds = u32::try_from(whole).unwrap_or(u32::MAX);
            self.resets.earn(self.resets.rate.saturating_mul(seconds));
            self.control.earn(self.control.rate.saturating_mul(seconds));
        }
    }
}

impl Bucket {
    fn new(burst: u32, rate: u32) -> Self {
        Self {
            left: burst,
            burst,
            rate,
        }
    }

    /// Always true, so that it reads beside [`Bucket::spend`].
    fn earn(&mut self, amount: u32) -> bool {
        self.left = self.left.saturating_add(amount).min(self.burst);
        true
    }

    /// False when the budget does not hold that much.
    fn spend(&mut self, amount: u32) -> bool {
        match self.left.checked_sub(amount) {
            Some(left) => self.left = left,
            None => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn frame(kind: u8, payload: usize) -> Vec<u8> {
        let length = u32::try_from(payload)
            .expect("a frame fits 24 bits")
            .to_be_bytes();
        let mut bytes = vec![length[1], length[2], length[3], kind, 0, 0, 0, 0, 1];
        bytes.resize(HEADER + payload, 0xFF);
        bytes
    }

    fn guard(burst: u32) -> (Guard, Instant) {
        let now = Instant::now();
        let limits = Limits {
            reset_burst: burst,
            reset_rate: 1,
            control_burst: burst,
            control_rate: 1,
            ..Limits::default()
        };
        (Guard::new(&limits, now), now)
    }

    #[test]
    fn each_kind_of_flood_trips_it() {
        for (kind, payload, cost) in [
            (PRIORITY, 5, 1),
            (RST_STREAM, 4, 1),
            (SETTINGS, 6, SETTINGS_COST),
            (PING, 8, 1),
            (WINDOW_UPDATE, 4, 1),
        ] {
            let (mut guard, now) = guard(100);
            let bytes = frame(kind, payload);
            for _ in 0..100 / cost {
                guard.observe(&bytes, now);
            }
            assert!(!guard.tripped(), "frame type {kind} within its budget");
            guard.observe(&bytes, now);
            assert!(guard.tripped(), "frame type {kind} over its budget");
        }
    }

    #[test]
    fn a_client_that_acknowledges_data_never_trips_it() {
        let (mut guard, now) = guard(20);
        for _ in 0..10_000 {
            guard.observe(&frame(HEADERS, 30), now);
            guard.observe(&frame(PING, 8), now);
            guard.observe(&frame(WINDOW_UPDATE, 4), now);
            guard.data_sent(100);
            guard.observe(&frame(WINDOW_UPDATE, 4), now);
            guard.observe(&frame(RST_STREAM, 4), now);
            guard.stream_finished();
        }
        assert!(!guard.tripped());
    }

    #[test]
    fn a_client_that_updates_its_windows_every_4_kib_never_trips_it() {
        let (mut guard, now) = guard(200);
        for chunk in [1, 5_000, 16_384, 131_072].repeat(1_000) {
            guard.data_sent(chunk);
            for _ in 0..2 * chunk.div_ceil(4_096) {
                guard.observe(&frame(WINDOW_UPDATE, 4), now);
            }
        }
        assert!(!guard.tripped());
    }

    #[test]
    fn time_earns_budget_up_to_the_burst() {
        let (mut guard, now) = guard(10);
        for second in 0..100 {
            guard.observe(&frame(PING, 8), now + Duration::from_secs(second));
        }
        assert!(!guard.tripped());
    }

    proptest! {
        #[test]
        fn where_reads_split_the_frames_does_not_matter(cuts in prop::collection::vec(1usize..40, 1..60)) {
            let mut bytes = Vec::new();
            for (kind, payload) in [(HEADERS, 21), (PING, 8), (DATA, 0), (RST_STREAM, 4), (DATA, 300), (SETTINGS, 0)] {
                bytes.extend(frame(kind, payload));
            }
            let (mut whole, now) = guard(100);
            whole.observe(&bytes, now);
            let (mut split, _) = guard(100);
            let mut rest = &bytes[..];
            for cut in cuts.into_iter().cycle().take_while(|_| true) {
                if rest.is_empty() { break }
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                split.observe(head, now);
                rest = tail;
            }
            prop_assert_eq!(whole.control.left, split.control.left);
            prop_assert_eq!(whole.resets.left, split.resets.left);
            prop_assert_eq!(whole.skip, split.skip);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
            let (mut guard, now) = guard(1);
            guard.observe(&bytes, now);
        }
    }
}
