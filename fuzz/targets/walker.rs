//! Any segments of a flow, in any order, before the stream counter.
//!
//! Promises: it counts what the highest stream id says, and the short way through it (all frames whole, nothing missing)
//! leads where the long one does.

#![no_main]

mod input;

use evenkeel_ebpf::http2::{Front, IN_STEP, Next, Work, streams, walk, walk_in_step};
use input::{Connection, FRAMES};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|connection: Connection| {
    let mut state = connection.state();
    for (packet, segment) in connection.packets() {
        let bytes = packet.as_slice();
        let before = state;
        let front = Front::of(&before);
        let walked = walk::<FRAMES, _>(&mut state, &bytes, segment);
        let increase = streams(state.highest).wrapping_sub(streams(before.highest));
        assert_eq!(walked.opened, increase, "of the highest id");
        if let Some(reached) = walk_in_step::<IN_STEP, _>(&before, front, &bytes, segment) {
            let mut work = Work::new(before, segment);
            let next = work.start(&bytes);
            assert_ne!(next, Next::Preface, "that is behind us");
            if next == Next::Turns {
                while work.turn(&bytes) {}
                work.finish(&bytes);
            }
            let long = Front::of(&work.state);
            assert_eq!((reached.next, reached.highest), (long.next, long.highest));
        }
    }
});
