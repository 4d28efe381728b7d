//! The BPF programs of `evenkeel observe`: they watch what passes an interface and change nothing.
//!
//! An object of its own, so that `evenkeel run` neither loads these programs nor pays for their maps, and the other way
//! round. Nothing is pinned: all of it lasts as long as the observing process.

#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![cfg_attr(
    target_arch = "bpf",
    expect(unsafe_code, reason = "map values and packets are raw memory in BPF")
)]

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!(
        "evenkeel-watch-bpf runs in the kernel; `cargo xtask build` compiles it, `evenkeel observe` loads it"
    );
}

#[cfg(target_arch = "bpf")]
mod atomic;
#[cfg(target_arch = "bpf")]
mod chunk;
#[cfg(target_arch = "bpf")]
mod flows;
#[cfg(target_arch = "bpf")]
mod frames;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
#[path = "../raw.rs"]
mod raw;
#[cfg(target_arch = "bpf")]
mod skb;
#[cfg(target_arch = "bpf")]
mod streams;
#[cfg(target_arch = "bpf")]
mod walk;

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::bindings::TC_ACT_UNSPEC;
    use aya_ebpf::macros::classifier;
    use aya_ebpf::programs::TcContext;

    use crate::flows::{Way, watch};
    use crate::skb::Skb;

    /// What comes in; always passed on to whatever else is attached.
    #[classifier]
    pub fn ek_watch_in(context: TcContext) -> i32 {
        watch(&Skb(context), Way::In);
        TC_ACT_UNSPEC
    }

    /// What goes out; likewise.
    #[classifier]
    pub fn ek_watch_out(context: TcContext) -> i32 {
        watch(&Skb(context), Way::Out);
        TC_ACT_UNSPEC
    }
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // Unreachable code must stay visible to the verifier, which then refuses the program.
    loop {}
}

#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
