//! Packets of every shape: cut, fragmented, with options, at their last hop, ICMP errors, and those of no service.

use std::net::Ipv4Addr;

use evenkeel_ebpf::abi::{Event, PROTOCOL_TCP, filter_bit};

use crate::wire::{self, ACK, SYN, Tcp};
use crate::world::{
    BACKEND, BOTH, CLIENT, Hook, NAT_SOURCE, SERVICE, Setup, TO_BACKEND, TO_CLIENT, Verdict, World,
    address, tuple,
};
use crate::{from_client, open};

#[test]
fn a_service_without_backend_drops_and_says_so() {
    for hook in BOTH {
        let setup = Setup {
            backend: false,
            ..Setup::default()
        };
        let mut world = World::new(hook, setup);
        world.drops(&from_client(SYN).frame(), Event::DropNoBackend);
        assert_eq!(world.flow(tuple(CLIENT, SERVICE)), None);
    }
}

#[test]
fn what_concerns_no_service_passes_untouched_and_uncounted() {
    for hook in BOTH {
        let mut world = World::new(hook, Setup::default());
        let elsewhere = [
            Tcp::new(CLIENT, (SERVICE.0, 81), SYN),
            Tcp::new(CLIENT, (BACKEND.0, 80), SYN),
            // A backend's packet to someone who is no client of ours.
            Tcp::new(BACKEND, (CLIENT.0, 5), ACK).payload(b"hello"),
            Tcp {
                vlan: Some(7),
                ..from_client(SYN)
            },
        ];
        for packet in elsewhere {
            world.passes(&packet.frame());
        }
        let mut udp = from_client(SYN).frame();
        udp[23] = 17;
        world.passes(&udp);
        let mut arp = from_client(SYN).frame();
        arp[12..14].copy_from_slice(&[8, 6]);
        world.passes(&arp);
        assert_eq!(world.service(), Default::default());
        assert_eq!(world.events(), 0);
    }
}

/// An address and port that the filters cannot tell from `from`.
fn double(from: (Ipv4Addr, u16)) -> (Ipv4Addr, u16) {
    let bit = |at: (Ipv4Addr, u16)| filter_bit(&address(at.0), at.1.to_be(), PROTOCOL_TCP);
    let mut others = (1..=u16::MAX).flat_map(|port| {
        let hosts = 1..=250;
        hosts.map(move |host| (Ipv4Addr::new(10, 1, 2, host), port))
    });
    others
        .find(|other| bit(*other) == bit(from))
        .expect("16 million places share 65,536 bits")
}

#[test]
fn what_only_looks_like_a_service_or_a_backend_to_the_filter_passes_untouched_and_uncounted() {
    for hook in BOTH {
        let mut world = World::new(hook, Setup::default());
        let (service, backend) = (double(SERVICE), double(BACKEND));
        for packet in [
            Tcp::new(CLIENT, service, SYN),
            Tcp::new(CLIENT, service, ACK).payload(b"hello"),
            Tcp::new(backend, CLIENT, ACK).payload(b"hello"),
            Tcp::new(backend, (NAT_SOURCE, 12_000), SYN | ACK),
        ] {
            world.passes(&packet.frame());
        }
        assert_eq!(world.flow(tuple(CLIENT, service)), None);
        assert_eq!(world.service(), Default::default());
        assert_eq!(world.events(), 0);
    }
}

#[test]
fn options_of_ip_and_tcp_are_carried_along() {
    for hook in BOTH {
        let mut world = World::new(hook, Setup::default());
        let peer = open(&mut world, Setup::default());
        for (ip, tcp) in [(4, 12), (40, 40), (8, 0)] {
            let packet = Tcp {
                // No operation (RFC 791, RFC 9293), all of it.
                ip_options: vec![1; ip],
                tcp_options: vec![1; tcp],
                ..from_client(ACK).payload(b"payload")
            };
            world.leaves_as(
                &packet.frame(),
                &packet.forwarded(TO_BACKEND, peer, BACKEND).frame(),
            );
            let answer = Tcp {
                ip_options: vec![1; ip],
                tcp_options: vec![1; tcp],
                ..Tcp::new(BACKEND, peer, ACK).payload(b"back")
            };
            world.leaves_as(
                &answer.frame(),
                &answer.forwarded(TO_CLIENT, SERVICE, CLIENT).frame(),
            );
        }
    }
}

#[test]
fn a_packet_cut_at_any_length_is_never_translated() {
    for hook in BOTH {
        let mut world = World::new(hook, Setup::default());
        open(&mut world, Setup::default());
        let whole = from_client(ACK).payload(b"0123456789").frame();
        let before = world.service();
        // The kernel itself runs TC programs on whole IP headers only.
        let shortest = if hook == Hook::Xdp { 14 } else { 34 };
        for length in shortest..whole.len() {
            let (verdict, out) = world.send(&whole[..length]);
            assert_ne!(verdict, Verdict::Redirect, "{hook:?} {length}");
            if verdict == Verdict::Pass {
                assert_eq!(out, whole[..length], "{hook:?} {length}");
            }
        }
        assert_eq!(world.service(), before);
    }
}

#[test]
fn a_first_fragment_of_a_balanced_flow_is_dropped_and_others_pass() {
    let mut world = World::new(Hook::Tc, Setup::default());
    open(&mut world, Setup::default());
    let first = Tcp {
        fragment: 0x2000,
        ..from_client(ACK).payload(&[0; 24])
    };
    world.drops(&first.frame(), Event::DropFragment);
    let second = Tcp {
        fragment: 3,
        ..first
    };
    world.passes(&second.frame());
}

#[test]
fn an_icmp_error_is_translated_inside_and_out_with_eight_inner_bytes() {
    let macs = from_client(ACK).macs;
    for inner_bytes in [8, 20] {
        let mut world = World::new(Hook::Tc, Setup::default());
        let peer = open(&mut world, Setup::default());
        let router = Ipv4Addr::new(10, 77, 0, 77);
        // About a packet that went to the backend.
        let sent = from_client(ACK).forwarded(TO_BACKEND, peer, BACKEND);
        let original = Tcp {
            ttl: sent.ttl,
            ..from_client(ACK)
        };
        world.leaves_as(
            &wire::icmp_error(
                macs,
                (router, NAT_SOURCE),
                64,
                &sent.ip()[..20 + inner_bytes],
            ),
            &wire::icmp_error(
                TO_CLIENT,
                (router, CLIENT.0),
                63,
                &original.ip()[..20 + inner_bytes],
            ),
        );
        // About a packet that went to the client.
        let answer = Tcp::new(BACKEND, peer, ACK).payload(b"x");
        let sent = answer.forwarded(TO_CLIENT, SERVICE, CLIENT);
        let original = Tcp {
            ttl: sent.ttl,
            ..answer
        };
        world.leaves_as(
            &wire::icmp_error(
                macs,
                (router, SERVICE.0),
                64,
                &sent.ip()[..20 + inner_bytes],
            ),
            &wire::icmp_error(
                TO_BACKEND,
                (router, BACKEND.0),
                63,
                &original.ip()[..20 + inner_bytes],
            ),
        );
        assert_eq!(world.event(Event::IcmpTranslated), 2);
    }
}
