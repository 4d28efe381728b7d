//! A packet without a flow, or a SYN: choose where it goes, and record the decision, both halves of it.
//!
//! 1. [`crate::choose`] says where it goes.
//! 2. Both halves are written, into slots that nobody finds yet ([`crate::halves`]); of a flow to the local proxy (`l7`) there is
//!    one.
//! 3. The reply half is entered first, because it is the claim of the NAT port; then the flow.
//! 4. Another processor may have been faster with the same flow: then its decision holds.
//! 5. A SYN may come on a flow that is not over, from a client that began anew: see [`crate::again`].
//!
//! A SYN is nearly always of no flow, so it comes here before its flow is looked for: what takes longest of all that is done
//! for it is the memory of two lines of the index, of the flow and of the reply. Both are on their way while it is written.
//!
//! A packet that is no SYN takes the same way (another balancer's flow after a change of routes, or an entry that
//! was lost): the hash sends it to the backend it had, as long as the table is the same.

use evenkeel_ebpf::abi::{Event, Flow, Settings, flag};
use evenkeel_ebpf::packet::{Packet, tcp};
use evenkeel_ebpf::table::WAYS;

use crate::again::{begins_anew, ek_end, ek_renumber, is_over, is_renumbered};
use crate::choose::{BACKEND, Destination, LOCAL, NONE, WRONG, ek_choose};
use crate::count;
use crate::flow_table::{
    Flows, Found, Inserted, Table as _, enter_filled, find_or_free, insert_at, renew, value,
};
use crate::halves::{Halves, flow};
use crate::maps::{DRAFT, Draft, SETTINGS};
use crate::nat::{claim_first, ek_claim};

/// What came of it.
pub enum Opened {
    /// The flow, recorded by us or by another processor.
    Flow(*mut Flow),
    /// The destination is no service.
    NoService,
    /// Not to be decided by this hook.
    Leave,
    /// Nothing can be done with the packet; the reason is counted.
    Refused,
}

/// What [`ek_record`] returns: the slot of a flow, or one of these.
const NO_SERVICE: u64 = 1 << 32;
const LEAVE: u64 = 2 << 32;
const REFUSED: u64 = 3 << 32;
/// It was not as simple as it nearly always is: [`ek_claim`] must claim first.
const TAKEN: u64 = 4 << 32;
/// It is a SYN on the flow in this slot, which is over by that: [`ek_end`] says so.
const ANEW: u64 = 5 << 32;
/// The same, and the flow is not over, but its stream counter has another beginning: [`ek_renumber`].
const RENUMBERED: u64 = 6 << 32;

/// What [`ek_record`] is told instead once [`ek_claim`] has claimed for it.
const CLAIMED: u32 = 3;
/// What it is told instead of [`LOCAL`] where another hook comes.
const LATER: u32 = 4;

/// Finds out where `packet` goes that has no flow, or is a SYN, and records it. Its tuple has this `hash`. `last`: no hook
/// comes after this one.
///
/// In two functions that take the packet and numbers, return numbers, and share `DRAFT`: so the verifier looks at each of them once, and at
/// what comes after them once, not for each of their ends; and their stacks do not add up.
#[inline(always)]
pub fn open(packet: &Packet, hash: u64, last: bool, now: u64) -> Opened {
    let Some(draft) = DRAFT.get_ptr_mut(0) else {
        return Opened::Refused;
    };
    // SAFETY: this processor's only value, and nothing else of ours runs on it meanwhile.
    unsafe {
        (*draft).hash = hash;
        (*draft).now = now;
    }
    let mut chosen = ek_choose(packet);
    if chosen == LOCAL && !last {
        chosen = LATER;
    }
    let mut opened = ek_record(packet, chosen);
    match opened & !0xffff_ffff {
        ANEW => {
            ek_end(packet, opened as u32);
            opened = ek_record(packet, chosen);
        }
        RENUMBERED => {
            opened = ek_renumber(packet, opened as u32).into();
        }
        _ => {}
    }
    if opened == TAKEN {
        if ek_claim(packet) == 0 {
            count::event(Event::DropNatPortsExhausted);
            return Opened::Refused;
        }
        opened = ek_record(packet, CLAIMED);
    }
    match opened & !0xffff_ffff {
        0 => value::<Flows>(opened as u32).map_or(Opened::Refused, Opened::Flow),
        NO_SERVICE => Opened::NoService,
        LEAVE => Opened::Leave,
        _ => Opened::Refused,
    }
}

/// Records the flow of `packet`, which [`ek_choose`] has chosen for, unless there is one by now. `chosen`: as [`ek_choose`] said.
#[unsafe(no_mangle)]
#[inline(never)]
pub extern "C" fn ek_record(packet: *const Packet, chosen: u32) -> u64 {
    let (Some(settings), Some(draft)) = (SETTINGS.get(0), DRAFT.get_ptr_mut(0)) else {
        return REFUSED;
    };
    // SAFETY: null or a whole packet; the verifier checks no less.
    let Some(packet) = (unsafe { packet.as_ref() }) else {
        return REFUSED;
    };
    // SAFETY: this processor's only value, and nothing else of ours runs on it meanwhile.
    match record(packet, unsafe { &mut *draft }, settings, chosen) {
        Recorded::Flow(slot) => slot.into(),
        Recorded::NoService => NO_SERVICE,
        Recorded::Leave => LEAVE,
        Recorded::Taken => TAKEN,
        Recorded::Anew(slot) => ANEW | u64::from(slot),
        Recorded::Renumbered(slot) => RENUMBERED | u64::from(slot),
        Recorded::Refused(reason) => {
            count::number(reason);
            REFUSED
        }
    }
}

/// What came of [`record`].
enum Recorded {
    Flow(u32),
    NoService,
    Leave,
    Taken,
    Anew(u32),
    Renumbered(u32),
    /// The number of an event.
    Refused(u32),
}

/// See [`ek_record`].
#[inline(always)]
fn record(packet: &Packet, draft: &mut Draft, settings: &Settings, chosen: u32) -> Recorded {
    let stray = !packet.opens() && packet.flags & (tcp::RST | tcp::ACK) != tcp::ACK;
    let new = chosen == BACKEND && !stray;
    let halves = draft.halves.ours();
    if new {
        halves.write(packet, draft);
    }
    let found = match find_or_free::<Flows>(&packet.tuple, &draft.place) {
        Some(Found::Entry(slot)) if !is_over(slot) => {
            halves.discard();
            return if !packet.opens() {
                Recorded::Flow(slot)
            } else if begins_anew(draft, slot, new) {
                Recorded::Anew(slot)
            } else if is_renumbered(packet, slot) {
                Recorded::Renumbered(slot)
            } else {
                Recorded::Flow(slot)
            };
        }
        Some(found) => found,
        None => {
            halves.discard();
            return Recorded::Refused(Event::DropFlowTable as u32);
        }
    };
    match found {
        Found::Free(way) if new && halves.are_there() => {
            return enter_both(packet, draft, halves, settings, way);
        }
        _ => halves.discard(),
    }
    if chosen == NONE {
        return Recorded::NoService;
    }
    if chosen == LATER || chosen == LOCAL && stray {
        return Recorded::Leave;
    }
    if stray {
        return Recorded::Refused(Event::DropNoFlow as u32);
    }
    if chosen & WRONG != 0 {
        return Recorded::Refused(chosen & !WRONG);
    }
    match chosen {
        LOCAL => draft.to = Destination::proxy(packet),
        CLAIMED => draft.to.nat_port = draft.claim.port(),
        _ => return Recorded::Taken,
    }
    enter(packet, draft, &found)
}

/// Enters both halves, which are written: the flow into the word `way` of its bucket if that is still free.
#[inline(always)]
fn enter_both(
    packet: &Packet,
    draft: &Draft,
    halves: Halves,
    settings: &Settings,
    way: u64,
) -> Recorded {
    if !claim_first(&draft.claim, halves.reply, settings) {
        Flows::release(halves.flow);
        return Recorded::Taken;
    }
    let inserted = enter_filled::<Flows>(halves.flow, draft.hash, &draft.place, way);
    recorded(packet, draft, &inserted)
}

/// Records the flow alone: it has no reply half, or has it by now.
#[inline(always)]
fn enter(packet: &Packet, draft: &mut Draft, found: &Found) -> Recorded {
    // In the draft: on the stack it would take a sixth of what all functions have together.
    draft.flow = flow(packet, draft);
    let flow = &draft.flow;
    let way = match *found {
        Found::Entry(slot) => {
            if value::<Flows>(slot).is_some_and(|closed| renew::<Flows>(closed, flow)) {
                count::event(Event::FlowReused);
                opened(packet, draft);
                return Recorded::Flow(slot);
            }
            WAYS as u64
        }
        Found::Free(way) => way,
    };
    let inserted = insert_at::<Flows>(&packet.tuple, draft.hash, &draft.place, way, flow);
    recorded(packet, draft, &inserted)
}

/// Counts what was inserted.
#[inline(always)]
fn recorded(packet: &Packet, draft: &Draft, inserted: &Inserted) -> Recorded {
    match *inserted {
        Inserted::New(slot) => {
            opened(packet, draft);
            Recorded::Flow(slot)
        }
        Inserted::Present(slot) => Recorded::Flow(slot),
        Inserted::Refused => Recorded::Refused(Event::DropFlowTable as u32),
    }
}

/// Counts a new flow.
#[inline(always)]
fn opened(packet: &Packet, draft: &Draft) {
    let local = draft.to.flags & flag::LOCAL != 0;
    let adopted = u64::from(!packet.opens());
    count::service(draft.service, |c| {
        c.flows_opened += 1;
        c.flows_adopted += adopted;
        c.flows_local += u64::from(local);
    });
    if !local {
        count::backend(draft.to.backend, |c| {
            c.flows_opened += 1;
            c.flows_adopted += adopted;
        });
    }
}
