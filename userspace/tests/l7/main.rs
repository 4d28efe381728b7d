//! The L7 path with real sockets on loopback: what goes in at one end comes out at the other, exactly.
//!
//! No test reads the clock; the only timeouts are there to end a test that hangs.

mod drain;
mod flow;
mod forward;
mod frames;
mod http1;
mod limits;
mod placing;
mod reach;
mod retry;
mod shared;
mod support;
