//! The BPF programs of evenkeel: maps and entry points only; each concern has its own file.

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
        "evenkeel-bpf runs in the kernel; `cargo xtask build` compiles it, `evenkeel run` loads it"
    );
}

#[cfg(target_arch = "bpf")]
mod again;
#[cfg(target_arch = "bpf")]
mod answer;
#[cfg(target_arch = "bpf")]
mod atomic;
#[cfg(target_arch = "bpf")]
mod choose;
#[cfg(target_arch = "bpf")]
mod clock;
#[cfg(target_arch = "bpf")]
mod count;
#[cfg(target_arch = "bpf")]
mod expire;
#[cfg(target_arch = "bpf")]
mod filter;
#[cfg(target_arch = "bpf")]
mod floor;
#[cfg(target_arch = "bpf")]
mod flow_table;
#[cfg(target_arch = "bpf")]
mod forward;
#[cfg(target_arch = "bpf")]
mod fragment;
#[cfg(target_arch = "bpf")]
mod frame;
#[cfg(target_arch = "bpf")]
mod halves;
#[cfg(target_arch = "bpf")]
mod icmp;
#[cfg(target_arch = "bpf")]
mod life;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod nat;
#[cfg(target_arch = "bpf")]
mod next_hop;
#[cfg(target_arch = "bpf")]
mod observe;
#[cfg(target_arch = "bpf")]
mod open;
#[cfg(target_arch = "bpf")]
mod pair;
#[cfg(target_arch = "bpf")]
mod raw;
#[cfg(target_arch = "bpf")]
mod reply;
#[cfg(target_arch = "bpf")]
mod service;
#[cfg(target_arch = "bpf")]
mod steer;
#[cfg(target_arch = "bpf")]
mod tc;
#[cfg(target_arch = "bpf")]
mod walker;
#[cfg(target_arch = "bpf")]
mod xdp;

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::bindings::{TC_ACT_SHOT, TC_ACT_UNSPEC, sk_action, xdp_action};
    use aya_ebpf::macros::{classifier, sk_lookup, xdp};
    use aya_ebpf::programs::{SkLookupContext, TcContext, XdpContext};
    use evenkeel_ebpf::packet::{Parsed, parse};

    use crate::clock;
    use crate::expire::expire;
    use crate::filter;
    use crate::floor::floor;
    use crate::forward::forward;
    use crate::fragment::fragment;
    use crate::frame::{Frame, Verdict};
    use crate::observe::egress;
    use crate::reply::reply;
    use crate::steer::steer;
    use crate::tc::TcFrame;
    use crate::xdp::XdpFrame;

    /// The fast path, where the network driver has one.
    #[xdp]
    #[inline(always)]
    pub fn ek_xdp(context: XdpContext) -> u32 {
        match ingress(&XdpFrame(context)) {
            Verdict::Pass => xdp_action::XDP_PASS,
            Verdict::Drop => xdp_action::XDP_DROP,
            Verdict::Sent(action) => action,
        }
    }

    /// Baseline of `cargo xtask bench datapath`.
    #[xdp]
    pub fn ek_xdp_pass(_context: XdpContext) -> u32 {
        xdp_action::XDP_PASS
    }

    /// Never attached: userspace runs it, see [`clock`].
    #[xdp]
    pub fn ek_clock(_context: XdpContext) -> u32 {
        clock::calibrate();
        xdp_action::XDP_PASS
    }

    /// Never attached: userspace runs it, see [`crate::expire`].
    #[xdp]
    pub fn ek_expire(context: XdpContext) -> u32 {
        expire(&context);
        xdp_action::XDP_PASS
    }

    /// Another baseline of it.
    #[xdp]
    pub fn ek_xdp_floor(context: XdpContext) -> u32 {
        let frame = XdpFrame(context);
        if let Parsed::Tcp(packet) = parse(&frame, frame.length()) {
            floor(&packet);
        }
        xdp_action::XDP_PASS
    }

    /// The whole path; after XDP, what XDP could not finish.
    #[classifier]
    #[inline(always)]
    pub fn ek_ingress(context: TcContext) -> i32 {
        let frame = TcFrame(context);
        if frame.is_tagged() {
            return TC_ACT_UNSPEC;
        }
        match ingress(&frame) {
            Verdict::Pass => TC_ACT_UNSPEC,
            Verdict::Drop => TC_ACT_SHOT,
            Verdict::Sent(action) => action as i32,
        }
    }

    /// Watches what the local proxy sends.
    #[classifier]
    pub fn ek_egress(context: TcContext) -> i32 {
        egress(&TcFrame(context));
        TC_ACT_UNSPEC
    }

    /// Hands connections at `l7` to the local proxy.
    #[sk_lookup]
    pub fn ek_steer(context: SkLookupContext) -> u32 {
        steer(&context);
        sk_action::SK_PASS
    }

    /// The order of things for a received packet, whichever hook saw it.
    #[inline(always)]
    fn ingress<F: Frame>(frame: &F) -> Verdict {
        let packet = match parse(frame, frame.length()) {
            Parsed::Tcp(packet) => packet,
            Parsed::Icmp(at) => return frame.icmp(at),
            Parsed::Fragment(tuple) if F::LAST => return fragment(&tuple),
            Parsed::Fragment(_) | Parsed::Other => return Verdict::Pass,
        };
        let tuple = &packet.tuple;
        if filter::maybe_service(&tuple.destination, tuple.destination_port)
            && let Some(verdict) = forward(frame, &packet)
        {
            return verdict;
        }
        if filter::maybe_backend(&tuple.source, tuple.source_port)
            && let Some(verdict) = reply(frame, &packet)
        {
            return verdict;
        }
        Verdict::Pass
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
