//! The L7 path: HTTP/2 streams, and HTTP/1.1 requests, each balanced on its own.
//!
//! ```text
//! listener -> detect -+-> downstream (h2) -> exchange, one for each stream -> upstream pool -> backend
//!                     +-> http1 (hyper)   -> http1 idle pool                              -> backend
//! ```
//!
//! - A [`worker`] is a thread with its own runtime, listeners (SO_REUSEPORT), connections and pools; a connection's
//!   streams never leave it. Workers share the [`table`] of services and the load of each backend.
//! - An HTTP/2 connection is one task that polls its [`streams`]; each is an [`exchange`] that chooses a backend, moves
//!   content both ways with a [`pump`], and forwards resets, trailers and interim responses exactly.
//! - Below every `h2` connection lies [`io`], which turns many small writes into few large ones, and shows what clients
//!   send to the [`guard`] against floods.
//! - [`limits`] holds every limit, [`respond`] every failure that a client can be told of, [`stats`] every figure.

pub mod detect;
mod downstream;
mod exchange;
pub mod guard;
mod http1;
mod io;
pub mod limits;
mod listener;
mod proxy;
mod pump;
mod registry;
mod replay;
pub mod respond;
pub mod stats;
mod streams;
pub mod table;
mod upstream;
mod worker;

pub use self::limits::Limits;
pub use self::proxy::{Proxy, ProxyError};
pub use self::stats::{BackendStats, ProxyStats, ServiceStats};
pub use self::table::{BackendSpec, ServiceSpec};
pub use crate::balance::Policy;
