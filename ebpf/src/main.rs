//! The BPF programs of evenkeel: maps and entry points only; each concern has its own file.

#![cfg_attr(target_arch = "bpf", no_std)]
#![cfg_attr(target_arch = "bpf", no_main)]
#![cfg_attr(
    target_arch = "bpf",
    expect(unsafe_code, reason = "map values and packets are raw memory in BPF")
)]

#[cfg(not(target_arch = "bpf"))]
fn main() {
    eprintln!(
        "evenkeel-bpf runs in the kernel; `cargo xtask build` compiles it, `evenkeel run` loads it"
    );
}

#[cfg(target_arch = "bpf")]
mod maps;

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::bindings::{TC_ACT_UNSPEC, sk_action, xdp_action};
    use aya_ebpf::macros::{classifier, sk_lookup, xdp};
    use aya_ebpf::programs::{SkLookupContext, TcContext, XdpContext};

    #[xdp]
    pub fn ek_xdp(_context: XdpContext) -> u32 {
        xdp_action::XDP_PASS
    }

    /// Baseline of `cargo xtask bench datapath`.
    #[xdp]
    pub fn ek_xdp_pass(_context: XdpContext) -> u32 {
        xdp_action::XDP_PASS
    }

    #[classifier]
    pub fn ek_ingress(_context: TcContext) -> i32 {
        TC_ACT_UNSPEC
    }

    #[classifier]
    pub fn ek_egress(_context: TcContext) -> i32 {
        TC_ACT_UNSPEC
    }

    #[sk_lookup]
    pub fn ek_steer(_context: SkLookupContext) -> u32 {
        sk_action::SK_PASS
    }
}

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo) -> ! {
    // Unreachable code must stay visible to the verifier, which then refuses the program: `unreachable_unchecked`
    // would make failed checks vanish silently.
    loop {}
}

#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
