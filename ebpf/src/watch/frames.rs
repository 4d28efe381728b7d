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

use crate::chunk::Chunk;
use crate::flows::sent;
use crate::maps::{W_TASK, event};
use crate::skb::Skb;
use crate::streams::{self, Answers, Flow};
use crate::walk::walk;

/// Turns for one packet, of [`RUN`] frames or what is left of a chunk each.
const TURNS: u32 = 1024;
/// Frames that one call reads: ten requests, which is what a busy client sends at once. For more of them the verifier's work grows
/// faster than their number: 66,000 instructions with 8, 95,000 with 16, 225,000 with 24.
const RUN: u32 = 16;

/// A segment that is being read. What is counted along with the loop is here and not in registers: in memory the
/// verifier forgets what it knew of a value, which would else make another state in each turn.
#[repr(C)]
pub struct Task {
    segment: Segment,
    /// Non-zero: the packet goes from the key's source to its destination.
    forward: u32,
    /// A [`Side`].
    sender: u32,
    /// The flow's tag, ...
    tag: u32,
    /// ... and where its streams wait for their answers.
    near: u32,
    /// Streams that this segment opened, ...
    begun: u32,
    /// ... those that it answered ...
    ended: u32,
    /// ... and those that it gave up.
    reset: u32,
    /// The first that it opened, 0 if it opened none.
    first: u32,
    /// Now, once something needed it; ns of CLOCK_MONOTONIC.
    now: u64,
    answers: Answers,
    reader: MaybeUninit<Reader>,
    chunk: Chunk,
}

/// [`ek_watch_rare`] of what cannot be a frame.
const LOST: u64 = u64::MAX;

/// What [`ek_watch_turn`] came to.
#[repr(u32)]
enum Next {
    End = 0,
    More = 1,
    Lost = 2,
}

/// Reads the frames of a segment; leaves it to the walker where their boundaries are not known. Returns the first stream
/// whose beginning was read, 0 if none was.
#[inline(always)]
pub fn read(skb: &Skb, flow: &mut Watched, segment: Segment, forward: bool) -> u32 {
    let Some(task) = W_TASK.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: this processor's only value, and nothing else of ours runs on it meanwhile.
    unsafe {
        (*task).segment = segment;
        (*task).forward = forward.into();
        (*task).first = 0;
    }
    let context = skb.0.skb.skb;
    if ek_watch_read(context, flow, task) == 0 {
        // What was read before the boundaries turned out to be wrong is not certain either.
        ek_watch_search(context, sent(flow, forward), task);
        return 0;
    }
    // SAFETY: as above.
    unsafe { (*task).first }
}

/// The same, given all of it; zero if the segment is left to the walker.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ek_watch_read(
    context: *mut __sk_buff,
    flow: *mut Watched,
    task: *mut Task,
) -> u32 {
    // SAFETY: null or whole values, as `read` passes them; the verifier checks no less.
    let (Some(flow), Some(task)) = (unsafe { flow.as_mut() }, unsafe { task.as_mut() }) else {
        return 0;
    };
    let (segment, forward) = (task.segment, task.forward != 0);
    let state = &sent(flow, forward).http2;
    // SAFETY: any bytes are a valid reader.
    let reader = unsafe { task.reader.assume_init_mut() };
    reader.restart(state, segment);
    let continues = reader.continues(state);
    if continues && reader.rest() == 0 {
        // The middle of a DATA frame: most of the packets that carry much.
        return 1;
    }
    task.sender = sender(flow, forward) as u32;
    task.tag = flow.tag;
    task.near = flow.near;
    task.begun = 0;
    task.ended = 0;
    task.reset = 0;
    task.now = 0;
    task.chunk.empty();
    task.answers.restart(flow.peer);
    let mut in_step = continues || ek_watch_begin(context, sent(flow, forward), task) != 0;
    if in_step {
        for _ in 0..TURNS {
            let next = ek_watch_turn(context, flow, task);
            if next != Next::More as u32 {
                in_step = next == Next::End as u32;
                break;
            }
        }
    }
    let half = sent(flow, forward);
    task.settle(half);
    // SAFETY: as above.
    if in_step && !unsafe { task.reader.assume_init_ref() }.settle(&mut half.http2) {
        ek_watch_finish(context, half, task);
    }
    in_step.into()
}

/// Leaves the segment to the walker. Returns nothing; a global function has to return something.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ek_watch_search(
    context: *mut __sk_buff,
    half: *mut Half,
    task: *mut Task,
) -> u32 {
    // SAFETY: as above.
    let (Some(half), Some(task)) = (unsafe { half.as_mut() }, unsafe { task.as_mut() }) else {
        return 0;
    };
    event(WatchEvent::Untimed);
    // SAFETY: a helper without arguments.
    half.pass_over(unsafe { bpf_ktime_get_ns() });
    let skb = Skb(TcContext::new(context));
    walk(&skb, &mut half.http2, task.segment);
    0
}

/// Whether the segment can be read.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ek_watch_begin(context: *mut __sk_buff, half: *mut Half, task: *mut Task) -> u32 {
    // SAFETY: as above.
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
#[inline(never)]
pub extern "C" fn ek_watch_turn(
    context: *mut __sk_buff,
    flow: *mut Watched,
    task: *mut Task,
) -> u32 {
    // SAFETY: as above.
    let Some(task) = (unsafe { task.as_mut() }) else {
        return Next::End as u32;
    };
    let skb = Skb(TcContext::new(context));
    // SAFETY: called only after it was written; and any bytes are a valid reader.
    let mut reader = unsafe { *task.reader.assume_init_ref() };
    if !task.chunk.fill(&skb, &reader) {
        return Next::End as u32;
    }
    let mut next = Next::More;
    for _ in 0..RUN {
        match reader.fetch(&task.chunk) {
            Read::Frame => {}
            Read::Beyond => break,
            Read::End => {
                next = Next::End;
                break;
            }
        }
        let Some(opened) = reader.frame.plain() else {
            let opened = ek_watch_rare(task, reader.frame.word, reader.frame.last);
            if opened == LOST {
                next = Next::Lost;
                break;
            }
            reader.pass(opened as u32);
            continue;
        };
        reader.pass(opened);
        if task.sender == Side::Unknown as u32 {
            ek_watch_tell(context, flow, task, reader.frame.payload, reader.frame.word);
        }
        task.take(reader.change(task.sender()));
    }
    task.reader.write(reader);
    next as u32
}

/// Takes a frame into account that is neither DATA nor HEADERS: what [`Frame::opened`] says of it, [`LOST`] for nothing.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ek_watch_rare(task: *mut Task, word: u64, last: u64) -> u64 {
    // SAFETY: as above.
    let Some(task) = (unsafe { task.as_mut() }) else {
        return 0;
    };
    let frame = Frame {
        word,
        last,
        ..Frame::default()
    };
    if let Some(stream) = frame.resets() {
        task.take(Change::Resets(stream));
    }
    frame.opened().map_or(LOST, u64::from)
}

/// Learns who the client is from the first field of a HEADERS frame, given its payload's offset in the segment and the
/// first word of its header. Returns nothing; a global function has to return something.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ek_watch_tell(
    context: *mut __sk_buff,
    flow: *mut Watched,
    task: *mut Task,
    payload: u32,
    word: u64,
) -> u32 {
    // SAFETY: as above.
    let (Some(flow), Some(task)) = (unsafe { flow.as_mut() }, unsafe { task.as_mut() }) else {
        return 0;
    };
    let frame = Frame {
        word,
        payload,
        ..Frame::default()
    };
    let Some(at) = frame.fields().filter(|at| *at < task.segment.length) else {
        return 0;
    };
    let skb = Skb(TcContext::new(context));
    let Some([first]) = skb.load(task.segment.offset.wrapping_add(at)) else {
        return 0;
    };
    let forward = task.forward != 0;
    flow.client = match Frame::sender(first) {
        Side::Unknown => return 0,
        Side::Client if forward => client::SOURCE,
        Side::Server if !forward => client::SOURCE,
        Side::Client | Side::Server => client::DESTINATION,
    };
    task.sender = sender(flow, forward) as u32;
    0
}

/// Who sends in this direction.
#[inline(always)]
fn sender(flow: &Watched, forward: bool) -> Side {
    match flow.client {
        client::UNKNOWN => Side::Unknown,
        known if (known == client::SOURCE) == forward => Side::Client,
        _ => Side::Server,
    }
}

impl Task {
    #[inline(always)]
    fn sender(&self) -> Side {
        if self.sender == Side::Client as u32 {
            Side::Client
        } else if self.sender == Side::Server as u32 {
            Side::Server
        } else {
            Side::Unknown
        }
    }

    #[inline(always)]
    fn waiting(&self) -> Flow {
        Flow {
            tag: self.tag,
            near: self.near,
        }
    }

    #[inline(always)]
    fn now(&mut self) -> u64 {
        if self.now == 0 {
            // SAFETY: a helper without arguments.
            self.now = unsafe { bpf_ktime_get_ns() };
        }
        self.now
    }

    /// Takes a frame into account.
    #[inline(always)]
    fn take(&mut self, change: Change) {
        match change {
            Change::None => {}
            Change::Opens(id) => {
                let now = self.now();
                streams::begin(self.waiting(), id, now);
                if self.begun == 0 {
                    self.first = id;
                }
                self.begun = self.begun.wrapping_add(1);
            }
            Change::Ends(id) => {
                if let Some(begun) = streams::end(self.waiting(), id) {
                    let took = self.now().saturating_sub(begun);
                    self.answers.add(took);
                    self.ended = self.ended.wrapping_add(1);
                }
            }
            Change::Resets(id) => {
                if streams::end(self.waiting(), id).is_some() {
                    self.reset = self.reset.wrapping_add(1);
                }
            }
        }
    }

    /// Adds up what the segment did where it is kept.
    #[inline(always)]
    fn settle(&self, half: &mut Half) {
        half.begun = half.begun.wrapping_add(self.begun);
        half.ended = half.ended.wrapping_add(self.ended);
        half.reset = half.reset.wrapping_add(self.reset);
        streams::count_resets(self.answers.peer, self.reset);
        self.answers.settle();
    }
}

/// Stores where the reading ended, in the midst of a header.
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
