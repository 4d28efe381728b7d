//! The frame as TC shows it: a socket buffer, whose payload may lie in fragments, which may stand for many packets
//! (GSO, GRO), and whose TCP checksum may be left to the device.

use aya_ebpf::bindings::bpf_fib_lookup;
use aya_ebpf::bindings::{BPF_F_PSEUDO_HDR, bpf_redir_neigh, bpf_redir_neigh__bindgen_ty_1};
use aya_ebpf::helpers::generated::{
    bpf_fib_lookup as fib_lookup, bpf_l4_csum_replace, bpf_redirect, bpf_redirect_neigh,
    bpf_skb_load_bytes,
};
use aya_ebpf::programs::TcContext;
use core::mem::MaybeUninit;
use evenkeel_ebpf::abi::{Event, Http2, NextHop};
use evenkeel_ebpf::http2::{Segment, Work};
use evenkeel_ebpf::packet::{Bytes, Complaint, ETHERNET_LENGTH, Packet, TCP_CHECKSUM, TCP_LENGTH};

use crate::answer::{SILENT, ek_tc_answer};
use crate::count;
use crate::frame::{
    Changes, Frame, Linear, Passage, Refused, Rewrite, Verdict, load, rewrite_in_place,
    write_ethernet,
};
use crate::icmp;
use crate::walker::{Phase, ek_tc_finish, ek_tc_in_step, ek_tc_preface, ek_tc_start, ek_tc_turn};

/// `AF_INET`.
const AF_INET: u32 = 2;

pub struct TcFrame(pub TcContext);

impl TcFrame {
    /// True if the packet belongs to a VLAN interface above this one: the tag is beside the frame, not in it.
    #[inline(always)]
    pub fn is_tagged(&self) -> bool {
        // SAFETY: a field of the program's own context.
        unsafe { (*self.0.skb.skb).vlan_present != 0 }
    }

    /// True if this host sent the packet itself. The socket would not tell: a packet keeps its sender's across veth
    /// pairs (9c4c325252c5), so one that we forward may still carry one of another namespace.
    #[inline(always)]
    pub fn is_local(&self) -> bool {
        // SAFETY: a field of the program's own context.
        unsafe { (*self.0.skb.skb).ingress_ifindex == 0 }
    }

    /// `N` bytes at `offset`, wherever they lie.
    #[inline(always)]
    pub fn copy<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        #[repr(C, align(8))]
        struct Aligned<const N: usize>([u8; N]);
        let mut out = MaybeUninit::<Aligned<N>>::uninit();
        // SAFETY: the helper writes `N` bytes to a buffer of `N` bytes, or fails and zeroes it.
        unsafe {
            let skb = self.0.skb.skb.cast_const().cast();
            if bpf_skb_load_bytes(skb, offset, out.as_mut_ptr().cast(), N as u32) != 0 {
                return None;
            }
            Some(out.assume_init().0)
        }
    }

    /// Writes the Ethernet addresses.
    #[inline(always)]
    pub fn address(&self, hop: &NextHop) -> Option<()> {
        let data = self.0.data();
        if data + ETHERNET_LENGTH as usize > self.0.data_end() {
            return None;
        }
        // SAFETY: the header lies before the packet's end, as just compared.
        unsafe { write_ethernet(data, hop) };
        Some(())
    }

    #[inline(always)]
    fn rewrite_headers(
        &self,
        packet: &Packet,
        rewrite: &Rewrite,
        hop: Option<&NextHop>,
    ) -> Option<Changes> {
        rewrite_in_place(self.0.data(), self.0.data_end(), packet, rewrite, hop)
    }
}

impl Bytes for TcFrame {
    #[inline(always)]
    fn load<const N: usize>(&self, offset: u32) -> Option<[u8; N]> {
        if let Some(found) = load::<N>(self.0.data(), self.0.data_end(), offset) {
            return Some(found);
        }
        self.copy(offset)
    }
}

impl Frame for TcFrame {
    const LAST: bool = true;

    #[inline(always)]
    fn linear(&self) -> Linear {
        Linear(self.0.data(), self.0.data_end())
    }

    #[inline(always)]
    fn length(&self) -> u32 {
        self.0.len()
    }

    #[inline(always)]
    fn passage(&self, packet: &Packet) -> Passage {
        // SAFETY: fields of the program's own context.
        let (segments, size) = unsafe {
            let skb = self.0.skb.skb;
            (u64::from((*skb).gso_segs), u64::from((*skb).gso_size))
        };
        // From a guest's or tunnel's device the number is not known yet (SKB_GSO_DODGY, include/linux/virtio_net.h).
        let segments = if segments == 0 && size != 0 {
            u64::from(packet.payload_length).div_ceil(size)
        } else {
            segments
        }
        .max(1);
        // Every segment has headers of its own on the wire.
        let headers = (segments - 1) * u64::from(packet.headers());
        Passage {
            packets: segments,
            bytes: u64::from(packet.length) + headers,
        }
    }

    #[inline(always)]
    fn largest(&self, packet: &Packet) -> u32 {
        // SAFETY: a field of the program's own context.
        let segment = unsafe { (*self.0.skb.skb).gso_size };
        if segment == 0 {
            packet.length
        } else {
            segment.wrapping_add(packet.headers())
        }
    }

    #[inline(always)]
    fn interface(&self) -> u32 {
        // SAFETY: a field of the program's own context.
        unsafe { (*self.0.skb.skb).ifindex }
    }

    #[inline(always)]
    fn fib_lookup(&self, parameters: &mut bpf_fib_lookup) -> i64 {
        // SAFETY: the context is the program's own and the parameters are as long as stated.
        unsafe {
            fib_lookup(
                self.0.skb.skb.cast(),
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
        ek_tc_in_step(self.0.skb.skb, state, offset, length, sequence)
    }

    #[inline(always)]
    fn walk(&self, phase: Phase, work: *mut Work) -> u32 {
        let context = self.0.skb.skb;
        match phase {
            Phase::Start => ek_tc_start(context, work),
            Phase::Preface => ek_tc_preface(context, work),
            Phase::Turn => ek_tc_turn(context, work),
            Phase::Finish => ek_tc_finish(context, work),
        }
    }

    #[inline(always)]
    fn icmp(&self, at: u32) -> Verdict {
        icmp::icmp(self, at)
    }

    #[inline(always)]
    fn refuse(&self, reason: Event, complaint: Complaint) -> Verdict {
        match ek_tc_answer(self.0.skb.skb, complaint.0) {
            SILENT => count::drop(reason),
            action => {
                count::event(reason);
                count::event(Event::IcmpSent);
                Verdict::Sent(action)
            }
        }
    }

    #[inline(always)]
    fn rewrite(
        &self,
        packet: &Packet,
        rewrite: &Rewrite,
        hop: Option<&NextHop>,
    ) -> Result<(), Refused> {
        let changes = match self.rewrite_headers(packet, rewrite, hop) {
            Some(changes) => changes,
            None => {
                // Headers in a fragment: pull them into the linear part and try once more.
                let headers = packet.transport.wrapping_add(TCP_LENGTH);
                self.0.pull_data(headers).map_err(|_| Refused)?;
                self.rewrite_headers(packet, rewrite, hop).ok_or(Refused)?
            }
        };
        // The helper knows what the checksum field holds: a sum (complete it), the pseudo header's alone
        // (`CHECKSUM_PARTIAL`: ports are none of its business), and keeps `CHECKSUM_COMPLETE` true.
        let at = packet.transport.wrapping_add(TCP_CHECKSUM);
        let skb = self.0.skb.skb;
        let pseudo = u64::from(BPF_F_PSEUDO_HDR);
        // SAFETY: helpers on the program's own context; they check the offset themselves.
        let failed = unsafe {
            bpf_l4_csum_replace(skb, at, 0, changes.addresses.partial().into(), pseudo) != 0
                || bpf_l4_csum_replace(skb, at, 0, changes.ports.partial().into(), 0) != 0
        };
        if failed { Err(Refused) } else { Ok(()) }
    }

    #[inline(always)]
    fn send(&self, interface: u32) -> Verdict {
        // SAFETY: a helper without pointers.
        Verdict::Sent(unsafe { bpf_redirect(interface, 0) } as u32)
    }

    #[inline(always)]
    fn send_to_neighbour(&self, interface: u32, gateway: u32) -> Verdict {
        let mut next = bpf_redir_neigh {
            nh_family: AF_INET,
            __bindgen_anon_1: bpf_redir_neigh__bindgen_ty_1 {
                ipv6_nh: [gateway, 0, 0, 0],
            },
        };
        let length = size_of::<bpf_redir_neigh>() as i32;
        // SAFETY: the parameters are as long as stated.
        Verdict::Sent(unsafe { bpf_redirect_neigh(interface, &mut next, length, 0) } as u32)
    }
}
