//! What is sent with a request, and how long an answer is asked for.

use bytes::{BufMut, Bytes, BytesMut};

use super::plan::Plan;
use crate::load::distribution::Sizes;
use crate::load::random::{Generator, Purpose, generator};

/// The payloads of one client, one after the other.
pub(super) struct Payload {
    sizes: Sizes,
    /// Whether each is a gRPC message.
    grpc: bool,
    random: Generator,
    /// The payload where all are the same.
    same: Option<Bytes>,
}

/// The sizes of the answers that one client asks for, one after the other.
pub(super) struct Asked {
    sizes: Sizes,
    random: Generator,
}

// === impl Payload ===

impl Payload {
    /// Those of client number `client`.
    pub(super) fn new(plan: &Plan, grpc: bool, client: usize) -> Self {
        let same = match (&plan.content, &plan.payload) {
            (Some(content), _) => Some(frame(content.len(), grpc, |to| to.put_slice(content))),
            (None, Sizes::Fixed(size)) => Some(filler(*size, grpc)),
            (None, _) => None,
        };
        Self {
            sizes: plan.payload.clone(),
            grpc,
            random: generator(plan.seed, Purpose::Payload, client),
            same,
        }
    }

    pub(super) fn next(&mut self) -> Bytes {
        match &self.same {
            Some(same) => same.clone(),
            None => filler(self.sizes.draw(&mut self.random), self.grpc),
        }
    }
}

/// So many bytes.
fn filler(size: usize, grpc: bool) -> Bytes {
    frame(size, grpc, |to| to.put_bytes(b'.', size))
}

/// What `put` puts, so many bytes; for gRPC after its framing: one byte "not compressed", four bytes length.
fn frame(size: usize, grpc: bool, put: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut payload = BytesMut::with_capacity(5 + size);
    if grpc {
        payload.put_u8(0);
        payload.put_u32(u32::try_from(size).unwrap_or(u32::MAX));
    }
    put(&mut payload);
    payload.freeze()
}

// === impl Asked ===

impl Asked {
    /// Those of client number `client`; `None`: it asks for none.
    pub(super) fn new(plan: &Plan, client: usize) -> Option<Self> {
        Some(Self {
            sizes: plan.response_size.clone()?,
            random: generator(plan.seed, Purpose::Answer, client),
        })
    }

    pub(super) fn next(&mut self) -> u64 {
        self.sizes.draw(&mut self.random) as u64
    }
}
