//! The data path against the running kernel, in private network namespaces: what survives a restart, what a clean end
//! leaves behind, what is refused.
//!
//! Needs root and the BPF program (`cargo xtask build`); without them every test here fails and says so.

mod answers;
mod attach;
mod lab;
mod observe;
mod refusal;
mod restart;
