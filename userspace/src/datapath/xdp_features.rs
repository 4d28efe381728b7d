//! What the drivers of interfaces can do with XDP, as the kernel says without anything being attached (the `netdev` family of
//! generic netlink, Linux 6.3; include/uapi/linux/netdev.h).

use std::io;

use super::netlink::{HEADER, Protocol, attributes, exchange, field, message, socket};

// Numbers of include/uapi/linux/{genetlink,netdev}.h.
const GENL_ID_CTRL: u16 = 0x10;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;
const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const XDP_ACT_BASIC: u64 = 1 << 0;
const XDP_ACT_REDIRECT: u64 = 1 << 1;
const XDP_ACT_NDO_XMIT: u64 = 1 << 2;
/// Bytes of `struct genlmsghdr`.
const GENERIC_HEADER: usize = 4;

/// What a driver can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Features(u64);

impl Features {
    /// Whether the data path runs in it: it drops, passes, transmits and redirects.
    pub(super) fn native(self) -> bool {
        const NEEDED: u64 = XDP_ACT_BASIC | XDP_ACT_REDIRECT;
        self.0 & NEEDED == NEEDED
    }

    /// Whether it sends what XDP programs of other interfaces redirect to it. Of a veth pair the kernel sets this while the far
    /// end takes such frames (a program, or GRO).
    pub(super) fn takes_frames(self) -> bool {
        self.0 & XDP_ACT_NDO_XMIT != 0
    }
}

/// What the driver of the interface with this index can do; none where the kernel does not say.
pub(super) fn of_interface(index: u32) -> io::Result<Option<Features>> {
    let socket = socket(Protocol::Generic)?;
    let name = (CTRL_ATTR_FAMILY_NAME, b"netdev\0".to_vec());
    let asked = exchange(&socket, &request(GENL_ID_CTRL, CTRL_CMD_GETFAMILY, name));
    let family = match asked {
        Ok(reply) => attribute(&reply, CTRL_ATTR_FAMILY_ID).map(u16::from_ne_bytes),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(None),
        Err(error) => return Err(error),
    };
    let family = family.ok_or(io::ErrorKind::UnexpectedEof)?;
    let index = (NETDEV_A_DEV_IFINDEX, index.to_ne_bytes().to_vec());
    let reply = exchange(&socket, &request(family, NETDEV_CMD_DEV_GET, index))?;
    Ok(parse(&reply))
}

fn request(family: u16, command: u8, attribute: (u16, Vec<u8>)) -> Vec<u8> {
    message(family, 0, &[command, 1, 0, 0], &[attribute])
}

fn parse(reply: &[u8]) -> Option<Features> {
    attribute(reply, NETDEV_A_DEV_XDP_FEATURES).map(|bits| Features(u64::from_ne_bytes(bits)))
}

/// The first bytes of an attribute.
fn attribute<const N: usize>(reply: &[u8], wanted: u16) -> Option<[u8; N]> {
    let mut all = attributes(reply.get(HEADER + GENERIC_HEADER..)?);
    let (_, value) = all.find(|(kind, _)| *kind == wanted)?;
    field(value, 0)
}

#[cfg(test)]
mod tests {
    use aya::util::KernelVersion;

    use super::*;

    fn reply(features: u64) -> Vec<u8> {
        let features = features.to_ne_bytes().to_vec();
        request(
            30,
            NETDEV_CMD_DEV_GET,
            (NETDEV_A_DEV_XDP_FEATURES, features),
        )
    }

    #[test]
    fn a_driver_is_native_if_it_redirects_too() {
        let native = |features| parse(&reply(features)).map(Features::native);
        assert_eq!(
            native(XDP_ACT_BASIC | XDP_ACT_REDIRECT | 1 << 6),
            Some(true)
        );
        assert_eq!(native(XDP_ACT_BASIC), Some(false));
        assert_eq!(native(0), Some(false));
    }

    #[test]
    fn a_cut_or_garbled_answer_says_nothing_and_panics_not() {
        let whole = reply(3);
        for length in 0..whole.len() {
            assert_eq!(parse(&whole[..length]), None);
        }
        for position in 0..whole.len() {
            let mut garbled = whole.clone();
            garbled[position] ^= 0xff;
            parse(&garbled);
        }
    }

    #[test]
    fn loopback_has_no_driver_that_takes_xdp() {
        // Index 1 is lo in every network namespace.
        let features = of_interface(1).expect("the kernel answers");
        let says = KernelVersion::current().expect("a version").code()
            >= KernelVersion::new(6, 3, 0).code();
        assert_eq!(features.map(Features::native), says.then_some(false));
    }
}
