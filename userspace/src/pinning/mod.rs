//! Pinning, measured: how unevenly streams land on backends, and how even they could be.
//!
//! Pure: figures from counts ([`skew`]), what whole connections allow at best ([`bound`]) and
//! by chance ([`expected`]), the report built from them
//! ([`report`]), and the decision taken on them ([`auto`]).

pub mod auto;
pub mod bound;
pub mod expected;
pub mod report;
pub mod skew;

pub use report::{BackendShare, FlowShare, PinningReport, ServicePinning};
