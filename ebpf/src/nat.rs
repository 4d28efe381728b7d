//! NAT ports: a free one is claimed, never assumed.
//!
//! The entry in `REPLIES` *is* the claim. Its key is the tuple that the backend answers with (backend -> NAT source
//! and port), so two flows with the same claim cannot exist: of two processors that want one key, the table lets
//! one in. Every flow tries the ports in an order of its own, which it would try again after its entries were lost;
//! a closed entry is renewed once its hold is over, of which again only one of two processors is capable.

use evenkeel_ebpf::abi::{Backend, Reply, Settings, TUPLE_WORDS, Tuple, forwarding, state};
use evenkeel_ebpf::packet::Packet;
use evenkeel_ebpf::select::{self, Ports, source};
use evenkeel_ebpf::table::Place;

use crate::atomic;
use crate::flow_table::{
    Found, Inserted, Replies, Table as _, enter_filled, find_hashed, find_or_free, insert, renew,
    touch, value,
};
use crate::halves::reply;
use crate::maps::{DRAFT, Draft, NAT_SOURCES, SETTINGS};

/// Ports that are tried for one flow: at 90 % full, one flow in 29 finds none (0.9^32).
const TRIES: u64 = 32;
/// Of these, the tries that leave a closed flow its port for `port_hold`. The backend remembers a connection that it
/// closed first (TIME-WAIT, RFC 9293 section 3.6.1), and may answer a new one from the same port with an ACK of the
/// old: the client resets that and tries again, up to a second later. Only where ports are scarce is that the lesser evil.
const PATIENT_TRIES: u64 = 24;

/// What a flow wants to claim. In `DRAFT`, as it is found out before and claimed after the flow was looked for.
#[repr(C)]
pub struct Claim {
    /// The tuple that the backend answers with, if the first try succeeds.
    key: Tuple,
    /// Its hash.
    hash: u64,
    /// The index of the NAT source.
    source: u16,
    /// Ports that may be tried in all: 1 where the client's own is kept.
    tries: u16,
    /// Zero.
    reserved: [u16; 2],
    /// Ports to try after this one.
    ports: Ports,
}

impl Claim {
    /// Makes this the first choice of a flow with this `hash`, and has the memory brought near that it takes to claim it.
    /// False if there is no NAT source.
    #[inline(always)]
    pub fn begin(
        &mut self,
        client: &Tuple,
        backend: &Backend,
        settings: &Settings,
        hash: u64,
    ) -> bool {
        // Without NAT the tuple is the client's own; the same client port to two services on one backend would be one tuple.
        let mut key = Tuple {
            source: backend.address,
            destination: client.source,
            source_port: backend.port,
            destination_port: client.source_port,
            protocol: client.protocol,
            reserved: [0; 3],
        };
        self.source = 0;
        self.tries = 1;
        if backend.forwarding == forwarding::NAT {
            if backend.nat_count == 0 {
                return false;
            }
            self.source = backend
                .nat_first
                .wrapping_add(source(hash, backend.nat_count));
            let (Some(address), Some(mut ports)) =
                (NAT_SOURCES.get(self.source.into()), ports(hash, settings))
            else {
                return false;
            };
            key.destination = *address;
            key.destination_port = ports.advance().to_be();
            self.tries = TRIES as u16;
        }
        // SAFETY: a tuple is that many words, and aligned to one.
        unsafe {
            (&raw mut self.key)
                .cast::<[u64; TUPLE_WORDS]>()
                .write(key.words())
        };
        self.hash = select::hash(&key, settings.seed);
        touch::<Replies>(&Place::of(self.hash, settings.flow_buckets));
        true
    }

    /// The tuple that the backend answers with.
    #[inline(always)]
    pub fn key(&self) -> &Tuple {
        &self.key
    }

    /// The index of the NAT source.
    #[inline(always)]
    pub fn source(&self) -> u16 {
        self.source
    }

    /// The port that was claimed, network byte order.
    #[inline(always)]
    pub fn port(&self) -> u16 {
        self.key.destination_port
    }
}

/// The ports that a flow with this `hash` tries.
#[inline(always)]
const fn ports(hash: u64, settings: &Settings) -> Option<Ports> {
    Ports::new(hash, settings.nat_port_first, settings.nat_port_last)
}

/// Claims the first choice for the reply half in `slot`, if nobody has or had it, which is nearly always so; if not, the slot
/// is free again.
#[inline(always)]
pub fn claim_first(claim: &Claim, slot: u32, settings: &Settings) -> bool {
    let place = Place::of(claim.hash, settings.flow_buckets);
    let Some(Found::Free(way)) = find_or_free::<Replies>(&claim.key, &place) else {
        Replies::release(slot);
        return false;
    };
    let entered = enter_filled::<Replies>(slot, claim.hash, &place, way);
    matches!(entered, Inserted::New(_))
}

/// Claims a reply half for the flow of `packet`, as `DRAFT` says; 0 if nothing was free. A function of its own, as the
/// verifier would go through all tries once for every way that leads here.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ek_claim(packet: *const Packet) -> u32 {
    let (Some(draft), Some(settings)) = (DRAFT.get_ptr_mut(0), SETTINGS.get(0)) else {
        return 0;
    };
    // SAFETY: null or a whole packet; the verifier checks no less.
    let Some(packet) = (unsafe { packet.as_ref() }) else {
        return 0;
    };
    // SAFETY: this processor's only value, and nothing else of ours runs on it meanwhile.
    let draft = unsafe { &mut *draft };
    draft.reply = reply(packet, draft);
    let Draft {
        reply, claim, hash, ..
    } = draft;
    let Some(ports) = ports(*hash, settings) else {
        return 0;
    };
    claim.ports = ports;
    // The first one is in the key.
    claim.ports.advance();
    let tries = u64::from(claim.tries);
    // 64 bits: of a shorter counter that it put on the stack, the verifier no longer knows that it grows.
    for tried in 0..TRIES {
        if tried >= tries {
            break;
        }
        let hold = if tried < PATIENT_TRIES && tries > 1 {
            settings.port_hold
        } else {
            settings.closed_hold
        };
        if try_one(&claim.key, reply, settings, hold) {
            return 1;
        }
        claim.key.destination_port = claim.ports.advance().to_be();
    }
    0
}

/// How long the flow of an entry that was never established must have been silent to lose its port: 2^33 ns, 8.6 s. A client
/// has sent its SYN four times by then (after 1, 3 and 7 s, RFC 6298 section 5.5). Without this a flood of SYNs, most of
/// which nobody ever answers or ends, would have all ports until userspace forgets it.
const UNANSWERED: u64 = 1 << 33;

/// True if the entry under `key` is now the one of `reply`'s flow.
#[inline(always)]
fn try_one(key: &Tuple, reply: &Reply, settings: &Settings, hold: u64) -> bool {
    let hash = select::hash(key, settings.seed);
    let present = match find_hashed::<Replies>(key, hash, settings) {
        Some(present) => present,
        None => match insert::<Replies>(key, hash, reply) {
            Inserted::New(_) => return true,
            Inserted::Present(index) => match value::<Replies>(index) {
                Some(present) => present,
                None => return false,
            },
            Inserted::Refused => return false,
        },
    };
    // SAFETY: a live map value. Another processor may change it meanwhile: if it is closed, only one of us renews it.
    let (same, state, last_seen) = unsafe {
        let same = (*present).client == reply.client
            && (*present).client_port == reply.client_port
            && (*present).service == reply.service;
        (same, (*present).state, (*present).last_seen)
    };
    if state & state::CLOSED == 0 {
        let silent = reply.last_seen.wrapping_sub(last_seen);
        if same || state & state::ESTABLISHED != 0 || silent < UNANSWERED {
            return same;
        }
        // Its flow finds out when its client comes again, see `pair`.
        // SAFETY: a live map value.
        unsafe { atomic::set_state(present, state::CLOSED) };
        return renew::<Replies>(present, reply);
    }
    (same || reply.last_seen.wrapping_sub(last_seen) >= hold) && renew::<Replies>(present, reply)
}
