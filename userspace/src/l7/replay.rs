//! The beginning of a request, kept for another attempt.
//!
//! A backend that refuses a stream (REFUSED_STREAM, or GOAWAY with a lower last id) guarantees that it did not look at it
//! (RFC 9113, section 8.7), so what was sent can be sent again elsewhere. Chunks are reference counted: keeping them
//! copies nothing. Content that outgrows the limit is let go, and with it the retry.

use bytes::Bytes;
use h2::SendStream;

use super::pump::Watch;
use super::stats::Counter;

/// What was sent of a request's content.
#[derive(Debug)]
pub struct Replay {
    first: Option<Bytes>,
    more: Vec<Bytes>,
    room: usize,
    ended: bool,
    possible: bool,
}

/// Keeps chunks for a replay, and counts their bytes.
pub struct Keep<'a> {
    /// Where they are kept.
    pub replay: &'a mut Replay,
    /// Where they are counted.
    pub bytes: &'a Counter,
    /// Where it is noted that something moved, and when that is.
    pub moved_at: &'a mut u64,
    /// The worker's milliseconds.
    pub now: u64,
}

// === impl Replay ===

impl Replay {
    /// Keeps up to `room` bytes.
    pub fn new(room: usize) -> Self {
        Self {
            first: None,
            more: Vec::new(),
            room,
            ended: false,
            possible: true,
        }
    }

    /// True while all that was sent is still there.
    pub fn is_possible(&self) -> bool {
        self.possible
    }

    /// True when the content was handed over to its end.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Sends again what was sent before. At most the room given, which `h2` holds until there is a window for it.
    pub fn send(&self, to: &mut SendStream<Bytes>) -> Result<(), h2::Error> {
        let chunks = self.first.iter().chain(&self.more);
        let last = self.more.len() + usize::from(self.first.is_some());
        for (position, chunk) in chunks.enumerate() {
            to.send_data(chunk.clone(), self.ended && position + 1 == last)?;
        }
        Ok(())
    }

    fn keep(&mut self, chunk: &Bytes, last: bool) {
        self.ended = last;
        match self.room.checked_sub(chunk.len()) {
            Some(room) if self.possible => {
                self.room = room;
                if self.first.is_none() {
                    self.first = Some(chunk.clone());
                } else {
                    self.more.push(chunk.clone());
                }
            }
            _ => self.forget(),
        }
    }

    fn forget(&mut self) {
        self.possible = false;
        self.first = None;
        self.more = Vec::new();
    }
}

// === impl Keep ===

impl Watch for Keep<'_> {
    fn chunk(&mut self, chunk: &Bytes, last: bool) {
        self.bytes.add(chunk.len() as u64);
        self.replay.keep(chunk, last);
        *self.moved_at = self.now;
    }

    fn trailers(&mut self) {
        // Rare enough in requests not to be kept.
        self.replay.forget();
        *self.moved_at = self.now;
    }
}
