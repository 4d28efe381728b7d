//! The frame walker on segments that cannot simply be read: the first ones of a flow found in its middle, and those
//! around a loss. Its phases are global functions, as in the data path.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::programs::TcContext;
use evenkeel_ebpf::abi::Http2;
use evenkeel_ebpf::http2::{Next, PREFACE, Segment, Work};
use evenkeel_ebpf::watch::WatchEvent;

use crate::maps::{W_WORK, event};
use crate::skb::Skb;

/// Turns for one packet.
const TURNS: u32 = 1024;

/// Walks a segment.
#[inline(always)]
pub fn walk(skb: &Skb, state: &mut Http2, segment: Segment) {
    let Some(work) = W_WORK.get_ptr_mut(0) else {
        return;
    };
    let context = skb.0.skb.skb;
    // SAFETY: this processor's only value, and nothing else of ours runs on it meanwhile.
    unsafe {
        work.write(Work::new(*state, segment));
        let mut next = ek_walk_start(context, work);
        for _ in 0..=PREFACE.len() {
            if next != Next::Preface as u32 {
                break;
            }
            next = ek_walk_preface(context, work);
        }
        if next == Next::Turns as u32 {
            for _ in 0..TURNS {
                if ek_walk_turn(context, work) == 0 {
                    break;
                }
            }
            ek_walk_settle(context, work);
        }
        *state = (*work).state;
        if (*work).walk.lost {
            event(WatchEvent::Resync);
        }
        if (*work).walk.bound_reached {
            event(WatchEvent::Bound);
        }
    }
}

macro_rules! phase {
    ($name:ident, $run:expr) => {
        /// One phase; what it returns is what `walk` looks at next.
        #[unsafe(no_mangle)]
        pub extern "C" fn $name(context: *mut __sk_buff, work: *mut Work) -> u32 {
            // SAFETY: null or a whole value, as `walk` passes it; the verifier checks no less.
            let Some(work) = (unsafe { work.as_mut() }) else {
                return 0;
            };
            let run: fn(&mut Work, &Skb) -> u32 = $run;
            run(work, &Skb(TcContext::new(context)))
        }
    };
}

phase!(ek_walk_start, |work, skb| work.start(skb) as u32);
phase!(ek_walk_preface, |work, skb| work.read_preface(skb) as u32);
phase!(ek_walk_turn, |work, skb| work.turn(skb).into());
phase!(ek_walk_settle, |work, skb| {
    work.finish(skb);
    0
});
