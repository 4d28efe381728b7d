//! Content that came while there was no capacity to send what came before it.
//!
//! `h2` keeps a record for each DATA frame that nobody has taken, and charges those below 256 bytes to a budget of the whole
//! connection: a few slow streams of small messages, all within their windows, would end it with ENHANCE_YOUR_CALM for all.
//! So frames are taken as they come, and small ones are joined. It holds no more than the stream's window, which opens again
//! only for what was sent.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Chunks below this are joined: what `h2` takes for small.
const SMALL: usize = 256;

/// What waits, in order.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    chunks: VecDeque<Bytes>,
    /// Small chunks, behind the others.
    joined: BytesMut,
}

// === impl Backlog ===

impl Backlog {
    /// Adds what came next.
    pub(super) fn push(&mut self, chunk: Bytes) {
        if chunk.len() < SMALL {
            self.joined.extend_from_slice(&chunk);
            return;
        }
        if !self.joined.is_empty() {
            self.chunks.push_back(self.joined.split().freeze());
        }
        self.chunks.push_back(chunk);
    }

    /// Takes what came first.
    pub(super) fn pop(&mut self) -> Option<Bytes> {
        let joined = &mut self.joined;
        self.chunks
            .pop_front()
            .or_else(|| (!joined.is_empty()).then(|| joined.split().freeze()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_chunks_take_no_place_each() {
        let mut backlog = Backlog::default();
        for _ in 0..1_000 {
            backlog.push(Bytes::from_static(&[7; 20]));
        }
        assert_eq!(backlog.pop().map(|chunk| chunk.len()), Some(20_000));
        assert_eq!(backlog.pop(), None);
    }

    proptest! {
        #[test]
        fn what_comes_in_goes_out_in_order(sizes in prop::collection::vec(1usize..600, 0..40), every in 1usize..9) {
            let mut backlog = Backlog::default();
            let (mut came, mut went) = (Vec::new(), Vec::new());
            for (round, size) in sizes.into_iter().enumerate() {
                let chunk = vec![round as u8; size];
                came.extend_from_slice(&chunk);
                backlog.push(chunk.into());
                if round % every == 0 {
                    went.extend(backlog.pop().into_iter().flatten());
                }
            }
            while let Some(chunk) = backlog.pop() {
                went.extend(chunk);
            }
            prop_assert_eq!(came, went);
        }
    }
}
