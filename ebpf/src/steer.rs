//! `sk_lookup`: hands connections to a service at `l7` to the proxy's listening socket, so that the proxy needs no
//! socket for each service and no port of its own is reachable.
//!
//! What comes here was passed by the data path (or came from this host itself). A SYN of a flow that is recorded as
//! local goes to the proxy whatever the mode is by now: it may be a retransmission.

use aya_ebpf::programs::SkLookupContext;
use evenkeel_ebpf::abi::{Address, Event, PROTOCOL_TCP, ServiceKey, Tuple, flag, mode};

use crate::count;
use crate::flow_table::{Flows, find};
use crate::maps::{SERVICES, STEER_SOCKETS};

/// `AF_INET`.
const AF_INET: u32 = 2;

/// Chooses the socket, where it is for us to choose.
#[inline(always)]
pub fn steer(context: &SkLookupContext) {
    let ask = context.lookup;
    // SAFETY: fields of the program's own context.
    let (family, protocol, local, local_port, remote, remote_port) = unsafe {
        (
            (*ask).family,
            (*ask).protocol,
            (*ask).local_ip4,
            (*ask).local_port as u16,
            (*ask).remote_ip4,
            (*ask).remote_port,
        )
    };
    if family != AF_INET || protocol != u32::from(PROTOCOL_TCP) {
        return;
    }
    let key = ServiceKey {
        address: Address::from_v4_word(local),
        // The local port comes in host byte order, the remote one in network byte order.
        port: local_port.to_be(),
        protocol: PROTOCOL_TCP,
        reserved: [0; 5],
    };
    // SAFETY: read before anything else happens to the map.
    let Some(service) = (unsafe { SERVICES.get(key) }) else {
        return;
    };
    if service.mode != mode::L7 && !is_local(&key, remote, remote_port) {
        return;
    }
    if STEER_SOCKETS.redirect_sk_lookup(context, 0, 0).is_err() {
        count::event(Event::SteerNoSocket);
    }
}

#[inline(always)]
fn is_local(service: &ServiceKey, client: u32, client_port: u16) -> bool {
    let key = Tuple {
        source: Address::from_v4_word(client),
        destination: service.address,
        source_port: client_port,
        destination_port: service.port,
        protocol: service.protocol,
        reserved: [0; 3],
    };
    // SAFETY: a live map value.
    find::<Flows>(&key).is_some_and(|flow| unsafe { (*flow).flags } & flag::LOCAL != 0)
}
