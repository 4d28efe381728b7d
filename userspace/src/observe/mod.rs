//! What passes an interface, observed: which connections carry HTTP/2, who answers them, and how unevenly.
//!
//! Pure: [`Reading`]s of the kernel's tables go into a [`Tally`]; a [`Report`] is taken of it at any time, with the
//! verdict in words. It knows neither the kernel nor the terminal.
//!
//! # Words
//! A *peer* is the server of a connection, by address and port. Peers are compared within a *group*: those with the
//! same port and the same [`Relation`] to this host, as a service's replicas have. What a gateway or proxy receives is
//! thus not mixed with what it sends on, also where it only rewrites addresses. Peers that were [`Named`] are a group of
//! their own, whatever their ports and whatever they have to do with this host.
//!
//! # Before and since
//! Ids tell how many streams a connection opened since it was born; rates, shares and the verdict are about the time
//! of observation only. Streams from before are shown beside.

mod group;
mod histogram;
mod local;
mod named;
mod reading;
mod report;
mod tally;
mod verdict;

#[cfg(test)]
mod tests;

pub use histogram::{Bucket, Histogram, Latency};
pub use local::{Relation, local_addresses};
pub use named::Named;
pub use reading::{Carries, FlowId, FlowReading, PeerReading, Reading};
pub use report::{ConnectionReport, Event, GroupReport, OtherTraffic, PeerReport, Report, Scope};
pub use tally::Tally;
