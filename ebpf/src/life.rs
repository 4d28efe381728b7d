//! The life of a flow: SYN, established, FIN from both sides, RST, closed; told to both halves, counted once.
//!
//! A flow that began with a SYN is established when its client acknowledges something. One that was adopted has sent
//! nothing but what may have come out of the blue, so it is when its backend sends something that is no reset.
//!
//! `FLOWS` is the authority: whoever sets `CLOSED` there first counts it. The reply half carries a copy, because
//! the NAT port's next claimant looks only there.
//!
//! A flow closes with a RST of either side, or with the first ACK after both FINs. After that its entries still
//! translate (a last ACK may be sent again) until userspace deletes them or a SYN begins anew.

use evenkeel_ebpf::abi::{Flow, flag, state};
use evenkeel_ebpf::packet::tcp;

use crate::atomic;
use crate::count;

/// Either side's FIN.
const FINS: u8 = state::CLIENT_FIN | state::BACKEND_FIN;

/// The bits that a packet from the client sets.
#[inline(always)]
pub const fn by_client(flags: u8, present: u8) -> u8 {
    let bits = changes(flags, present, state::CLIENT_FIN);
    if present & state::SYN != 0 {
        bits | acknowledged(flags)
    } else {
        bits
    }
}

/// What it says that a client acknowledges something: somebody answered.
#[inline(always)]
pub const fn acknowledged(flags: u8) -> u8 {
    if flags & (tcp::ACK | tcp::RST | tcp::SYN) == tcp::ACK {
        state::ESTABLISHED
    } else {
        0
    }
}

/// The bits that a packet from the backend sets.
#[inline(always)]
pub const fn by_backend(flags: u8, present: u8) -> u8 {
    let bits = changes(flags, present, state::BACKEND_FIN);
    if present & (state::SYN | state::ESTABLISHED) == 0 && flags & tcp::RST == 0 {
        bits | state::ESTABLISHED
    } else {
        bits
    }
}

#[inline(always)]
const fn changes(flags: u8, present: u8, fin: u8) -> u8 {
    if flags & tcp::RST != 0 {
        state::RESET | state::CLOSED
    } else if flags & tcp::FIN != 0 {
        fin
    } else if flags & tcp::ACK != 0 && present & FINS == FINS {
        state::CLOSED
    } else {
        0
    }
}

/// The bits that a packet sets in a connection of the local proxy, whose last ACK may never be seen: both FINs close
/// it. `fin`: the sender's.
#[inline(always)]
pub const fn local(flags: u8, present: u8, fin: u8) -> u8 {
    let bits = changes(flags, present, fin);
    if (present | bits) & FINS == FINS {
        bits | state::CLOSED
    } else {
        bits
    }
}

/// Sets `bits` in a flow; true if that closed it.
///
/// # Safety
/// `flow` must be a live map value.
#[inline(always)]
pub unsafe fn set(flow: *mut Flow, bits: u8) -> bool {
    // SAFETY: as the caller promises.
    let before = unsafe { atomic::set_state(flow, bits) };
    bits & !before & state::CLOSED != 0
}

/// Sets `bits` in a flow, and counts it if that closed it.
///
/// # Safety
/// `flow` must be a live map value.
#[inline(always)]
pub unsafe fn advance(flow: *mut Flow, bits: u8) {
    // SAFETY: as the caller promises.
    if unsafe { !set(flow, bits) } {
        return;
    }
    // SAFETY: as the caller promises; these fields never change.
    let (service, backend, local) = unsafe {
        (
            u32::from((*flow).service),
            (*flow).backend,
            (*flow).flags & flag::LOCAL != 0,
        )
    };
    count::service(service, |c| c.flows_closed += 1);
    if !local {
        count::backend(backend, |c| c.flows_closed += 1);
    }
}
