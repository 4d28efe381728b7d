//! The frames that are measured, patched in place: building them anew would empty the caches under test.

use std::net::Ipv4Addr;

use super::{ACK, OTHER, PORT, SERVICE, SYN};

/// Ethernet, IPv4 and TCP without options.
const HEADERS: usize = 54;
/// Offsets in the frame.
const LENGTH: usize = 16;
const SOURCE: usize = 26;
const DESTINATION: usize = 30;
const SOURCE_PORT: usize = 34;
const DESTINATION_PORT: usize = 36;
const SEQUENCE: usize = 38;
const FLAGS: usize = 47;
/// The flow under test.
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 255, 255, 1);
const CLIENT_PORT: u16 = 50_000;
/// Sequence number of the first request of flows that begin in step.
pub(super) const FIRST_SEQUENCE: u32 = 1_000_000;
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An empty SETTINGS frame (RFC 9113 section 6.5).
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
/// Header block of a warm connection: most of it is in the dynamic table.
const BLOCK: usize = 40;
/// A small gRPC message with its five bytes of prefix.
const MESSAGE: usize = 25;
pub(super) const REQUEST: usize = 9 + BLOCK + 9 + MESSAGE;
/// A full segment, and so many of them to a request with a body.
pub(super) const SEGMENT: usize = 1448;
pub(super) const SEGMENTS: u32 = 8;

/// Makes one frame after the other in the same memory.
pub(super) struct FrameBuilder {
    bytes: [u8; HEADERS + SEGMENT],
    sequence: u32,
    stream: u32,
}

/// The client of the `index`-th of many flows.
pub(super) fn client(index: u32) -> (Ipv4Addr, u16) {
    let [_, high, low, _] = (index << 2).to_be_bytes();
    // 10.x.y.1, 1,024 ports each.
    let port = 1024 + u16::try_from(index % 1024).unwrap_or(0);
    (Ipv4Addr::new(10, high, low, 1), port)
}

impl FrameBuilder {
    pub(super) fn new() -> Self {
        let mut bytes = [0; HEADERS + SEGMENT];
        bytes[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
        bytes[12] = 0x08;
        bytes[14] = 0x45;
        // Don't fragment; TTL 64; TCP. The checksums stay wrong: nobody reads them, they are only adjusted.
        bytes[20] = 0x40;
        bytes[22] = 64;
        bytes[23] = 6;
        bytes[DESTINATION_PORT..DESTINATION_PORT + 2].copy_from_slice(&PORT.to_be_bytes());
        bytes[46] = 5 << 4;
        Self {
            bytes,
            sequence: FIRST_SEQUENCE,
            stream: 1,
        }
    }

    fn write(
        &mut self,
        source: (Ipv4Addr, u16),
        destination: Ipv4Addr,
        flags: u8,
        payload: usize,
    ) -> &[u8] {
        let total = u16::try_from(HEADERS - 14 + payload).unwrap_or(u16::MAX);
        self.bytes[LENGTH..LENGTH + 2].copy_from_slice(&total.to_be_bytes());
        self.bytes[SOURCE..SOURCE + 4].copy_from_slice(&source.0.octets());
        self.bytes[DESTINATION..DESTINATION + 4].copy_from_slice(&destination.octets());
        self.bytes[SOURCE_PORT..SOURCE_PORT + 2].copy_from_slice(&source.1.to_be_bytes());
        self.bytes[SEQUENCE..SEQUENCE + 4].copy_from_slice(&self.sequence.to_be_bytes());
        self.bytes[FLAGS] = flags;
        &self.bytes[..HEADERS + payload]
    }

    /// A SYN; `u32::MAX` opens the flow under test, any other number a flow of its own.
    pub(super) fn opening(&mut self, number: u32) -> &[u8] {
        let source = if number == u32::MAX {
            (CLIENT, CLIENT_PORT)
        } else {
            // The same ports as the many flows, at addresses of their own.
            let (address, port) = client(number);
            let [_, high, low, last] = address.octets();
            (Ipv4Addr::new(11, high, low, last), port)
        };
        self.write(source, SERVICE, SYN, 0)
    }

    /// What an HTTP/2 client sends first.
    pub(super) fn preface(&mut self) -> &[u8] {
        self.sequence = self.sequence.wrapping_add(1);
        let length = PREFACE.len() + SETTINGS.len();
        self.bytes[HEADERS..HEADERS + PREFACE.len()].copy_from_slice(PREFACE);
        self.bytes[HEADERS + PREFACE.len()..HEADERS + length].copy_from_slice(&SETTINGS);
        self.write((CLIENT, CLIENT_PORT), SERVICE, ACK, length)
    }

    /// From here on the payload is requests.
    pub(super) fn begin_requests(&mut self) {
        self.sequence = self
            .sequence
            .wrapping_add((PREFACE.len() + SETTINGS.len()) as u32);
        let payload = &mut self.bytes[HEADERS..];
        payload.fill(0);
        // HEADERS with END_HEADERS, then DATA with END_STREAM (RFC 9113 sections 6.1 and 6.2).
        payload[2] = BLOCK as u8;
        payload[3] = 1;
        payload[4] = 4;
        payload[9 + BLOCK + 2] = MESSAGE as u8;
        payload[9 + BLOCK + 4] = 1;
    }

    /// The next request of the flow under test.
    pub(super) fn request(&mut self) -> &[u8] {
        let stream = self.stream.to_be_bytes();
        self.bytes[HEADERS + 5..HEADERS + 9].copy_from_slice(&stream);
        let data = HEADERS + 9 + BLOCK;
        self.bytes[data + 5..data + 9].copy_from_slice(&stream);
        self.write((CLIENT, CLIENT_PORT), SERVICE, ACK, REQUEST);
        self.stream += 2;
        self.sequence = self.sequence.wrapping_add(REQUEST as u32);
        &self.bytes[..HEADERS + REQUEST]
    }

    /// Request `number` (from 0) of the `index`-th of many flows, to the service at `port`.
    pub(super) fn request_of(&mut self, index: u32, port: u16, number: u32) -> &[u8] {
        let stream = number.wrapping_mul(2).wrapping_add(1).to_be_bytes();
        self.bytes[HEADERS + 5..HEADERS + 9].copy_from_slice(&stream);
        let data = HEADERS + 9 + BLOCK;
        self.bytes[data + 5..data + 9].copy_from_slice(&stream);
        self.bytes[DESTINATION_PORT..DESTINATION_PORT + 2].copy_from_slice(&port.to_be_bytes());
        self.sequence = FIRST_SEQUENCE.wrapping_add(number.wrapping_mul(REQUEST as u32));
        self.write(client(index), SERVICE, ACK, REQUEST)
    }

    /// Segment `number` (from 0) of an upload by the `index`-th of many flows: one in [`SEGMENTS`] begins with a
    /// request, whose body fills it and the others.
    pub(super) fn upload_of(&mut self, index: u32, number: u32) -> &[u8] {
        let payload = &mut self.bytes[HEADERS..];
        if number.is_multiple_of(SEGMENTS) {
            let stream = (number / SEGMENTS)
                .wrapping_mul(2)
                .wrapping_add(1)
                .to_be_bytes();
            let body = SEGMENTS * SEGMENT as u32 - (9 + BLOCK + 9) as u32;
            payload[..9].copy_from_slice(&[0, 0, BLOCK as u8, 1, 4, 0, 0, 0, 0]);
            payload[5..9].copy_from_slice(&stream);
            let data = &mut payload[9 + BLOCK..];
            data[..3].copy_from_slice(&body.to_be_bytes()[1..]);
            data[3..5].copy_from_slice(&[0, 1]);
            data[5..9].copy_from_slice(&stream);
        }
        self.sequence = FIRST_SEQUENCE.wrapping_add(number.wrapping_mul(SEGMENT as u32));
        self.write(client(index), SERVICE, ACK, SEGMENT)
    }

    /// A SYN as [`Self::opening`], to the service at `port`.
    pub(super) fn opening_to(&mut self, number: u32, port: u16) -> &[u8] {
        self.bytes[DESTINATION_PORT..DESTINATION_PORT + 2].copy_from_slice(&port.to_be_bytes());
        self.opening(number)
    }

    /// A bare acknowledgement of the flow under test.
    pub(super) fn acknowledgement(&mut self) -> &[u8] {
        self.write((CLIENT, CLIENT_PORT), SERVICE, ACK, 0)
    }

    /// A packet to the service's port at an address that is no service.
    pub(super) fn unrelated(&mut self) -> &[u8] {
        self.write((CLIENT, CLIENT_PORT), OTHER, ACK, 0)
    }

    /// An acknowledgement of the `index`-th of many flows.
    pub(super) fn of_flow(&mut self, index: u32) -> &[u8] {
        self.write(client(index), SERVICE, ACK, 0)
    }
}
