//! Pinning, measured: how unevenly streams land on backends, and how even they could be.
//!
//! Pure: figures from counts ([`skew`]), and the report built from them ([`report`]).

pub mod report;
pub mod skew;

pub use report::{BackendShare, FlowShare, PinningReport, ServicePinning};
