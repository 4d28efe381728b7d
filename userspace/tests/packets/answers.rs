//! Packets that cannot be sent on come back to their sender as ICMP errors, to the byte; XDP leaves them to TC untouched.

use evenkeel_ebpf::abi::Event;

use crate::wire::{self, ACK, Tcp};
use crate::world::{BACKEND, BOTH, CLIENT, Hook, NAT_SOURCE, SERVICE, Setup, World};
use crate::{from_client, open};

/// Narrower than the packets of this file.
const MTU: u16 = 600;
const TOO_BIG: (u8, u8, u16) = (3, 4, MTU);
const TIME_EXCEEDED: (u8, u8, u16) = (11, 0, 0);

/// With options in both headers, so that the quote is not simply the first 40 bytes.
fn long(packet: Tcp) -> Tcp {
    Tcp {
        ip_options: vec![1; 8],
        tcp_options: vec![1; 12],
        ..packet.payload(&[7; 701])
    }
}

/// The error that `packet` comes back as.
fn error(packet: &Tcp, says: (u8, u8, u16)) -> Vec<u8> {
    let back = (packet.macs.1, packet.macs.0);
    let header = 20 + packet.ip_options.len();
    let between = (packet.destination.0, packet.source.0);
    wire::own_icmp_error(back, between, says, &packet.ip()[..header + 20])
}

#[track_caller]
fn comes_back(world: &mut World, packet: &Tcp, says: (u8, u8, u16), reason: Event) {
    let frame = packet.frame();
    if world.hook == Hook::Xdp {
        world.passes(&frame);
        assert_eq!((world.event(reason), world.event(Event::IcmpSent)), (0, 0));
        return;
    }
    let before = (world.event(reason), world.event(Event::IcmpSent));
    world.leaves_as(&frame, &error(packet, says));
    let after = (world.event(reason), world.event(Event::IcmpSent));
    assert_eq!(after, (before.0 + 1, before.1 + 1), "{reason:?}, sent");
}

#[test]
fn a_client_is_told_what_is_too_big_for_the_way_to_its_backend() {
    for hook in BOTH {
        let mut world = World::new(hook, Setup::default());
        world.narrow(BACKEND.0, MTU);
        open(&mut world, Setup::default());
        let packet = long(from_client(ACK));
        comes_back(&mut world, &packet, TOO_BIG, Event::DropTooBig);
    }
}

#[test]
fn a_backend_is_told_what_is_too_big_for_the_way_to_its_client() {
    for hook in BOTH {
        let mut world = World::new(hook, Setup::default());
        world.narrow(CLIENT.0, MTU);
        let peer = open(&mut world, Setup::default());
        assert_eq!(peer.0, NAT_SOURCE);
        let packet = long(Tcp::new(BACKEND, peer, ACK));
        comes_back(&mut world, &packet, TOO_BIG, Event::DropTooBig);
    }
}

#[test]
fn the_sender_of_a_packet_at_its_last_hop_is_told() {
    for hook in BOTH {
        let mut world = World::new(hook, Setup::default());
        open(&mut world, Setup::default());
        let packet = Tcp {
            ttl: 1,
            ..long(from_client(ACK))
        };
        comes_back(&mut world, &packet, TIME_EXCEEDED, Event::DropTtlExpired);
    }
}

#[test]
fn what_fits_exactly_is_sent_on() {
    for hook in BOTH {
        let mut world = World::new(hook, Setup::default());
        world.narrow(BACKEND.0, MTU);
        let peer = open(&mut world, Setup::default());
        let fits = from_client(ACK).payload(&[7; MTU as usize - 40]);
        let expected = fits.forwarded(crate::world::TO_BACKEND, peer, BACKEND);
        world.leaves_as(&fits.frame(), &expected.frame());
    }
}

#[test]
fn no_error_goes_to_who_must_not_get_one() {
    let mut world = World::new(Hook::Tc, Setup::default());
    world.narrow(BACKEND.0, MTU);
    open(&mut world, Setup::default());
    let to_a_group = Tcp {
        macs: ([1, 0, 0x5e, 0, 0, 1], [2, 0, 0, 0, 0, 0xbb]),
        ..long(from_client(ACK))
    };
    let may_be_cut = Tcp {
        fragment: 0,
        ..long(from_client(ACK))
    };
    for packet in [to_a_group, may_be_cut] {
        world.drops(&packet.frame(), Event::DropTooBig);
    }
    // Of no host: recorded as any other flow would be.
    let nobody = (std::net::Ipv4Addr::new(127, 0, 0, 1), CLIENT.1);
    let packet = long(Tcp::new(nobody, SERVICE, ACK));
    world.drops(&packet.frame(), Event::DropTooBig);
    assert_eq!(world.event(Event::IcmpSent), 0);
}
