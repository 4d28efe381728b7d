//! The frame walker in the kernel: the phases of [`Work`] as global functions on a value in a per-CPU map.
//!
//! The verifier checks a global function once, whatever leads there, and knows nothing of what lies in map memory:
//! so it walks each phase once, and a turn of the loop is a call. Inlined, the phases multiply each other's branches
//! to more than a million instructions for a handful of frames.

use aya_ebpf::bindings::{__sk_buff, xdp_md};
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::programs::{TcContext, XdpContext};
use evenkeel_ebpf::abi::{Event, Http2};
use evenkeel_ebpf::http2::{Front, IN_STEP, Next, PREFACE, Segment, Walk, Work, walk_in_step};
use evenkeel_ebpf::packet::Bytes;

use crate::atomic;
use crate::count;
use crate::frame::Frame;
use crate::maps::WORK;
use crate::tc::TcFrame;
use crate::xdp::XdpFrame;

/// Turns for one packet: frame headers, or candidates where the boundary was lost. More than headers fit 1,500 bytes
/// (166 without any content), and enough for 64 KiB of requests.
const TURNS: u32 = 2048;

/// Looks at a flow that another processor has taken; some 25 ns each: more than a segment's walk takes.
const LOOKS: u32 = 1024;

/// Walks a segment.
#[inline(always)]
pub fn walk<F: Frame>(frame: &F, state: &mut Http2, segment: Segment) -> Walk {
    // Most segments are a request or part of one, and no reason for a call: where returns are guarded against speculation, that was
    // a third of what counting one flow's requests cost, and two of an upload's. What the kernel would have to be asked for is left to the
    // call, so that it is asked once.
    // SAFETY: the state is in a live map value.
    let mut opened = unsafe { in_step::<FEW, _>(&frame.linear(), state, segment) };
    if opened == NOT_IN_STEP {
        opened = frame.walk_in_step(state, segment);
    }
    if opened != NOT_IN_STEP {
        return Walk {
            opened,
            ..Walk::default()
        };
    }
    let Some(work) = WORK.get_ptr_mut(0) else {
        return Walk::default();
    };
    if ek_take(state) == 0 {
        count::event(Event::WalkerBusy);
        return Walk::default();
    }
    // SAFETY: this processor's only value, and nothing else of ours runs on it meanwhile; the flow's state is ours,
    // too, until it is given back.
    unsafe {
        let front = Front::of(state).free();
        work.write(Work::new(
            Http2 {
                highest: front.highest,
                ..*state
            },
            segment,
        ));
        let mut next = frame.walk(Phase::Start, work);
        for _ in 0..=PREFACE.len() {
            if next != Next::Preface as u32 {
                break;
            }
            next = frame.walk(Phase::Preface, work);
        }
        if next == Next::Turns as u32 {
            for _ in 0..TURNS {
                if frame.walk(Phase::Turn, work) == 0 {
                    break;
                }
            }
            frame.walk(Phase::Finish, work);
        }
        let reached = Front::of(&(*work).state);
        *state = Http2 {
            highest: reached.taken().highest,
            ..(*work).state
        };
        atomic::exchange(word(state), reached.word());
        (*work).walk
    }
}

/// The word of a state that holds its front.
#[inline(always)]
fn word(state: *mut Http2) -> *mut u64 {
    state.cast()
}

/// Takes a flow, so that no other processor changes its state; 0 if one holds it for too long.
#[unsafe(no_mangle)]
pub extern "C" fn ek_take(state: *mut Http2) -> u32 {
    if state.is_null() {
        return 0;
    }
    for _ in 0..LOOKS {
        // SAFETY: the front of a live map value, as `walk` passes it; volatile, as other processors write it.
        unsafe {
            let found = word(state).read_volatile();
            let front = Front::from_word(found);
            if !front.is_taken()
                && atomic::compare_exchange(word(state), found, front.taken().word())
            {
                return 1;
            }
            // Only to wait.
            bpf_ktime_get_ns();
        }
    }
    0
}

/// What the walk in step returns where it is not one.
const NOT_IN_STEP: u32 = u32::MAX;

/// Headers that are read without a call: those of a request, and of its payload.
const FEW: u32 = 2;

/// Streams opened by a segment of a flow in step with at most `FRAMES` headers; [`NOT_IN_STEP`] leaves it to others.
///
/// # Safety
/// `state` must be in a live map value. Other processors may write it meanwhile, never without changing the front, which is read
/// first and replaced only if it is still that.
#[inline(always)]
unsafe fn in_step<const FRAMES: u32, B: Bytes>(
    bytes: &B,
    state: *mut Http2,
    segment: Segment,
) -> u32 {
    // SAFETY: as the caller promises.
    unsafe {
        let found = word(state).read_volatile();
        let front = Front::from_word(found);
        match walk_in_step::<FRAMES, _>(&*state, front, bytes, segment) {
            Some(reached) if reached == front => 0,
            Some(reached) if atomic::compare_exchange(word(state), found, reached.word()) => {
                reached.opened_since(front)
            }
            _ => NOT_IN_STEP,
        }
    }
}

macro_rules! in_step {
    ($name:ident, $context:ty, $frame:ident($program:ident)) => {
        /// The common case, which needs no more than the flow's state.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name(
            context: *mut $context,
            state: *mut Http2,
            offset: u32,
            length: u32,
            sequence: u32,
        ) -> u32 {
            if state.is_null() {
                return NOT_IN_STEP;
            }
            let frame = $frame($program::new(context));
            let segment = Segment {
                offset,
                length,
                sequence,
            };
            // SAFETY: the state in a live map value, as `Frame::walk_in_step` passes it.
            unsafe { in_step::<IN_STEP, _>(&frame, state, segment) }
        }
    };
}

in_step!(ek_xdp_in_step, xdp_md, XdpFrame(XdpContext));
in_step!(ek_tc_in_step, __sk_buff, TcFrame(TcContext));

/// A phase of the walk.
#[derive(Clone, Copy)]
pub enum Phase {
    Start,
    Preface,
    Turn,
    Finish,
}

macro_rules! phase {
    ($name:ident, $context:ty, $frame:ident($program:ident), $run:expr) => {
        /// One phase; what it returns is what `walk` looks at next.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name(context: *mut $context, work: *mut Work) -> u32 {
            // SAFETY: null or a whole value, as `walk` passes it; the verifier checks no less.
            let Some(work) = (unsafe { work.as_mut() }) else {
                return 0;
            };
            let run: fn(&mut Work, &$frame) -> u32 = $run;
            run(work, &$frame($program::new(context)))
        }
    };
}

phase!(
    ek_xdp_start,
    xdp_md,
    XdpFrame(XdpContext),
    |work, frame| work.start(frame) as u32
);
phase!(
    ek_xdp_preface,
    xdp_md,
    XdpFrame(XdpContext),
    |work, frame| work.read_preface(frame) as u32
);
phase!(ek_xdp_turn, xdp_md, XdpFrame(XdpContext), |work, frame| {
    work.turn(frame).into()
});
phase!(
    ek_xdp_finish,
    xdp_md,
    XdpFrame(XdpContext),
    |work, frame| {
        work.finish(frame);
        0
    }
);
phase!(
    ek_tc_start,
    __sk_buff,
    TcFrame(TcContext),
    |work, frame| work.start(frame) as u32
);
phase!(
    ek_tc_preface,
    __sk_buff,
    TcFrame(TcContext),
    |work, frame| work.read_preface(frame) as u32
);
phase!(ek_tc_turn, __sk_buff, TcFrame(TcContext), |work, frame| {
    work.turn(frame).into()
});
phase!(
    ek_tc_finish,
    __sk_buff,
    TcFrame(TcContext),
    |work, frame| {
        work.finish(frame);
        0
    }
);
