//! Fragments of TCP packets: rare (senders avoid them by path MTU discovery, RFC 9293 section 3.7.2), and only the
//! first carries ports.
//!
//! For the local proxy the stack puts them together. For a flow on a backend it must not get the chance: it would
//! answer the whole packet, for which it has no socket, with a reset. Without its first fragment a packet never
//! gets whole, so dropping that one is enough, and the sender tries again with smaller packets.

use evenkeel_ebpf::abi::{Event, Tuple, flag};

use crate::count;
use crate::filter;
use crate::flow_table::{Flows, Replies, find};
use crate::frame::Verdict;

/// Handles the first fragment of a packet.
#[inline(always)]
pub fn fragment(tuple: &Tuple) -> Verdict {
    if filter::maybe_service(&tuple.destination, tuple.destination_port)
        && let Some(flow) = find::<Flows>(tuple)
    {
        // SAFETY: a live map value.
        if unsafe { (*flow).flags } & flag::LOCAL == 0 {
            return count::drop(Event::DropFragment);
        }
        count::event(Event::PassFragment);
    } else if filter::maybe_backend(&tuple.source, tuple.source_port)
        && find::<Replies>(tuple).is_some()
    {
        return count::drop(Event::DropFragment);
    }
    Verdict::Pass
}
