//! The frame as XDP shows it: linear memory, no checksum state, finished frames only.
//!
//! XDP is the fast path and never the last word: what it does not finish it leaves untouched to TC.

use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{bpf_fib_lookup, xdp_action};
use aya_ebpf::helpers::generated::{bpf_fib_lookup as fib_lookup, bpf_redirect};
use aya_ebpf::programs::XdpContext;
use evenkeel_ebpf::abi::{Event, Http2, NextHop};
use evenkeel_ebpf::http2::{Segment, Work};
use evenkeel_ebpf::packet::{Bytes, Complaint, Packet, TCP_CHECKSUM};

use crate::frame::{
    Frame, Linear, Passage, Refused, Rewrite, Verdict, load, opaque, rewrite_in_place,
};
use crate::walker::{
    Phase, ek_xdp_finish, ek_xdp_in_step, ek_xdp_preface, ek_xdp_start, ek_xdp_turn,
};

pub struct XdpFrame(pub XdpContext);

impl Bytes for XdpFrame {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        load::<N>(self.0.data(), self.0.data_end(), offset)
    }
}

impl Frame for XdpFrame {
    const LAST: bool = false;

    #[inline(always)]
    fn linear(&self) -> Linear {
        Linear(self.0.data(), self.0.data_end())
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        (self.0.data_end() - self.0.data()) as u32
    }

    #[inline(always)]
    fn passage(&self, packet: &Packet) -> Passage {
        Passage {
            packets: 1,
            bytes: u64::from(packet.length),
        }
    }

    #[inline(always)]
    fn largest(&self, packet: &Packet) -> u32 {
        packet.length
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        self.0.ingress_ifindex() as u32
    }

    #[inline(always)]
    fn fib_lookup(&self, parameters: &mut bpf_fib_lookup) -> i64 {
        // SAFETY: the context is the program's own and the parameters are as long as stated.
        unsafe {
            fib_lookup(
                self.0.as_ptr(),
                parameters,
                size_of::<bpf_fib_lookup>() as i32,
                0,
            )
        }
    }

    #[inline(always)]
    fn walk_in_step(&self, state: &mut Http2, segment: Segment) -> u32 {
        let Segment {
            offset,
            length,
            sequence,
        } = segment;
        ek_xdp_in_step(self.0.ctx, state, offset, length, sequence)
    }

    #[inline(always)]
    fn walk(&self, phase: Phase, work: *mut Work) -> u32 {
        let context = self.0.ctx;
        match phase {
            Phase::Start => ek_xdp_start(context, work),
            Phase::Preface => ek_xdp_preface(context, work),
            Phase::Turn => ek_xdp_turn(context, work),
            Phase::Finish => ek_xdp_finish(context, work),
        }
    }

    #[inline(always)]
    fn icmp(&self, _at: u32) -> Verdict {
        Verdict::Pass
    }

    #[inline(always)]
    fn refuse(&self, _reason: Event, _complaint: Complaint) -> Verdict {
        Verdict::Pass
    }

    #[inline(always)]
    fn rewrite(
        &self,
        packet: &Packet,
        rewrite: &Rewrite,
        hop: Option<&NextHop>,
    ) -> Result<(), Refused> {
        let (data, end) = (self.0.data(), self.0.data_end());
        let changes = rewrite_in_place(data, end, packet, rewrite, hop).ok_or(Refused)?;
        let at = opaque(data + (packet.transport & 0x7f) as usize) + TCP_CHECKSUM as usize;
        if at + 2 > end {
            return Err(Refused);
        }
        let checksum = at as *mut u16;
        // SAFETY: `at + 2` was just compared with the packet's end.
        unsafe {
            let all = changes.addresses.and(changes.ports);
            checksum.write(all.apply(checksum.read()));
        }
        Ok(())
    }

    #[inline(always)]
    fn send(&self, interface: u32) -> Verdict {
        if interface == self.interface() {
            return Verdict::Sent(xdp_action::XDP_TX);
        }
        // SAFETY: a helper without pointers.
        Verdict::Sent(unsafe { bpf_redirect(interface, 0) } as u32)
    }

    #[inline(always)]
    fn send_to_neighbour(&self, _interface: u32, _gateway: u32) -> Verdict {
        Verdict::Pass
    }
}
