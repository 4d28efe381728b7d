//! The part of evenkeel that runs in the kernel *and* on the host: types of the maps, and the pure logic
//! (headers, hashing, the HTTP/2 frame walker). `no_std`, no I/O, no clock: the same source is unit and property
//! tested on the host and compiled for BPF by `main.rs`.

#![cfg_attr(target_arch = "bpf", no_std)]

pub mod abi;
pub mod exchange;
pub mod http2;
pub mod packet;
pub mod select;
pub mod table;
pub mod watch;
