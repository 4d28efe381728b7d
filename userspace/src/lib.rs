//! evenkeel: a load balancer that measures pinning, and fixes it.
//!
//! Dependencies point downward only: `cli` -> `api` client; `daemon` -> {`datapath`, `l7`, `health`, `pinning`, `balance`};
//! `balance`, `health` and `pinning` know nobody.

pub mod api;
pub mod balance;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod datapath;
pub mod health;
pub mod l7;
pub mod load;
pub mod observe;
mod open_files;
pub mod pinning;
