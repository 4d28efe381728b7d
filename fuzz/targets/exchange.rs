//! Any segments of a flow before what measures latency, which reads frame by frame where the stream counter is in step.
//!
//! Promise: where it says that it read a segment, it has come to where the stream counter comes, as long as retransmissions
//! repeat what they retransmit.

#![no_main]

mod input;

use evenkeel_ebpf::abi::Http2;
use evenkeel_ebpf::exchange::{Read, Reader, Side};
use evenkeel_ebpf::http2::{Segment, walk};
use input::{Connection, FRAMES};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|connection: Connection| {
    let mut state = connection.state();
    for (packet, segment) in connection.packets() {
        let bytes = packet.as_slice();
        let mut counted = state;
        walk::<FRAMES, _>(&mut counted, &bytes, segment);
        let read = read(state, bytes, segment).filter(|_| repeats(&state, bytes, segment));
        if let Some(read) = read {
            let reached = |state: &Http2| (state.next, state.highest, state.partial_length);
            assert_eq!(reached(&read), reached(&counted));
        }
        state = counted;
    }
});

/// Whether a segment that begins inside of a split header has the bytes there that came before, as a retransmission must. If
/// not, the two have each some right: the reader keeps the first ones, the stream counter takes the last.
fn repeats(state: &Http2, bytes: &[u8], segment: Segment) -> bool {
    let payload = &bytes[segment.offset as usize..];
    let known = state.partial.to_be_bytes();
    let known = known.iter().take(state.partial_length.into());
    known.zip(0..).all(|(known, number)| {
        let at = state
            .next
            .wrapping_add(number)
            .wrapping_sub(segment.sequence);
        payload.get(at as usize).is_none_or(|byte| byte == known)
    })
}

/// Where the reader comes to; `None` if the segment is none for it.
fn read(mut state: Http2, bytes: &[u8], segment: Segment) -> Option<Http2> {
    let mut reader = Reader::begin(&mut state, &bytes, segment)?;
    loop {
        match reader.fetch(&bytes) {
            Read::Frame => {}
            Read::End => break,
            Read::Beyond => return None,
        }
        let opened = reader.frame.plain().or_else(|| reader.frame.opened())?;
        reader.pass(opened);
        let _ = (reader.change(Side::Client), reader.change(Side::Server));
    }
    reader.finish(&mut state, &bytes).then_some(state)
}
