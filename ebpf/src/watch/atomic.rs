//! What several processors change at once. `core` has no atomics for this target: hence assembly, as in the data path.

use core::arch::asm;

/// Adds to a word that others add to, too.
///
/// # Safety
/// `word` must be an aligned word of a live map value.
#[inline(always)]
pub unsafe fn add(word: *mut u64, value: u64) {
    // SAFETY: as the caller promises; the instruction touches nothing else.
    unsafe {
        asm!(
            "lock *(u64 *)({word} + 0) += {value}",
            word = in(reg) word,
            value = in(reg) value,
        );
    }
}

/// Adds and returns what was there before (Linux 5.12).
///
/// # Safety
/// As [`add`].
#[inline(always)]
pub unsafe fn fetch_add(word: *mut u64, value: u64) -> u64 {
    let mut value = value;
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

/// Replaces a word and returns what was there before (Linux 5.12).
///
/// # Safety
/// As [`add`].
#[inline(always)]
pub unsafe fn exchange(word: *mut u64, value: u64) -> u64 {
    let mut value = value;
    // SAFETY: as the caller promises; the instruction touches nothing else.
    unsafe {
        asm!(
            "{value} = xchg_64({word} + 0, {value})",
            word = in(reg) word,
            value = inout(reg) value,
        );
    }
    value
}
