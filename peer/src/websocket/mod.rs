//! WebSocket sessions with state: a server that remembers them, clients that come back.
//!
//! A client connects to `/NUMBER`, the number of its session. The server's first message is `found NAME` if this very
//! process served the session before, else `new NAME`; from then on it knows the session. Every further message is
//! echoed.

pub mod clients;
mod cookies;
pub mod server;
