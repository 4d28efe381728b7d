//! NAT ports: a free one is claimed, never assumed.
//!
//! The entry in `REPLIES` *is* the claim. Its key is the tuple that the backend answers with (backend -> NAT source
//! and port), so two flows with the same claim cannot exist: of two processors that want one key, `BPF_NOEXIST` lets
//! one in. Every flow tries the ports in an order of its own, which it would try again after its entries were lost;
//! a closed entry is taken over once its hold is over, by compare-and-swap for the same reason.

use aya_ebpf::bindings::BPF_NOEXIST;
use evenkeel_ebpf::abi::{Backend, Reply, Settings, Tuple, forwarding, state};
use evenkeel_ebpf::select::{Ports, source};

use crate::atomic;
use crate::maps::{NAT_SOURCES, REPLIES};

/// Ports that are tried for one flow: at 90 % full, one flow in 29 finds none (0.9^32).
const TRIES: u32 = 32;
/// Of these, the tries that leave a closed flow its port for `port_hold`. The backend remembers a connection that it
/// closed first (TIME-WAIT, RFC 9293 section 3.6.1), and may answer a new one from the same port with an ACK of the
/// old: the client resets that and tries again, up to a second later. Only where ports are scarce is that the lesser evil.
const PATIENT_TRIES: u32 = 24;

/// Claims the reply half `reply` for a flow with this `hash`. `key` comes with the backend as source and the client
/// as destination, and leaves with the NAT source and port as destination where there is NAT.
/// Returns the index of the NAT source, or `None` if nothing was free.
#[inline(always)]
pub fn claim(
    key: &mut Tuple,
    reply: &mut Reply,
    backend: &Backend,
    settings: &Settings,
    hash: u64,
) -> Option<u16> {
    if backend.forwarding != forwarding::NAT {
        // The tuple is the client's own; the same client port to two services on one backend would be one tuple.
        return try_one(key, reply, settings.closed_hold).then_some(0);
    }
    if backend.nat_count == 0 {
        return None;
    }
    let index = backend
        .nat_first
        .wrapping_add(source(hash, backend.nat_count));
    key.destination = *NAT_SOURCES.get(index.into())?;
    reply.nat_source = index;
    let mut ports = Ports::new(hash, settings.nat_port_first, settings.nat_port_last)?;
    for tried in 0..TRIES {
        key.destination_port = ports.advance().to_be();
        let hold = if tried < PATIENT_TRIES {
            settings.port_hold
        } else {
            settings.closed_hold
        };
        if try_one(key, reply, hold) {
            return Some(index);
        }
    }
    None
}

/// True if the entry under `key` is now the one of `reply`'s flow.
#[inline(always)]
fn try_one(key: &Tuple, reply: &Reply, hold: u64) -> bool {
    if REPLIES.insert(key, reply, BPF_NOEXIST.into()).is_ok() {
        return true;
    }
    let Some(present) = REPLIES.get_ptr_mut(key) else {
        return false;
    };
    // SAFETY: a live map value; other processors may change it meanwhile, which the compare-and-swap settles.
    unsafe {
        let owner = atomic::owner(present);
        let old = owner.read_volatile();
        let same = (*present).client == reply.client
            && (*present).client_port == reply.client_port
            && (*present).service == reply.service;
        let closed = atomic::state_of_owner(old) & state::CLOSED != 0;
        if !same && (!closed || reply.last_seen.wrapping_sub((*present).last_seen) < hold) {
            return false;
        }
        if same && !closed {
            return true;
        }
        let new = atomic::owner_word(reply);
        if !atomic::compare_exchange(owner, old, new) {
            return false;
        }
        (*present).client = reply.client;
        (*present).service = reply.service;
        (*present).nat_source = reply.nat_source;
        (*present).last_seen = reply.last_seen;
        (*present).packets = 0;
        (*present).bytes = 0;
        (*present).next_hop.tick = 0;
        true
    }
}
