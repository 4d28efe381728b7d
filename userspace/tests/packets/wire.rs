//! Frames, made whole every time: what a packet must look like is computed here from scratch, checksums by summing
//! all of it, while the data path only adjusts what it changes.

use std::net::Ipv4Addr;

/// Flags of TCP.
pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const ACK: u8 = 16;

/// A TCP packet over IPv4.
#[derive(Clone, Debug)]
pub struct Tcp {
    pub macs: ([u8; 6], [u8; 6]),
    pub vlan: Option<u16>,
    pub source: (Ipv4Addr, u16),
    pub destination: (Ipv4Addr, u16),
    pub sequence: u32,
    pub flags: u8,
    pub ttl: u8,
    /// The word with the fragment's flags and offset.
    pub fragment: u16,
    pub ip_options: Vec<u8>,
    pub tcp_options: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Tcp {
    pub fn new(source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16), flags: u8) -> Self {
        Self {
            macs: ([2, 0, 0, 0, 0, 0xaa], [2, 0, 0, 0, 0, 0xbb]),
            vlan: None,
            source,
            destination,
            sequence: 1000,
            flags,
            ttl: 64,
            fragment: 0x4000,
            ip_options: Vec::new(),
            tcp_options: Vec::new(),
            payload: Vec::new(),
        }
    }

    pub fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// As the next host sees it: other addresses, one hop less to live.
    pub fn forwarded(
        &self,
        macs: ([u8; 6], [u8; 6]),
        source: (Ipv4Addr, u16),
        destination: (Ipv4Addr, u16),
    ) -> Self {
        Self {
            macs,
            source,
            destination,
            ttl: self.ttl - 1,
            ..self.clone()
        }
    }

    /// The IP packet.
    pub fn ip(&self) -> Vec<u8> {
        let header = 20 + self.tcp_options.len();
        let mut tcp = Vec::new();
        tcp.extend(self.source.1.to_be_bytes());
        tcp.extend(self.destination.1.to_be_bytes());
        tcp.extend(self.sequence.to_be_bytes());
        tcp.extend(77_u32.to_be_bytes());
        tcp.extend([(header / 4 * 16) as u8, self.flags, 0xff, 0xf0, 0, 0, 0, 0]);
        tcp.extend(&self.tcp_options);
        tcp.extend(&self.payload);
        let mut pseudo = [self.source.0.octets(), self.destination.0.octets()].concat();
        pseudo.extend([0, 6]);
        pseudo.extend((tcp.len() as u16).to_be_bytes());
        pseudo.extend(&tcp);
        let sum = checksum(&pseudo);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        let (source, destination) = (self.source.0, self.destination.0);
        let mut ip = ipv4(source, destination, 6, self.ttl, &self.ip_options, &tcp);
        ip[6..8].copy_from_slice(&self.fragment.to_be_bytes());
        finish(&mut ip);
        ip
    }

    /// The frame.
    pub fn frame(&self) -> Vec<u8> {
        let mut frame = ethernet(self.macs);
        if let Some(vlan) = self.vlan {
            frame.truncate(12);
            frame.extend([0x81, 0]);
            frame.extend(vlan.to_be_bytes());
            frame.extend([8, 0]);
        }
        frame.extend(self.ip());
        frame
    }

    /// Length that is counted: from the IP header.
    pub fn length(&self) -> u64 {
        self.ip().len() as u64
    }
}

/// An ICMP error (type 3, code 4: fragmentation needed) about the packet that starts with `inner`.
pub fn icmp_error(
    macs: ([u8; 6], [u8; 6]),
    (source, destination): (Ipv4Addr, Ipv4Addr),
    ttl: u8,
    inner: &[u8],
) -> Vec<u8> {
    let mut icmp = vec![3, 4, 0, 0, 0, 0, 5, 0x14];
    icmp.extend(inner);
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = ethernet(macs);
    frame.extend(ipv4(source, destination, 1, ttl, &[], &icmp));
    frame
}

/// An ICMP error of the balancer's own: of this type, code and MTU, about the packet that starts with `inner`.
pub fn own_icmp_error(
    macs: ([u8; 6], [u8; 6]),
    (source, destination): (Ipv4Addr, Ipv4Addr),
    (kind, code, mtu): (u8, u8, u16),
    inner: &[u8],
) -> Vec<u8> {
    let mut icmp = vec![kind, code, 0, 0, 0, 0];
    icmp.extend(mtu.to_be_bytes());
    icmp.extend(inner);
    let sum = checksum(&icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut ip = ipv4(source, destination, 1, 64, &[], &icmp);
    // Type of service "internetwork control", no identification.
    ip[1] = 0xc0;
    ip[4..6].fill(0);
    finish(&mut ip);
    [ethernet(macs), ip].concat()
}

fn ethernet((destination, source): ([u8; 6], [u8; 6])) -> Vec<u8> {
    [&destination[..], &source[..], &[8, 0]].concat()
}

fn ipv4(
    source: Ipv4Addr,
    destination: Ipv4Addr,
    protocol: u8,
    ttl: u8,
    options: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let header = 20 + options.len();
    let mut ip = vec![0x40 | (header / 4) as u8, 0];
    ip.extend(((header + payload.len()) as u16).to_be_bytes());
    ip.extend([0x12, 0x34, 0x40, 0, ttl, protocol, 0, 0]);
    ip.extend(source.octets());
    ip.extend(destination.octets());
    ip.extend(options);
    ip.extend(payload);
    finish(&mut ip);
    ip
}

/// Computes the checksum of an IP header.
fn finish(ip: &mut [u8]) {
    let header = usize::from(ip[0] & 15) * 4;
    ip[10..12].fill(0);
    let sum = checksum(&ip[..header]);
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
}

/// RFC 1071, word by word.
pub fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
