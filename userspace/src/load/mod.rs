//! The demo backend ([`echo`]) and the load driver ([`driver`]).
//!
//! Both speak HTTP/2 with prior knowledge, gRPC on top of it, and HTTP/1.1. They exist to give ground truth: what
//! the client sent and what the backends served are counted here, exactly, so that the figures of the kernel can be
//! held against them. Each thread of theirs has a runtime of its own: nothing is shared for each request, and no noise
//! comes from work stealing.

pub mod arrival;
pub mod distribution;
pub mod driver;
pub mod echo;
mod random;
mod timer;
mod warm;
mod wire;

#[cfg(test)]
mod tests;

pub use random::fresh_seed;

/// Response header that names the backend that served a request; the load driver counts by it.
pub const BACKEND_HEADER: &str = "evenkeel-backend";
/// Response header in which an echo backend that takes its time says how long it had the request, in nanoseconds: from when
/// its head had arrived ([`arrival`]) until it began to answer. What a client measures beyond that is the way there and back,
/// and itself.
pub const TOOK_HEADER: &str = "evenkeel-took-ns";
/// gRPC method that answers one message with the same message.
pub const GRPC_UNARY: &str = "/evenkeel.Echo/Unary";
/// gRPC method that answers every message of a stream as it arrives.
pub const GRPC_STREAM: &str = "/evenkeel.Echo/Stream";
/// Where an echo backend tells its counts, over HTTP/1.1 and uncounted.
pub const STATS_PATH: &str = "/evenkeel/stats";
/// Request header that asks an echo backend for an answer of so many bytes (gRPC: a message of so many).
pub const RESPONSE_SIZE_HEADER: &str = "evenkeel-response-size";

/// A value on the command line that cannot be read; holds what is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("allowed: {0}")]
pub struct Malformed(pub &'static str);
