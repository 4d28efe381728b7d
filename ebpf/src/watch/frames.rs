//! The frames of a segment, in the kernel: the turns of [`Reader`] as global functions.
//!
//! The verifier checks a global function once, whatever leads there; inlined into the loop, the branches of all that
//! can happen to a frame would multiply.

use core::mem::MaybeUninit;

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::programs::TcContext;
use evenkeel_ebpf::exchange::{Change, Frame, Read, Reader, Side};
use evenkeel_ebpf::http2::Segment;
use evenkeel_ebpf::packet::Bytes;
use evenkeel_ebpf::watch::{Half, WatchEvent, Watched, client};

use crate::maps::{W_TASK, event};
use crate::skb::Skb;
use crate::streams;
use crate::walk::walk;

/// Turns for one packet, of [`RUN`] frames each.
const TURNS: u32 = 1024;
/// Frames that one call reads.
const RUN: u32 = 4;

/// A segment that is being read.
#[repr(C)]
pub struct Task {
    segment: Segment,
    /// Non-zero: the packet goes from the key's source to its destination.
    forward: u32,
    /// Now, once something needed it; ns of CLOCK_MONOTONIC.
    now: u64,
    /// Nanoseconds that answers took which ended in this segment.
    answered: u64,
    reader: MaybeUninit<Reader>,
}

/// What [`ek_watch_turn`] came to.
#[repr(u32)]
enum Next {
    End = 0,
    More = 1,
    Lost = 2,
}

/// Reads the frames of a segment; leaves it to the walker where their boundaries are not known.
#[inline(always)]
pub fn read(skb: &Skb, flow: &mut Watched, segment: Segment, forward: bool) {
    let Some(task) = W_TASK.get_ptr_mut(0) else {
        return;
    };
    // SAFETY: this processor's only value, and nothing else of ours runs on it meanwhile.
    let task = unsafe { &mut *task };
    task.segment = segment;
    task.forward = forward.into();
    task.now = 0;
    task.answered = 0;
    let half: *mut Half = if forward {
        &mut flow.forward
    } else {
        &mut flow.backward
    };
    let context = skb.0.skb.skb;
    let mut in_step = ek_watch_begin(context, half, task) != 0;
    if in_step {
        let flow: *mut Watched = flow;
        for _ in 0..TURNS {
            let next = ek_watch_turn(context, flow, task);
            if next != Next::More as u32 {
                in_step = next == Next::End as u32;
                break;
            }
        }
    }
    streams::answered(flow.peer, task.answered);
    if in_step {
        ek_watch_finish(context, half, task);
    } else {
        event(WatchEvent::Untimed);
        // SAFETY: the half of a live map value.
        walk(skb, unsafe { &mut (*half).http2 }, segment);
    }
}

/// Whether the segment can be read.
#[unsafe(no_mangle)]
pub extern "C" fn ek_watch_begin(context: *mut __sk_buff, half: *mut Half, task: *mut Task) -> u32 {
    // SAFETY: null or whole values, as `read` passes them; the verifier checks no less.
    let (Some(half), Some(task)) = (unsafe { half.as_mut() }, unsafe { task.as_mut() }) else {
        return 0;
    };
    let skb = Skb(TcContext::new(context));
    match Reader::begin(&mut half.http2, &skb, task.segment) {
        Some(reader) => {
            task.reader.write(reader);
            1
        }
        None => 0,
    }
}

/// Reads the next frames.
#[unsafe(no_mangle)]
pub extern "C" fn ek_watch_turn(
    context: *mut __sk_buff,
    flow: *mut Watched,
    task: *mut Task,
) -> u32 {
    // SAFETY: as above.
    let (Some(flow), Some(task)) = (unsafe { flow.as_mut() }, unsafe { task.as_mut() }) else {
        return Next::End as u32;
    };
    let skb = Skb(TcContext::new(context));
    for _ in 0..RUN {
        // SAFETY: called only after `ek_watch_begin` wrote it; and any bytes are a valid reader.
        let reader = unsafe { task.reader.assume_init_mut() };
        match reader.next(&skb) {
            Read::Frame if reader.frame.matters() => {
                let frame = reader.frame;
                consider(&skb, flow, task, &frame);
            }
            Read::Frame => {}
            Read::End => return Next::End as u32,
            Read::Lost => return Next::Lost as u32,
        }
    }
    Next::More as u32
}

/// Takes a frame that matters into account.
#[inline(always)]
fn consider(skb: &Skb, flow: &mut Watched, task: &mut Task, frame: &Frame) {
    let forward = task.forward != 0;
    if flow.client == client::UNKNOWN {
        flow.client = match sender(skb, frame, task.segment) {
            Side::Unknown => return,
            Side::Client if forward => client::SOURCE,
            Side::Server if !forward => client::SOURCE,
            Side::Client | Side::Server => client::DESTINATION,
        };
    }
    let sender = if (flow.client == client::SOURCE) == forward {
        Side::Client
    } else {
        Side::Server
    };
    let change = frame.change(sender);
    if change == Change::None {
        return;
    }
    if task.now == 0 {
        // SAFETY: a helper without arguments.
        task.now = unsafe { bpf_ktime_get_ns() };
    }
    let (tag, peer, now) = (flow.tag, flow.peer, task.now);
    let half = if forward {
        &mut flow.forward
    } else {
        &mut flow.backward
    };
    match change {
        Change::Opens(id) if id > half.http2.highest => {
            streams::begin(tag, id, now);
            half.begun += 1;
        }
        Change::Ends(id) => {
            if let Some(begun) = streams::end(tag, id) {
                let took = now.saturating_sub(begun);
                half.ended += 1;
                task.answered += took;
                streams::count_answer(peer, took);
            }
        }
        Change::Resets(id) => {
            if streams::end(tag, id).is_some() {
                half.reset += 1;
                streams::count_reset(peer);
            }
        }
        Change::Opens(_) | Change::None => {}
    }
}

/// Stores where the reading ended.
#[unsafe(no_mangle)]
pub extern "C" fn ek_watch_finish(
    context: *mut __sk_buff,
    half: *mut Half,
    task: *mut Task,
) -> u32 {
    // SAFETY: as above.
    let (Some(half), Some(task)) = (unsafe { half.as_mut() }, unsafe { task.as_mut() }) else {
        return 0;
    };
    let skb = Skb(TcContext::new(context));
    // SAFETY: as above.
    let reader = unsafe { task.reader.assume_init_ref() };
    if !reader.finish(&mut half.http2, &skb) {
        event(WatchEvent::Bound);
    }
    0
}

/// Who sent a HEADERS frame, as its first field tells.
#[inline(always)]
fn sender(skb: &Skb, frame: &Frame, segment: Segment) -> Side {
    match frame.fields() {
        Some(at) if at < segment.length => match skb.load(segment.offset.wrapping_add(at)) {
            Some([first]) => Frame::sender(first),
            None => Side::Unknown,
        },
        _ => Side::Unknown,
    }
}
