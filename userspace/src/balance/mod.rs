//! Policies, pure: which backend takes the next flow ([`maglev`]) or the next stream ([`policy`]).
//!
//! Nothing here does I/O, reads a clock or draws random numbers: those are handed in, so that every promise can be
//! tested. Nothing here knows another part of evenkeel.

pub mod maglev;
pub mod policy;

pub use policy::{Balancer, Candidate, LeastRequest, P2c, Policy, RoundRobin};
