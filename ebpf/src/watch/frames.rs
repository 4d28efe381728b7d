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

/// Turns for one packet: frames that matter, or runs of [`RUN`] that do not. As many as the walker takes.
const TURNS: u32 = 1024;
/// Frames that one call hops over.
const RUN: u32 = 4;

/// A segment that is being read.
#[repr(C)]
pub struct Task {
    segment: Segment,
    /// Non-zero: the packet goes from the key's source to its destination.
    forward: u32,
    /// Now, once something needed it; ns of CLOCK_MONOTONIC.
    now: u64,
    reader: MaybeUninit<Reader>,
}

/// What [`ek_watch_next`] came to.
#[repr(u32)]
enum Next {
    End = 0,
    Frame = 1,
    More = 2,
    Lost = 3,
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
            let next = ek_watch_next(context, task);
            if next == Next::Frame as u32 {
                ek_watch_frame(context, flow, task);
            } else if next != Next::More as u32 {
                in_step = next == Next::End as u32;
                break;
            }
        }
    }
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

/// Goes on to the next frame that matters.
#[unsafe(no_mangle)]
pub extern "C" fn ek_watch_next(context: *mut __sk_buff, task: *mut Task) -> u32 {
    // SAFETY: as above.
    let Some(task) = (unsafe { task.as_mut() }) else {
        return Next::End as u32;
    };
    let skb = Skb(TcContext::new(context));
    // SAFETY: called only after `ek_watch_begin` wrote it; and any bytes are a valid reader.
    let reader = unsafe { task.reader.assume_init_mut() };
    for _ in 0..RUN {
        match reader.next(&skb) {
            Read::Frame if reader.frame.matters() => return Next::Frame as u32,
            Read::Frame => {}
            Read::End => return Next::End as u32,
            Read::Lost => return Next::Lost as u32,
        }
    }
    Next::More as u32
}

/// Takes a frame that matters into account.
#[unsafe(no_mangle)]
pub extern "C" fn ek_watch_frame(
    context: *mut __sk_buff,
    flow: *mut Watched,
    task: *mut Task,
) -> u32 {
    // SAFETY: as above.
    let (Some(flow), Some(task)) = (unsafe { flow.as_mut() }, unsafe { task.as_mut() }) else {
        return 0;
    };
    // SAFETY: as above.
    let frame = unsafe { task.reader.assume_init_ref() }.frame;
    let forward = task.forward != 0;
    if flow.client == client::UNKNOWN {
        let skb = Skb(TcContext::new(context));
        flow.client = match sender(&skb, &frame, task.segment) {
            Side::Unknown => return 0,
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
        return 0;
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
        Change::Ends(id) => half.ended += streams::end(tag, id, peer, now, true),
        Change::Resets(id) => half.reset += streams::end(tag, id, peer, now, false),
        Change::Opens(_) | Change::None => {}
    }
    0
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
