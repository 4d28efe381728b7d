//! Where a packet goes next: `bpf_fib_lookup`, remembered for one tick.
//!
//! The lookup costs about half of the whole per-packet budget, and its answer changes by the second at most.
//! A remembered next hop is therefore wrong for at most one tick after a route or neighbour changed.

use aya_ebpf::bindings::{
    BPF_FIB_LKUP_RET_BLACKHOLE, BPF_FIB_LKUP_RET_FWD_DISABLED, BPF_FIB_LKUP_RET_NO_NEIGH,
    BPF_FIB_LKUP_RET_PROHIBIT, BPF_FIB_LKUP_RET_SUCCESS, BPF_FIB_LKUP_RET_UNREACHABLE,
};
use evenkeel_ebpf::abi::{Event, NextHop, PROTOCOL_TCP, XDP_TAKES};
use evenkeel_ebpf::packet::{Complaint, Packet};

use crate::count;
use crate::frame::{Frame, Refused, Rewrite, Verdict};
use crate::maps::{ROUTE, XDP_PORTS};

/// `AF_INET`.
const AF_INET: u8 = 2;

/// The length that a route is asked for, which every route takes. Only where there is one does TC learn the route's own MTU
/// (a locked one, or one that path MTU discovery found); else that of the interface. XDP learns it in any case.
const ASKED_LENGTH: u16 = 1;

/// What the routing table says.
pub enum Route {
    /// The next hop is filled in.
    Ready,
    /// The neighbour's link-layer address is unknown.
    Unresolved {
        interface: u32,
        gateway: u32,
        mtu: u32,
    },
    /// There is no way.
    None,
    /// IP forwarding is disabled on the interface that the packet came in on.
    Disabled,
    /// The destination is on this host, or reached in a way that only the stack knows.
    Stack,
}

/// Fills `hop` for packets from `source` to `destination`, unless it was filled in this `tick`.
#[inline(always)]
pub fn find<F: Frame>(
    frame: &F,
    hop: &mut NextHop,
    source: u32,
    destination: u32,
    tick: u32,
) -> Route {
    if hop.tick == tick {
        return Route::Ready;
    }
    let Some(ask) = ROUTE.get_ptr_mut(0) else {
        return Route::Stack;
    };
    // SAFETY: this processor's only value, and nothing else of ours runs on it meanwhile; plain integers, for which zero is
    // a value.
    let ask = unsafe {
        ask.write(core::mem::zeroed());
        &mut *ask
    };
    ask.family = AF_INET;
    ask.l4_protocol = PROTOCOL_TCP;
    ask.__bindgen_anon_1.tot_len = ASKED_LENGTH;
    ask.ifindex = frame.interface();
    ask.__bindgen_anon_3.ipv4_src = source;
    ask.__bindgen_anon_4.ipv4_dst = destination;
    let answer = frame.fib_lookup(ask) as u32;
    // SAFETY: an integer either way. The kernel reports the MTU (since 5.13, e1850ea9bd9e) in the place of the length that
    // it was asked with, or leaves that, as where the neighbour is unknown.
    let mtu = match unsafe { ask.__bindgen_anon_1.mtu_result } {
        0 | ASKED_LENGTH => u32::MAX,
        mtu => u32::from(mtu),
    };
    match answer {
        BPF_FIB_LKUP_RET_SUCCESS => {
            *hop = NextHop {
                tick,
                mtu,
                interface: ask.ifindex | takes_xdp(ask.ifindex),
                destination: ask.dmac,
                source: ask.smac,
            };
            Route::Ready
        }
        BPF_FIB_LKUP_RET_NO_NEIGH => Route::Unresolved {
            interface: ask.ifindex,
            // SAFETY: an integer; the kernel put the gateway here.
            gateway: unsafe { ask.__bindgen_anon_4.ipv4_dst },
            mtu,
        },
        BPF_FIB_LKUP_RET_BLACKHOLE | BPF_FIB_LKUP_RET_UNREACHABLE | BPF_FIB_LKUP_RET_PROHIBIT => {
            Route::None
        }
        BPF_FIB_LKUP_RET_FWD_DISABLED => Route::Disabled,
        _ => Route::Stack,
    }
}

/// [`XDP_TAKES`] if the interface takes frames from XDP.
#[inline(always)]
fn takes_xdp(interface: u32) -> u32 {
    if XDP_PORTS.get_ptr(&interface).is_some() {
        XDP_TAKES
    } else {
        0
    }
}

/// Sends a packet by the interface of `hop`.
#[inline(always)]
pub fn send<F: Frame>(frame: &F, hop: &NextHop) -> Verdict {
    frame.send(hop.interface & !XDP_TAKES)
}

/// How a packet that this hook finishes leaves.
#[derive(Clone, Copy)]
pub enum Ready {
    /// With the next hop's addresses.
    Direct,
    /// Through the neighbour table.
    Neighbour { interface: u32, gateway: u32 },
}

/// Whether XDP can send to the next hop: back to where the packet came from, or by an interface that takes its frames.
#[inline(always)]
fn takes<F: Frame>(frame: &F, hop: &NextHop) -> bool {
    hop.interface & XDP_TAKES != 0 || hop.interface == frame.interface()
}

/// Decides on a route: how the packet leaves, or what becomes of it instead.
#[inline(always)]
pub fn decide<F: Frame>(
    frame: &F,
    packet: &Packet,
    hop: &NextHop,
    route: &Route,
) -> Result<Ready, Verdict> {
    let (ready, mtu) = match *route {
        Route::Ready if !F::LAST && !takes(frame, hop) => {
            count::event(Event::PassNotByXdp);
            return Err(Verdict::Pass);
        }
        Route::Ready => (Ready::Direct, hop.mtu),
        Route::Unresolved {
            interface,
            gateway,
            mtu,
        } if F::LAST => (Ready::Neighbour { interface, gateway }, mtu),
        Route::Unresolved { .. } => {
            count::event(Event::PassNoNeighbour);
            return Err(Verdict::Pass);
        }
        _ if !F::LAST => return Err(Verdict::Pass),
        Route::Disabled => {
            count::event(Event::PassForwardingDisabled);
            return Err(Verdict::Pass);
        }
        Route::None | Route::Stack => return Err(count::drop(Event::DropNoRoute)),
    };
    if frame.largest(packet) > mtu {
        return Err(frame.refuse(Event::DropTooBig, Complaint::too_big(mtu)));
    }
    if packet.time_to_live <= 1 {
        return Err(frame.refuse(Event::DropTtlExpired, Complaint::time_exceeded()));
    }
    Ok(ready)
}

/// Rewrites the packet and sends it on.
#[inline(always)]
pub fn transmit<F: Frame>(
    frame: &F,
    packet: &Packet,
    rewrite: &Rewrite,
    hop: &NextHop,
    ready: Ready,
) -> Verdict {
    match ready {
        Ready::Direct => match frame.rewrite(packet, rewrite, Some(hop)) {
            Ok(()) => send(frame, hop),
            Err(Refused) => count::drop(Event::DropRewriteFailed),
        },
        Ready::Neighbour { interface, gateway } => match frame.rewrite(packet, rewrite, None) {
            Ok(()) => frame.send_to_neighbour(interface, gateway),
            Err(Refused) => count::drop(Event::DropRewriteFailed),
        },
    }
}
