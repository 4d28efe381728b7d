//! The demo backend ([`echo`]) and the load driver ([`driver`]).
//!
//! Both speak HTTP/2 with prior knowledge, gRPC on top of it, and HTTP/1.1. They exist to give ground truth: what
//! the client sent and what the backends served are counted here, exactly, so that the figures of the kernel can be
//! held against them. Both run on one current-thread runtime: one core, no locks, and no noise from work stealing.

pub mod driver;
pub mod echo;
mod wire;

#[cfg(test)]
mod tests;

/// Response header that names the backend that served a request; the load driver counts by it.
pub const BACKEND_HEADER: &str = "evenkeel-backend";
/// gRPC method that answers one message with the same message.
pub const GRPC_UNARY: &str = "/evenkeel.Echo/Unary";
/// gRPC method that answers every message of a stream as it arrives.
pub const GRPC_STREAM: &str = "/evenkeel.Echo/Stream";
/// Where an echo backend tells its counts, over HTTP/1.1 and uncounted.
pub const STATS_PATH: &str = "/evenkeel/stats";
