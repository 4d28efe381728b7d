//! Asking the kernel to resolve the link-layer addresses of backends beforehand, so that the first packets of XDP
//! find them: XDP cannot send ARP requests itself.

use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, SocketAddr};

use aya::util::KernelVersion;

use super::netlink::{
    HEADER, NLM_F_ACK, NLM_F_CREATE, Protocol, attributes, exchange, field, message, socket,
};
use super::{Datapath, DatapathError};

// Numbers of the netlink ABI, include/uapi/linux/{rtnetlink,neighbour}.h.
const RTM_GETLINK: u16 = 18;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWNEIGH: u16 = 28;
const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
const NDA_DST: u16 = 1;
const NDA_FLAGS_EXT: u16 = 15;
const NTF_USE: u8 = 1;
const NTF_EXT_MANAGED: u32 = 1;
const ROUTE_HEADER: usize = 12;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

impl Datapath {
    /// Has the kernel resolve the neighbour towards each backend and, from Linux 5.16 on, keep it resolved. Backends
    /// without a route, or on this host, are passed over. Gives the number of neighbours asked for.
    pub fn warm_neighbours(&self) -> Result<usize, DatapathError> {
        let backends = self.indexes.backends.occupied().filter(|(.., live)| *live);
        let addresses = backends.map(|(_, id, _)| super::address::socket_of_key(&id.address));
        warm(addresses).map_err(|source| DatapathError::Netlink {
            action: "ask for neighbours",
            source,
        })
    }
}

/// Names of the interfaces of the calling thread's network namespace.
pub(super) fn interfaces() -> io::Result<Vec<String>> {
    // Two lines of headings, then `  name: figures`.
    let table = BufReader::new(std::fs::File::open("/proc/thread-self/net/dev")?);
    table
        .lines()
        .skip(2)
        .filter_map(|line| {
            line.map(|line| line.split_once(':').map(|(name, _)| name.trim().to_owned()))
                .transpose()
        })
        .collect()
}

/// What kind of packets the interface with this index carries: an `ARPHRD_` number of include/uapi/linux/if_arp.h.
/// /sys would tell, too, but /sys shows the network namespace that it was mounted in.
pub(super) fn interface_kind(index: u32) -> io::Result<u16> {
    let socket = socket(Protocol::Route)?;
    // struct ifinfomsg: family, padding, type (16 bits), index, flags, change.
    let mut body = [0; 16];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    let reply = exchange(&socket, &message(RTM_GETLINK, 0, &body, &[]))?;
    field(&reply, HEADER + 2)
        .map(u16::from_ne_bytes)
        .ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

fn warm(backends: impl Iterator<Item = SocketAddr>) -> io::Result<usize> {
    let socket = socket(Protocol::Route)?;
    // NDA_FLAGS_EXT came with 5.16 (kernel commit 2c611ad97a82) and earlier kernels do not refuse what they ignore.
    let managed = KernelVersion::current()
        .is_ok_and(|version| version.code() >= KernelVersion::new(5, 16, 0).code());
    let mut asked = 0;
    for backend in backends {
        let Some(hop) = next_hop(&socket, backend.ip())? else {
            continue;
        };
        exchange(&socket, &neighbour_request(hop, managed))?;
        asked += 1;
    }
    Ok(asked)
}

/// Whether this host delivers packets for `address` to itself. The routes say so, unlike an attempt to bind it, which always
/// works with `net.ipv4.ip_nonlocal_bind`, as balancers with keepalived have it.
pub fn is_local(address: IpAddr) -> io::Result<bool> {
    let reply = route(&socket(Protocol::Route)?, address)?;
    Ok(reply.is_some_and(|reply| parse_kind(&reply) == Some(RTN_LOCAL)))
}

/// Who a packet is handed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct NextHop {
    interface: u32,
    address: IpAddr,
}

fn next_hop(socket: &impl std::os::fd::AsFd, to: IpAddr) -> io::Result<Option<NextHop>> {
    Ok(route(socket, to)?.and_then(|reply| parse_route(&reply, to)))
}

/// The kernel's route to an address, as its message.
fn route(socket: &impl std::os::fd::AsFd, to: IpAddr) -> io::Result<Option<Vec<u8>>> {
    match exchange(socket, &route_request(to)) {
        Ok(reply) => Ok(Some(reply)),
        // No route: unreachable, prohibited, or none at all.
        Err(error)
            if matches!(
                error.raw_os_error(),
                Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL)
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { AF_INET } else { AF_INET6 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn route_request(to: IpAddr) -> Vec<u8> {
    let destination = octets(to);
    let bits = u8::try_from(destination.len() * 8).unwrap_or(0);
    let mut body = [0; ROUTE_HEADER];
    body[0] = family(to);
    body[1] = bits;
    message(RTM_GETROUTE, 0, &body, &[(RTA_DST, destination)])
}

/// The kind of the route in the answer to [`route_request`], an `RTN_` number.
fn parse_kind(reply: &[u8]) -> Option<u8> {
    let kind = field(reply, 4).map(u16::from_ne_bytes)?;
    (kind == RTM_NEWROUTE).then_some(*reply.get(HEADER + 7)?)
}

/// The next hop in the answer to [`route_request`]; none if the destination is this host itself or a broadcast.
fn parse_route(reply: &[u8], to: IpAddr) -> Option<NextHop> {
    if parse_kind(reply)? != RTN_UNICAST {
        return None;
    }
    let mut interface = None;
    let mut address = to;
    for (kind, value) in attributes(reply.get(HEADER + ROUTE_HEADER..)?) {
        match kind {
            RTA_OIF => interface = field(value, 0).map(u32::from_ne_bytes),
            RTA_GATEWAY => {
                address = field::<4>(value, 0)
                    .filter(|_| value.len() == 4)
                    .map(IpAddr::from)
                    .or_else(|| field::<16>(value, 0).map(IpAddr::from))?;
            }
            _ => {}
        }
    }
    Some(NextHop {
        interface: interface?,
        address,
    })
}

fn neighbour_request(hop: NextHop, managed: bool) -> Vec<u8> {
    let mut body = [0; 12];
    body[0] = family(hop.address);
    body[4..8].copy_from_slice(&hop.interface.to_ne_bytes());
    let mut attributes = vec![(NDA_DST, octets(hop.address))];
    if managed {
        attributes.push((NDA_FLAGS_EXT, NTF_EXT_MANAGED.to_ne_bytes().to_vec()));
    } else {
        body[10] = NTF_USE;
    }
    message(RTM_NEWNEIGH, NLM_F_ACK | NLM_F_CREATE, &body, &attributes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(kind: u8, attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
        let mut body = [0; ROUTE_HEADER];
        body[7] = kind;
        message(RTM_NEWROUTE, 0, &body, attributes)
    }

    #[test]
    fn the_gateway_is_the_next_hop_where_there_is_one() {
        let to = IpAddr::from([10, 0, 0, 9]);
        let interface = (RTA_OIF, 7_u32.to_ne_bytes().to_vec());
        let gateway = (RTA_GATEWAY, vec![192, 0, 2, 1]);
        let direct = route(RTN_UNICAST, std::slice::from_ref(&interface));
        assert_eq!(
            parse_route(&direct, to),
            Some(NextHop {
                interface: 7,
                address: to
            })
        );
        let routed = route(RTN_UNICAST, &[interface.clone(), gateway]);
        assert_eq!(
            parse_route(&routed, to).map(|hop| hop.address),
            Some(IpAddr::from([192, 0, 2, 1]))
        );
        assert_eq!(
            parse_route(&route(RTN_LOCAL, &[interface]), to),
            None,
            "local addresses have no neighbour"
        );
    }

    #[test]
    fn what_this_host_delivers_to_itself_is_local_and_nothing_else() {
        for (address, local) in [
            ([127, 0, 0, 1], true),
            ([127, 1, 2, 3], true),
            // TEST-NET-3 (RFC 5737): nobody has it.
            ([203, 0, 113, 7], false),
        ] {
            let said = is_local(IpAddr::from(address)).expect("the kernel answers");
            assert_eq!(said, local, "{address:?}");
        }
    }

    #[test]
    fn a_cut_or_garbled_answer_is_no_route_and_no_panic() {
        let to = IpAddr::from([10, 0, 0, 9]);
        let whole = route(
            RTN_UNICAST,
            &[
                (RTA_OIF, 7_u32.to_ne_bytes().to_vec()),
                (RTA_GATEWAY, vec![1, 2, 3, 4]),
            ],
        );
        for length in 0..whole.len() {
            parse_route(&whole[..length], to);
        }
        for position in 0..whole.len() {
            let mut garbled = whole.clone();
            garbled[position] ^= 0xff;
            parse_route(&garbled, to);
        }
    }
}
