//! Packet memory: reading it so that the verifier agrees. Shared by all BPF programs.

/// Reads `N` bytes at `from` in as few and as wide loads as possible.
///
/// # Safety
/// `from..from + N` must be readable memory that the verifier has seen checked.
#[inline(always)]
pub unsafe fn read<const N: usize>(from: *const u8) -> [u8; N] {
    #[repr(C, align(8))]
    struct Aligned<const N: usize>([u8; N]);
    let mut out = Aligned([0; N]);
    let to = out.0.as_mut_ptr();
    let mut at = 0;
    // SAFETY: all accesses are within `N` bytes of both pointers. Packet memory need not be aligned in BPF: the
    // verifier refuses a program with such loads on machines that cannot do them, and the code generator makes byte
    // loads (eight instructions for one) of anything that is not declared aligned.
    unsafe {
        while at + 8 <= N {
            to.add(at)
                .cast::<u64>()
                .write(from.add(at).cast::<u64>().read());
            at += 8;
        }
        if at + 4 <= N {
            to.add(at)
                .cast::<u32>()
                .write(from.add(at).cast::<u32>().read());
            at += 4;
        }
        if at + 2 <= N {
            to.add(at)
                .cast::<u16>()
                .write(from.add(at).cast::<u16>().read());
            at += 2;
        }
        if at < N {
            to.add(at).write(from.add(at).read());
        }
    }
    out.0
}

/// The highest offset that direct access tries; `MAX_PACKET_OFF` of the kernel's verifier.
const MAX_OFFSET: u32 = 0xffff;

/// `N` bytes at `offset` of the linear part of a packet.
#[inline(always)]
pub fn load<const N: usize>(data: usize, end: usize, offset: u32) -> Option<[u8; N]> {
    // In one register from the comparison to the sum: older verifiers (6.1) forget the bounds of a value that is
    // reloaded from the stack in between.
    let offset = opaque(offset as usize);
    if offset > MAX_OFFSET as usize - N {
        return None;
    }
    let from = data + offset;
    // `from + 1 > end` would become `from >= end`, from which the verifier learns nothing.
    let behind = if N == 1 { opaque(from + N) } else { from + N };
    if behind > end {
        return None;
    }
    // SAFETY: `from + N` was just compared with the packet's end.
    Some(unsafe { read::<N>(from as *const u8) })
}

/// `value`, of which the compiler must forget what it knows. It would else drop a comparison with the packet's end
/// that follows from another one, and the verifier, which does not see that it follows, would refuse the access.
#[inline(always)]
pub fn opaque(value: usize) -> usize {
    let mut value = value;
    // SAFETY: a move to itself; without any instruction two line records of BTF would share one, which the kernel
    // refuses.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) value, options(nomem, nostack)) };
    value
}
