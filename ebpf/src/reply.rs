//! Backend -> client: the service's address is put back, and the packet goes on to the client.

use evenkeel_ebpf::abi::{Event, Reply, ServiceInfo};
use evenkeel_ebpf::packet::Packet;

use crate::atomic;
use crate::clock;
use crate::count;
use crate::flow_table::{Replies, find};
use crate::frame::{Frame, Rewrite, Verdict};
use crate::life;
use crate::maps::SERVICE_INFO;
use crate::next_hop;
use crate::observe;
use crate::pair;

/// Handles a packet whose source may be a backend; `None` if it answers no flow of ours.
#[inline(always)]
pub fn reply<F: Frame>(frame: &F, packet: &Packet) -> Option<Verdict> {
    let Some(reply) = find::<Replies>(&packet.tuple) else {
        if F::LAST {
            observe::from_backend(packet);
        }
        return None;
    };
    // SAFETY: a live map value; counters may be written by several processors, the state only atomically.
    let reply = unsafe { &mut *reply };
    let service = SERVICE_INFO.get(reply.service)?;
    if !packet.sound {
        return Some(count::drop(Event::DropMalformed));
    }
    let now = clock::now();
    let rewrite = Rewrite {
        source: service.address.words[3],
        destination: reply.client.words[3],
        source_port: service.port,
        destination_port: reply.client_port,
    };
    let tick = clock::tick(now);
    let route = next_hop::find(
        frame,
        &mut reply.next_hop,
        rewrite.source,
        rewrite.destination,
        tick,
    );
    let ready = match next_hop::decide(frame, packet, &reply.next_hop, &route) {
        Ok(ready) => ready,
        Err(verdict) => return Some(verdict),
    };
    let changing = life::by_backend(packet.flags, reply.state) & !reply.state != 0;
    if changing || clock::was_silent(now, reply.last_seen) {
        tend(packet, reply, service, changing, now);
    }
    let passage = frame.passage(packet);
    reply.last_seen = now;
    reply.packets += passage.packets;
    reply.bytes += passage.bytes;
    count::backend(reply.backend, |c| {
        c.reply_packets += passage.packets;
        c.reply_bytes += passage.bytes;
    });
    count::service(reply.service, |c| {
        c.reply_packets += passage.packets;
        c.reply_bytes += passage.bytes;
    });
    Some(next_hop::transmit(
        frame,
        packet,
        &rewrite,
        &reply.next_hop,
        ready,
    ))
}

/// The rare part: the state of both halves, and the other half's life.
#[inline(always)]
fn tend(packet: &Packet, reply: &mut Reply, service: &ServiceInfo, changing: bool, now: u64) {
    let Some(flow) = pair::flow_of(reply, service, packet.tuple.destination_port, now) else {
        return;
    };
    if !changing {
        return;
    }
    // SAFETY: live map values, both.
    unsafe {
        let bits = life::by_backend(packet.flags, (*flow).state);
        if bits != 0 {
            life::advance(flow, bits);
            atomic::set_state(reply, bits);
        }
    }
}
