//! Between `std` addresses and the map layout: network byte order, IPv4 in its IPv4-mapped form.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use evenkeel_ebpf::abi::{Address, ServiceKey, Tuple};

/// The map form of `address`.
pub(super) fn address_of(address: IpAddr) -> Address {
    let octets = match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let mut words = [0; 4];
    for (word, bytes) in words.iter_mut().zip(octets.as_chunks::<4>().0) {
        *word = u32::from_ne_bytes(*bytes);
    }
    Address { words }
}

/// The address that a map holds, IPv4-mapped ones as IPv4.
pub(super) fn ip_of(address: &Address) -> IpAddr {
    let mut octets = [0; 16];
    for (bytes, word) in octets.as_chunks_mut::<4>().0.iter_mut().zip(address.words) {
        *bytes = word.to_ne_bytes();
    }
    Ipv6Addr::from(octets).to_canonical()
}

/// The address and port (network byte order) that a map holds.
pub(super) fn socket_of(address: &Address, port: u16) -> SocketAddr {
    SocketAddr::new(ip_of(address), u16::from_be(port))
}

/// The key of an address in `SERVICES` and `BACKEND_BY_ADDR`.
pub(super) fn key_of(address: SocketAddr, protocol: u8) -> ServiceKey {
    ServiceKey {
        address: address_of(address.ip()),
        port: address.port().to_be(),
        protocol,
        reserved: [0; 5],
    }
}

/// The address of a key.
pub(super) fn socket_of_key(key: &ServiceKey) -> SocketAddr {
    socket_of(&key.address, key.port)
}

/// The key of a packet from `source` to `destination`.
pub(super) fn tuple_of(source: SocketAddr, destination: SocketAddr, protocol: u8) -> Tuple {
    Tuple {
        source: address_of(source.ip()),
        destination: address_of(destination.ip()),
        source_port: source.port().to_be(),
        destination_port: destination.port().to_be(),
        protocol,
        reserved: [0; 3],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_the_round_trip_in_packet_byte_order() {
        for text in [
            "10.1.2.3:80",
            "[2001:db8::1]:50051",
            "0.0.0.0:1",
            "255.255.255.255:65535",
        ] {
            let socket: SocketAddr = text.parse().unwrap();
            let key = key_of(socket, 6);
            assert_eq!(socket_of_key(&key), socket);
        }
        let key = key_of("10.1.2.3:80".parse().unwrap(), 6);
        assert_eq!(
            key.address,
            Address::from_v4_word(u32::from_ne_bytes([10, 1, 2, 3]))
        );
        assert_eq!(key.port.to_ne_bytes(), [0, 80]);
    }
}
