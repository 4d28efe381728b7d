//! What is sent with a request.

use bytes::{BufMut, Bytes, BytesMut};

use crate::load::distribution::Sizes;
use crate::load::random::Generator;

/// The payloads of one client, one after the other.
pub(super) struct Payload {
    sizes: Sizes,
    /// Whether each is a gRPC message.
    grpc: bool,
    random: Generator,
    /// The payload where all are the same.
    same: Option<Bytes>,
}

impl Payload {
    pub(super) fn new(sizes: &Sizes, grpc: bool, random: Generator) -> Self {
        let same = match sizes {
            Sizes::Fixed(size) => Some(build(*size, grpc)),
            _ => None,
        };
        Self {
            sizes: sizes.clone(),
            grpc,
            random,
            same,
        }
    }

    pub(super) fn next(&mut self) -> Bytes {
        match &self.same {
            Some(same) => same.clone(),
            None => build(self.sizes.draw(&mut self.random), self.grpc),
        }
    }
}

/// So many bytes; for gRPC after its framing: one byte "not compressed", four bytes length.
fn build(size: usize, grpc: bool) -> Bytes {
    let mut payload = BytesMut::with_capacity(5 + size);
    if grpc {
        payload.put_u8(0);
        payload.put_u32(u32::try_from(size).unwrap_or(u32::MAX));
    }
    payload.put_bytes(b'.', size);
    payload.freeze()
}
