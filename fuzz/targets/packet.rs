//! Any frame that a network card may hand over.
//!
//! Promise: what is found of a packet that is called sound lies inside of the frame, and checksums can be changed and
//! changed back.

#![no_main]

use evenkeel_ebpf::packet::{Change, ETHERNET_LENGTH, IPV4_LENGTH, Parsed, TCP_LENGTH, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|frame: &[u8]| {
    let length = frame.len() as u32;
    if let Parsed::Tcp(packet) = parse(frame, length) {
        if !packet.sound {
            return;
        }
        assert!(packet.transport >= ETHERNET_LENGTH + IPV4_LENGTH);
        assert!(packet.payload >= packet.transport + TCP_LENGTH);
        assert!(packet.payload + packet.payload_length <= length);
        assert_eq!(packet.length, packet.headers() + packet.payload_length);
        let (old, new) = (packet.sequence, packet.tuple.source.words[3]);
        let there = Change::default().word(old, new);
        let back = Change::default().word(new, old);
        // The two zeros of a one's complement sum are the same checksum.
        let checksum = packet.tuple.source_port;
        let again = back.apply(there.apply(checksum));
        assert!(again == checksum || again ^ checksum == 0xffff);
    }
});
