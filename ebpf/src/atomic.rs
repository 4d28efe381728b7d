//! The places where processors must agree: the state of a flow, so that it is counted as closed once; the owner of a
//! closed NAT port, so that it is taken over once; and the front of the frame walker, so that a stream counts once.
//!
//! `core` has no atomics for this target, and its intrinsics make bitcode that the linker refuses: hence assembly
//! (BPF_ATOMIC with BPF_FETCH, Linux 5.12). BPF has atomics on words only, so each works on the eight bytes around
//! `state`.

use core::arch::asm;
use core::mem::offset_of;

use evenkeel_ebpf::abi::{Flow, Reply};

const FLOW_WORD: usize = 8;
const FLOW_STATE_SHIFT: u32 = 32;
const REPLY_WORD: usize = 16;
const REPLY_STATE_SHIFT: u32 = 16;
const REPLY_BACKEND_SHIFT: u32 = 32;
const _: () = {
    assert!(align_of::<Flow>() == 8 && align_of::<Reply>() == 8);
    assert!(offset_of!(Flow, state) == FLOW_WORD + FLOW_STATE_SHIFT as usize / 8);
    assert!(offset_of!(Reply, client_port) == REPLY_WORD);
    assert!(offset_of!(Reply, state) == REPLY_WORD + REPLY_STATE_SHIFT as usize / 8);
    assert!(offset_of!(Reply, backend) == REPLY_WORD + REPLY_BACKEND_SHIFT as usize / 8);
};

/// Sets bits of a flow's state and returns what was set before.
///
/// # Safety
/// `flow` must be a live map value.
#[inline(always)]
pub unsafe fn set_flow_state(flow: *mut Flow, bits: u8) -> u8 {
    // SAFETY: the word lies inside the value and is aligned (both asserted above).
    unsafe {
        let word = flow.cast::<u8>().add(FLOW_WORD).cast::<u64>();
        (fetch_or(word, u64::from(bits) << FLOW_STATE_SHIFT) >> FLOW_STATE_SHIFT) as u8
    }
}

/// Sets bits of a reply's state.
///
/// # Safety
/// `reply` must be a live map value.
#[inline(always)]
pub unsafe fn set_reply_state(reply: *mut Reply, bits: u8) {
    // SAFETY: as the caller promises; `owner` points to an aligned word of the value.
    unsafe { fetch_or(owner(reply), u64::from(bits) << REPLY_STATE_SHIFT) };
}

/// The word of a reply that says whose it is and in which state.
///
/// # Safety
/// `reply` must be a live map value.
#[inline(always)]
pub unsafe fn owner(reply: *mut Reply) -> *mut u64 {
    // SAFETY: the word lies inside the value (asserted above).
    unsafe { reply.cast::<u8>().add(REPLY_WORD).cast::<u64>() }
}

/// The state in such a word.
#[inline(always)]
pub const fn state_of_owner(word: u64) -> u8 {
    (word >> REPLY_STATE_SHIFT) as u8
}

/// Such a word.
#[inline(always)]
pub const fn owner_word(reply: &Reply) -> u64 {
    reply.client_port as u64
        | (reply.state as u64) << REPLY_STATE_SHIFT
        | (reply.backend as u64) << REPLY_BACKEND_SHIFT
}

/// Replaces `old` by `new`; false if the word was no longer `old`.
///
/// # Safety
/// `word` must be an aligned word of a live map value.
#[inline(always)]
pub unsafe fn compare_exchange(word: *mut u64, old: u64, new: u64) -> bool {
    let found: u64;
    // SAFETY: an aligned word of a live map value; the instruction touches nothing else.
    unsafe {
        asm!(
            "r0 = cmpxchg_64({word} + 0, r0, {new})",
            word = in(reg) word,
            new = in(reg) new,
            inout("r0") old => found,
        );
    }
    found == old
}

/// Puts `new` in place of a word, after everything that was written before.
///
/// # Safety
/// `word` must be an aligned word of a live map value.
#[inline(always)]
pub unsafe fn exchange(word: *mut u64, new: u64) {
    // SAFETY: as the caller promises; the instruction touches nothing else. What it returns is of no use here, but
    // without BPF_FETCH there would be no exchange, and with it it orders all that was written before.
    unsafe {
        asm!(
            "{value} = xchg_64({word} + 0, {value})",
            word = in(reg) word,
            value = inout(reg) new => _,
        );
    }
}

/// Sets bits of a word and returns what it was.
///
/// # Safety
/// `word` must be an aligned word of a live map value.
#[inline(always)]
unsafe fn fetch_or(word: *mut u64, bits: u64) -> u64 {
    let mut value = bits;
    // SAFETY: as the caller promises; the instruction touches nothing else.
    unsafe {
        asm!(
            "{value} = atomic_fetch_or((u64 *)({word} + 0), {value})",
            word = in(reg) word,
            value = inout(reg) value,
        );
    }
    value
}
