use proptest::prelude::*;

use super::{Change, Frame, Read, Reader, Side, answers};
use crate::abi::{Http2, http2_phase as phase};
use crate::http2::{self, PREFACE, Segment, streams};

/// Headers before a payload.
const HEADROOM: usize = 54;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(payload.len()).unwrap().to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Feeds `stream` in pieces that end at `cuts`; gives the changes told, and whether every piece was in step.
fn read(
    state: &mut Http2,
    first: u32,
    stream: &[u8],
    cuts: &[usize],
    sender: Side,
) -> (Vec<Change>, bool) {
    let (mut told, mut in_step, mut start) = (Vec::new(), true, 0);
    for end in cuts.iter().copied().chain([stream.len()]) {
        if end <= start {
            continue;
        }
        let mut packet = vec![0xff; HEADROOM];
        packet.extend(&stream[start..end]);
        let segment = Segment {
            offset: HEADROOM as u32,
            length: (end - start) as u32,
            sequence: first.wrapping_add(start as u32),
        };
        start = end;
        let bytes = packet.as_slice();
        let Some(mut reader) = Reader::begin(state, &bytes, segment) else {
            in_step = false;
            http2::walk::<1024, _>(state, &bytes, segment);
            continue;
        };
        loop {
            match reader.fetch(&bytes) {
                Read::Frame => {}
                Read::End => break,
                Read::Beyond => panic!("the segment is whole"),
            }
            let Some(opened) = reader.frame.plain().or_else(|| reader.frame.opened()) else {
                in_step = false;
                break;
            };
            reader.pass(opened);
            told.push(reader.change(sender));
        }
        assert!(reader.finish(state, &bytes));
    }
    told.retain(|change| *change != Change::None);
    (told, in_step)
}

/// The exchange of `count` requests: what the client sends, what the server sends.
fn exchange(count: u32, body: usize) -> (Vec<u8>, Vec<u8>) {
    let (mut client, mut server) = (PREFACE.to_vec(), frame(4, 0, 0, &[0; 6]));
    client.extend(frame(4, 0, 0, &[]));
    for stream in (0..count).map(|index| 2 * index + 1) {
        client.extend(frame(1, 4, stream, &[0x83, 0x86]));
        client.extend(frame(0, 1, stream, &vec![7; body]));
        server.extend(frame(1, 4, stream, &[0x88]));
        server.extend(frame(0, 0, stream, &vec![9; body]));
        server.extend(frame(1, 5, stream, &[0x40, 1, b'a', 1, b'b']));
    }
    (client, server)
}

#[test]
fn every_stream_opens_and_ends_once_wherever_segments_are_cut() {
    let (client, server) = exchange(3, 20);
    let opens: Vec<_> = [1, 3, 5].map(Change::Opens).to_vec();
    let ends: Vec<_> = [1, 3, 5].map(Change::Ends).to_vec();
    for cut in PREFACE.len()..client.len() {
        let mut state = http2::opened(99);
        let (told, in_step) = read(&mut state, 100, &client, &[cut], Side::Client);
        assert_eq!((told, in_step), (opens.clone(), true), "cut at {cut}");
        assert_eq!(streams(state.highest), 3);
    }
    for cut in 0..server.len() {
        let mut state = answers(u32::MAX);
        let (told, in_step) = read(&mut state, 0, &server, &[cut], Side::Server);
        assert_eq!((told, in_step), (ends.clone(), true), "cut at {cut}");
    }
}

#[test]
fn a_cut_preface_is_left_to_the_walker_which_is_in_step_then() {
    let (client, _) = exchange(2, 1);
    let mut state = http2::opened(0);
    let (told, in_step) = read(&mut state, 1, &client, &[10, 24], Side::Client);
    assert!(!in_step);
    assert_eq!(told, [Change::Opens(1), Change::Opens(3)]);
}

#[test]
fn what_was_sent_before_is_told_once() {
    let (client, _) = exchange(2, 1);
    let mut state = http2::opened(0);
    let (first, _) = read(&mut state, 1, &client, &[], Side::Client);
    let (again, _) = read(&mut state, 1, &client, &[], Side::Client);
    assert_eq!(first.len(), 2);
    assert!(again.is_empty(), "a retransmission tells nothing");
}

#[test]
fn answers_behind_what_was_not_read_are_told_and_none_is_again() {
    // What an upgrade to h2c is answered with, before the frames begin.
    let (_, server) = exchange(2, 40);
    let switching = b"HTTP/1.1 101 Switching Protocols\r\n\r\n".len() as u32;
    let mut state = answers(99);
    super::skip(&mut state, 100 + switching);
    super::skip(&mut state, 100);
    let (told, in_step) = read(&mut state, 100 + switching, &server, &[], Side::Server);
    assert_eq!(
        (told, in_step),
        ([1, 3].map(Change::Ends).to_vec(), true),
        "a segment that comes late moves nothing back"
    );
}

#[test]
fn what_was_passed_over_is_not_waited_for() {
    let (client, _) = exchange(12, 20);
    let request = (client.len() - PREFACE.len() - 9) / 12;
    let cut = |index: usize| client.len() - (12 - index) * request;
    let mut state = http2::opened(0);
    read(&mut state, 1, &client[..cut(4)], &[], Side::Client);
    let at = 1 + cut(5) as u32;
    super::forsake(&mut state, at);
    let cuts: Vec<usize> = (1..7).map(|index| index * request).collect();
    let (told, _) = read(&mut state, at, &client[cut(5)..], &cuts, Side::Client);
    assert!(
        told.ends_with(&[Change::Opens(21), Change::Opens(23)]),
        "{told:?}"
    );
    assert_eq!(streams(state.highest), 12);
    let before = state;
    super::forsake(&mut state, at);
    assert_eq!(state, before, "nothing is missing");
}

#[test]
fn a_gap_is_not_guessed_over() {
    let (_, server) = exchange(4, 30);
    let mut state = answers(0);
    let bytes = [vec![0; HEADROOM], server].concat();
    let segment = Segment {
        offset: HEADROOM as u32,
        length: 40,
        sequence: 11,
    };
    assert!(Reader::begin(&mut state, &bytes.as_slice(), segment).is_none());
}

#[test]
fn resets_end_streams_and_pushed_streams_are_nobodys() {
    let mut server = frame(3, 0, 7, &[0; 4]);
    server.extend(frame(1, 5, 2, &[0x88]));
    server.extend(frame(1, 4, 9, &[0x88]));
    let (told, _) = read(&mut answers(0), 1, &server, &[], Side::Server);
    assert_eq!(told, [Change::Resets(7)]);
}

#[test]
fn the_first_field_tells_who_sends() {
    for (first, side) in [
        (0x82, Side::Client),  // :method GET
        (0x83, Side::Client),  // :method POST
        (0x41, Side::Client),  // :authority, literal
        (0x04, Side::Client),  // :path, literal, not added to the table
        (0x88, Side::Server),  // :status 200
        (0x48, Side::Server),  // :status, literal
        (0x18, Side::Server),  // :status, never added
        (0xbe, Side::Unknown), // from the dynamic table
        (0x40, Side::Unknown), // a new name: trailers
        (0x3f, Side::Unknown), // the table's new size
    ] {
        assert_eq!(Frame::sender(first), side, "{first:#x}");
    }
}

#[test]
fn the_first_field_is_found_behind_padding_and_priority() {
    for (flags, offset) in [(4, 9), (4 | 8, 10), (4 | 0x20, 14), (4 | 8 | 0x20, 15)] {
        let bytes = [vec![0; HEADROOM], frame(1, flags, 1, &[0; 30])].concat();
        let segment = Segment {
            offset: HEADROOM as u32,
            length: 39,
            sequence: 1,
        };
        let bytes = bytes.as_slice();
        let mut reader = Reader::begin(&mut answers(0), &bytes, segment).unwrap();
        assert_eq!(reader.fetch(&bytes), Read::Frame);
        reader.pass(1);
        assert_eq!(reader.frame.fields(), Some(offset));
    }
}

proptest! {
    #[test]
    fn reader_and_walker_agree_however_segments_are_cut(
        count in 1_u32..20, body in 0_usize..200, mut cuts in prop::collection::vec(24_usize..3000, 0..30)
    ) {
        let (client, _) = exchange(count, body);
        cuts.retain(|cut| *cut < client.len());
        cuts.sort_unstable();
        let mut state = http2::opened(0);
        let (told, _) = read(&mut state, 1, &client, &cuts, Side::Client);
        let mut walker = http2::opened(0);
        let packet = [vec![0; HEADROOM], client.clone()].concat();
        let segment = Segment { offset: HEADROOM as u32, length: client.len() as u32, sequence: 1 };
        http2::walk::<1024, _>(&mut walker, &packet.as_slice(), segment);
        prop_assert_eq!(state.highest, walker.highest);
        prop_assert_eq!(state.phase, phase::SYNCHRONISED);
        prop_assert!(told.len() <= count as usize);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(
        bytes in prop::collection::vec(any::<u8>(), 54..400), next in any::<u32>(), known in 0_u8..24, flags in any::<u8>()
    ) {
        let segment = Segment { offset: 54, length: bytes.len() as u32 - 54, sequence: 7 };
        for next in [next, 7, 6, 3] {
            let mut state = Http2 { next, partial_length: known, flags, phase: 1, ..Http2::default() };
            let bytes = bytes.as_slice();
            if let Some(mut reader) = Reader::begin(&mut state, &bytes, segment) {
                for _ in 0..50 {
                    if reader.fetch(&bytes) != Read::Frame {
                        break;
                    }
                    let opened = reader.frame.opened();
                    if let Some(plain) = reader.frame.plain() {
                        assert_eq!(opened, Some(plain), "what is plain is judged alike");
                    }
                    let Some(opened) = opened else {
                        break;
                    };
                    reader.pass(opened);
                    let _ = reader.change(Side::Server);
                }
                reader.finish(&mut state, &bytes);
            }
        }
    }
}
