//! The places where processors must agree: the state of a flow, so that it is counted as closed once; the front of the frame
//! walker, so that a stream counts once; and the slots and the index of the flow tables, so that a slot has one owner and a
//! key one slot.
//!
//! `core` has no atomics for this target, and its intrinsics make bitcode that the linker refuses: hence assembly
//! (BPF_ATOMIC with BPF_FETCH, Linux 5.12). BPF has atomics on words only, so each works on the eight bytes around
//! `state`.

use core::arch::asm;

use evenkeel_ebpf::table::Entry;

/// Sets bits of an entry's state and returns what was set before.
///
/// # Safety
/// `value` must be a live map value.
#[inline(always)]
pub unsafe fn set_state<V: Entry>(value: *mut V, bits: u8) -> u8 {
    // SAFETY: the word lies inside of the value and is aligned, as `Entry` promises.
    unsafe {
        let word = value.cast::<u8>().add(V::STATE_WORD).cast::<u64>();
        (fetch_or(word, u64::from(bits) << V::STATE_SHIFT) >> V::STATE_SHIFT) as u8
    }
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

/// Adds to a word and returns what it was.
///
/// # Safety
/// `word` must be an aligned word of a live map value.
#[inline(always)]
pub unsafe fn fetch_add(word: *mut u64, more: u64) -> u64 {
    let mut value = more;
    // SAFETY: as the caller promises; the instruction touches nothing else.
    unsafe {
        asm!(
            "{value} = atomic_fetch_add((u64 *)({word} + 0), {value})",
            word = in(reg) word,
            value = inout(reg) value,
        );
    }
    value
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
