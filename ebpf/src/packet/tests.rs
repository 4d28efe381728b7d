//! What packet.rs promises, checked on arbitrary bytes and against full recomputation.

use super::{Bytes, Change, ETHERNET_LENGTH, Packet, Parsed, Window, parse, tcp};
use crate::abi::{Address, PROTOCOL_TCP};
use proptest::prelude::*;

/// The checksum of RFC 1071 over whole bytes, computed from nothing; 0 where they hold their own.
pub(super) fn full(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([
            pair[0],
            pair.get(1).copied().unwrap_or(0),
        ]));
    }
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// A frame that holds a TCP packet with `options` 32-bit words of IP options and `payload` bytes.
fn frame(options: u8, payload: u16, flags: u8) -> Vec<u8> {
    let header = 20 + usize::from(options) * 4;
    let total = (header + 20 + usize::from(payload)) as u16;
    let mut f = vec![0u8; usize::from(total) + ETHERNET_LENGTH as usize];
    f[12] = 0x08;
    f[14] = 0x45 + options;
    f[16..18].copy_from_slice(&total.to_be_bytes());
    f[22] = 64;
    f[23] = PROTOCOL_TCP;
    f[26..30].copy_from_slice(&[10, 0, 0, 1]);
    f[30..34].copy_from_slice(&[10, 0, 0, 2]);
    let t = 14 + header;
    f[t..t + 2].copy_from_slice(&40000u16.to_be_bytes());
    f[t + 2..t + 4].copy_from_slice(&80u16.to_be_bytes());
    f[t + 4..t + 8].copy_from_slice(&0x0102_0304u32.to_be_bytes());
    f[t + 12] = 5 << 4;
    f[t + 13] = flags;
    f
}

fn tcp_packet(frame: &[u8]) -> Packet {
    match parse(frame, frame.len() as u32) {
        Parsed::Tcp(packet) => packet,
        other => panic!("not TCP: {other:?}"),
    }
}

proptest! {
    #[test]
    fn any_bytes_parse_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), length in any::<u32>()) {
        let _ = parse(&bytes[..], length);
    }

    #[test]
    fn any_ipv4_frame_stays_inside_itself(mut bytes in prop::collection::vec(any::<u8>(), 14..200)) {
        bytes[12] = 8;
        bytes[13] = 0;
        if let Some(b) = bytes.get_mut(14) { *b = 0x40 | (*b & 0xf); }
        if let Some(b) = bytes.get_mut(23) { *b = PROTOCOL_TCP; }
        if let Parsed::Tcp(packet) = parse(&bytes[..], bytes.len() as u32) && packet.sound {
            prop_assert!((packet.payload + packet.payload_length) as usize <= bytes.len());
            prop_assert_eq!(packet.headers() + packet.payload_length, packet.length);
        }
    }

    #[test]
    fn a_sound_frame_is_located_exactly(options in 0u8..=10, payload in 0u16..1400, flags in any::<u8>()) {
        let packet = tcp_packet(&frame(options, payload, flags));
        prop_assert!(packet.sound);
        prop_assert_eq!(packet.transport, 34 + u32::from(options) * 4);
        prop_assert_eq!(packet.payload, 54 + u32::from(options) * 4);
        prop_assert_eq!(packet.payload_length, u32::from(payload));
        prop_assert_eq!(packet.sequence, 0x0102_0304);
        prop_assert_eq!(packet.flags, flags);
        prop_assert_eq!(packet.tuple.source, Address::from_v4_word(u32::from_ne_bytes([10, 0, 0, 1])));
        prop_assert_eq!(packet.tuple.destination_port, 80u16.to_be());
    }

    #[test]
    fn an_incremental_checksum_equals_a_full_one(
        mut bytes in prop::collection::vec(any::<u8>(), 40),
        words in prop::collection::vec((0usize..8, any::<u32>()), 0..6),
        half in any::<u16>(),
    ) {
        // The checksum lies at 36; the two bytes behind it keep the words aligned.
        bytes[36..40].fill(0);
        let before = full(&bytes);
        let mut change = Change::default();
        for (at, new) in words {
            let field = &mut bytes[at * 4..at * 4 + 4];
            let old = u32::from_ne_bytes([field[0], field[1], field[2], field[3]]);
            change = change.word(old, new);
            field.copy_from_slice(&new.to_ne_bytes());
        }
        let old = u16::from_ne_bytes([bytes[34], bytes[35]]);
        change = change.and(Change::default().half(old, half));
        bytes[34..36].copy_from_slice(&half.to_ne_bytes());
        let after = u16::from_be(change.apply(before.to_be()));
        // Verified the way a receiver does it: the sum over everything, checksum included, is all ones.
        bytes[36..38].copy_from_slice(&after.to_be_bytes());
        prop_assert!(full(&bytes) == 0 || full(&bytes) == 0xffff);
    }

    #[test]
    fn a_window_never_shows_what_lies_outside(
        bytes in prop::collection::vec(any::<u8>(), 0..64),
        start in 0u32..80,
        length in 0u32..80,
        offset in any::<u32>(),
    ) {
        let window = Window { bytes: &bytes[..], start, length };
        for offset in [offset, offset % 80] {
            if let Some(found) = window.load::<4>(offset) {
                prop_assert!(offset + 4 <= length);
                let at = (start + offset) as usize;
                prop_assert_eq!(&found[..], &bytes[at..at + 4]);
            }
        }
    }
}

#[test]
fn lengths_that_contradict_each_other_are_not_sound() {
    let mut short = frame(0, 10, tcp::ACK);
    short.truncate(60);
    assert!(!tcp_packet(&short).sound, "IP total beyond the frame");
    let mut offset = frame(0, 10, tcp::ACK);
    offset[34 + 12] = 4 << 4;
    assert!(!tcp_packet(&offset).sound, "TCP header below 20 bytes");
    offset[34 + 12] = 15 << 4;
    assert!(!tcp_packet(&offset).sound, "TCP header beyond the packet");
}

#[test]
fn padding_is_not_payload() {
    let mut padded = frame(0, 0, tcp::ACK);
    padded.resize(60, 0xff);
    let packet = tcp_packet(&padded);
    assert!(packet.sound);
    assert_eq!(packet.payload_length, 0);
}

#[test]
fn fragments_are_told_apart() {
    let mut first = frame(0, 10, tcp::ACK);
    first[20] = 0x20;
    assert!(matches!(
        parse(&first[..], first.len() as u32),
        Parsed::Fragment(t) if t.destination_port == 80u16.to_be()
    ));
    let mut later = frame(0, 10, tcp::ACK);
    later[21] = 1;
    assert_eq!(parse(&later[..], later.len() as u32), Parsed::Other);
}

#[test]
fn only_a_syn_without_ack_opens() {
    assert!(tcp_packet(&frame(0, 0, tcp::SYN)).opens());
    assert!(!tcp_packet(&frame(0, 0, tcp::SYN | tcp::ACK)).opens());
    assert!(!tcp_packet(&frame(0, 0, tcp::ACK)).opens());
}
