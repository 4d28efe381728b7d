//! What the balancer itself says of a packet that it cannot send on: the packet is turned into an ICMP error about itself
//! and goes back to where it came from. Without it a sender never learns of a narrow link behind the balancer (path MTU
//! discovery, RFC 1191), and its connection hangs once it sends more than fits.
//!
//! TC only: such packets are rare, and XDP leaves them to it. One answer for a packet, mostly a smaller
//! one (82 bytes without options; of what is too big always): a third host could not be flooded with it any better than with
//! the SYN-ACKs of any server.

use aya_ebpf::bindings::{__sk_buff, BPF_F_RECOMPUTE_CSUM, bpf_adj_room_mode, bpf_fib_lookup};
use aya_ebpf::helpers::generated::{
    bpf_l4_csum_replace, bpf_skb_adjust_room, bpf_skb_change_tail, bpf_skb_store_bytes,
};
use aya_ebpf::programs::TcContext;
use evenkeel_ebpf::packet::{
    ANSWER_LENGTH, Bytes, Change, Complaint, ETHERNET_LENGTH, Ipv4, TCP_CHECKSUM, TCP_LENGTH,
};

use crate::frame::{Frame, Verdict, load};
use crate::maps::ROUTE;
use crate::tc::TcFrame;

/// Not answered.
pub const SILENT: u32 = 0;

/// Turns the packet into an answer to its sender and sends that; the action, or [`SILENT`].
///
/// A global function, as the phases of the walker are: checked once, whatever leads here.
#[unsafe(no_mangle)]
pub extern "C" fn ek_tc_answer(context: *mut __sk_buff, complaint: u32) -> u32 {
    let frame = TcFrame(TcContext::new(context));
    match answer(&frame, Complaint(complaint)) {
        Some(Verdict::Sent(action)) => action,
        _ => SILENT,
    }
}

#[inline(always)]
fn answer(frame: &TcFrame, complaint: Complaint) -> Option<Verdict> {
    let ip = Ipv4::parse(&Linear(frame), ETHERNET_LENGTH)?;
    if to_group(frame)? || !complaint.may_answer(&ip) {
        return None;
    }
    let transport = ETHERNET_LENGTH + ip.header;
    let quoted = transport + TCP_LENGTH;
    frame.0.pull_data(quoted).ok()?;
    let headers = scratch()?;
    let skb = frame.0.skb.skb;
    let room = bpf_adj_room_mode::BPF_ADJ_ROOM_MAC;
    let recompute = u64::from(BPF_F_RECOMPUTE_CSUM);
    // SAFETY: `headers` is this processor's, and as long as written and stated. The helpers check lengths and offsets
    // of the packet themselves.
    unsafe {
        headers.write(complaint.headers(&ip, sum(frame, transport)?));
        let failed = bpf_skb_change_tail(skb, quoted, 0) != 0
            || bpf_skb_adjust_room(skb, ANSWER_LENGTH as i32, room, 0) != 0
            || bpf_skb_store_bytes(
                skb,
                ETHERNET_LENGTH,
                headers.cast_const().cast(),
                ANSWER_LENGTH,
                recompute,
            ) != 0;
        if failed {
            return None;
        }
    }
    turn_round(frame)?;
    Some(frame.send(frame.interface()))
}

/// The linear part of a frame, which holds the headers once they were pulled there. To ask for bytes wherever they lie takes
/// more stack than is left of the 512 bytes that the chain of calls has.
struct Linear<'a>(&'a TcFrame);

impl Bytes for Linear<'_> {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        load::<N>(self.0.0.data(), self.0.0.data_end(), offset)
    }
}

/// Where the headers are put together: memory of this processor that [`crate::next_hop`] is done with.
#[inline(always)]
fn scratch() -> Option<*mut [u32; 7]> {
    const { assert!(size_of::<[u32; 7]>() <= size_of::<bpf_fib_lookup>()) };
    ROUTE.get_ptr_mut(0).map(<*mut bpf_fib_lookup>::cast)
}

/// True if the frame was sent to a group of link-layer addresses: nobody answers such (RFC 1122 section 3.2.2).
#[inline(always)]
fn to_group(frame: &TcFrame) -> Option<bool> {
    let [first] = Linear(frame).load::<1>(0)?;
    Some(first & 1 != 0)
}

/// Swaps the Ethernet addresses.
#[inline(always)]
fn turn_round(frame: &TcFrame) -> Option<()> {
    let data = frame.0.data();
    if data + ETHERNET_LENGTH as usize > frame.0.data_end() {
        return None;
    }
    let half = data as *mut u16;
    for i in 0..3 {
        // SAFETY: both addresses lie before the packet's end, as just compared.
        unsafe {
            let to = half.add(i).read();
            half.add(i).write(half.add(i + 3).read());
            half.add(i + 3).write(to);
        }
    }
    Some(())
}

/// The sum of the first 20 bytes at `transport`, as it will be on the wire.
///
/// Where the checksum is left to the device (`CHECKSUM_PARTIAL`), the field holds the sum `p` of the pseudo header, and the
/// device makes it `!(p + rest)`: the 20 bytes, all that is left of the segment, then sum to `!p`. Which of both it is a
/// program is not told; but the helper that follows a change of a port leaves such a field alone.
#[inline(always)]
fn sum(frame: &TcFrame, transport: u32) -> Option<Change> {
    let at = transport.wrapping_add(TCP_CHECKSUM);
    let skb = frame.0.skb.skb;
    let before = Linear(frame).load::<2>(at)?;
    // SAFETY: a helper on the program's own context; it checks the offset itself.
    if unsafe { bpf_l4_csum_replace(skb, at, 0, 1, 0) } != 0 {
        return None;
    }
    if Linear(frame).load::<2>(at)? == before {
        return Some(Change::NONE.half(!0, !u16::from_ne_bytes(before)));
    }
    // Back to what it was: one less in one's complement.
    // SAFETY: as above.
    if unsafe { bpf_l4_csum_replace(skb, at, 0, (!1_u16).into(), 0) } != 0 {
        return None;
    }
    let mut sum = Change::NONE;
    for word in 0..TCP_LENGTH / 4 {
        let bytes = Linear(frame).load::<4>(transport.wrapping_add(word * 4))?;
        sum = sum.word(!0, u32::from_ne_bytes(bytes));
    }
    Some(sum)
}
