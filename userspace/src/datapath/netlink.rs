//! Netlink messages: one request, one answer (RFC 3549; include/uapi/linux/netlink.h).

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, netlink};

const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 0x1;
/// Asks for an answer where there would be none.
pub(super) const NLM_F_ACK: u16 = 0x4;
/// Makes what is not there.
pub(super) const NLM_F_CREATE: u16 = 0x400;
/// Bytes of the header of every message.
pub(super) const HEADER: usize = 16;

/// Whom a socket talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// Interfaces, routes, neighbours.
    Route,
    /// Families that have names.
    Generic,
}

/// A socket to the kernel.
pub(super) fn socket(protocol: Protocol) -> io::Result<OwnedFd> {
    let protocol = match protocol {
        // Number 0.
        Protocol::Route => None,
        Protocol::Generic => Some(netlink::GENERIC),
    };
    let socket = rustix::net::socket(AddressFamily::NETLINK, SocketType::RAW, protocol)?;
    Ok(socket)
}

/// Sends one request and gives its answer: the message, or the error that the kernel replied with.
pub(super) fn exchange(socket: &impl std::os::fd::AsFd, request: &[u8]) -> io::Result<Vec<u8>> {
    rustix::net::send(socket, request, SendFlags::empty())?;
    let mut buffer = vec![0; 8192];
    let (length, _) = rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty())?;
    buffer.truncate(length);
    if field(&buffer, 4).map(u16::from_ne_bytes) == Some(NLMSG_ERROR) {
        let code = field(&buffer, HEADER).map_or(-libc::EPROTO, i32::from_ne_bytes);
        if code != 0 {
            return Err(io::Error::from_raw_os_error(-code));
        }
    }
    Ok(buffer)
}

pub(super) fn field<const N: usize>(message: &[u8], offset: usize) -> Option<[u8; N]> {
    message.get(offset..)?.first_chunk().copied()
}

/// A request with these attributes.
pub(super) fn message(
    kind: u16,
    flags: u16,
    body: &[u8],
    attributes: &[(u16, Vec<u8>)],
) -> Vec<u8> {
    let mut bytes = vec![0; HEADER];
    bytes.extend_from_slice(body);
    for (kind, value) in attributes {
        // Our attributes are at most 16 bytes.
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        bytes.extend_from_slice(&length.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    bytes[0..4].copy_from_slice(&length.to_ne_bytes());
    bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
    bytes[6..8].copy_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
    bytes
}

/// The attributes in `bytes`: kinds and values. Ends where they are cut.
pub(super) fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(field(rest, 0).map(u16::from_ne_bytes)?);
        let kind = field(rest, 2).map(u16::from_ne_bytes)?;
        let value = rest.get(4..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}
