//! Streams in flight where beginnings less ends do not tell.
//!
//! Beginnings and ends are counted as they are seen. The end of a stream that was in a segment passed over never is, nor
//! is that of a stream whose slot another one took: the difference of the two would grow with every loss. The streams of
//! such flows are counted by their slots instead, each with what may be said of it ([`Waiting`]).

use std::collections::HashMap;

use evenkeel_ebpf::watch::{StreamSlot, Waiting, WatchEvent, Watched};

use crate::observe::FlowReading;

/// Flows whose streams in flight are not sure.
pub(super) struct Doubts {
    /// Slots were taken over, so that no flow is sure.
    taken_over: bool,
    /// By tag.
    flows: HashMap<u32, Doubt>,
}

/// One of them.
struct Doubt {
    flow: Watched,
    /// Its index among the readings.
    index: usize,
    sure: u64,
    unsure: u64,
    unfinished: u64,
}

impl Doubts {
    /// None yet; `events` tell whether slots were taken over.
    pub(super) fn new(events: &[(&str, u64)]) -> Self {
        let names = [WatchEvent::StreamsFull, WatchEvent::Abandoned]
            .map(|event| WatchEvent::NAMES[event as usize]);
        let taken_over = |(name, count): &(&str, u64)| *count > 0 && names.contains(name);
        Self {
            taken_over: events.iter().any(taken_over),
            flows: HashMap::new(),
        }
    }

    /// Takes in a flow, which was read as reading number `index`.
    pub(super) fn consider(&mut self, flow: &Watched, reading: &FlowReading, index: usize) {
        let unsure = self.taken_over || flow.has_gap();
        if unsure && !reading.closed && reading.in_flight > 0 {
            let doubt = Doubt {
                flow: *flow,
                index,
                sure: 0,
                unsure: 0,
                unfinished: 0,
            };
            self.flows.insert(flow.tag, doubt);
        }
    }

    /// Whether slots have to be looked at.
    pub(super) fn are_any(&self) -> bool {
        !self.flows.is_empty()
    }

    /// Takes in a slot, looked at at `now`.
    pub(super) fn take(&mut self, slot: &StreamSlot, now: u64) {
        let tag = (slot.key >> 32) as u32;
        let Some(doubt) = self.flows.get_mut(&tag) else {
            return;
        };
        match doubt.flow.waiting(slot.begun, now) {
            Waiting::Sure => doubt.sure += 1,
            Waiting::Unsure => doubt.unsure += 1,
            Waiting::Unfinished => doubt.unfinished += 1,
        }
    }

    /// Tells of each what its slots say.
    pub(super) fn resolve(self, readings: &mut [FlowReading]) {
        for doubt in self.flows.into_values() {
            if let Some(reading) = readings.get_mut(doubt.index) {
                reading.in_flight = doubt.sure + doubt.unsure;
                reading.in_flight_unsure = doubt.unsure;
                reading.unfinished = doubt.unfinished;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use evenkeel_ebpf::abi::Tuple;
    use evenkeel_ebpf::watch::{ABANDONED, client, stream_key};

    use super::*;
    use crate::datapath::watch::reading::flow_reading;

    const NOW: u64 = 1 << 40;

    /// A flow of which so many streams began, and one ended.
    fn flow(tag: u32, begun: u32) -> Watched {
        let mut flow = Watched {
            tag,
            client: client::SOURCE,
            ..Watched::default()
        };
        flow.forward.begun = begun;
        flow.backward.ended = 1;
        flow
    }

    fn slot(tag: u32, id: u32, begun: u64) -> StreamSlot {
        let key = stream_key(tag, id);
        StreamSlot { begun, key }
    }

    /// What is told of flows with these slots: in flight, of those unsure, unfinished.
    fn told(flows: &[Watched], slots: &[StreamSlot], events: &[(&str, u64)]) -> Vec<[u64; 3]> {
        let mut doubts = Doubts::new(events);
        let mut readings = Vec::new();
        for flow in flows {
            let reading = flow_reading(&Tuple::default(), flow);
            doubts.consider(flow, &reading, readings.len());
            readings.push(reading);
        }
        if doubts.are_any() {
            slots.iter().for_each(|slot| doubts.take(slot, NOW));
            doubts.resolve(&mut readings);
        }
        let told = readings.iter().map(|reading| {
            [
                reading.in_flight,
                reading.in_flight_unsure,
                reading.unfinished,
            ]
        });
        told.collect()
    }

    #[test]
    fn without_a_gap_beginnings_less_ends_are_in_flight() {
        assert_eq!(told(&[flow(1, 4)], &[], &[]), [[3, 0, 0]]);
    }

    #[test]
    fn an_end_that_was_passed_over_is_not_in_flight_for_ever() {
        let mut lossy = flow(3, 1000);
        lossy.backward.pass_over(NOW - ABANDONED / 2);
        let slots = [
            slot(3, 1, NOW - ABANDONED - 1),
            slot(3, 3, NOW - ABANDONED),
            slot(3, 5, NOW - ABANDONED / 2),
            slot(3, 7, NOW - ABANDONED / 4),
            slot(5, 1, NOW - 1),
            StreamSlot::default(),
        ];
        let flows = [flow(5, 3), lossy];
        assert_eq!(told(&flows, &slots, &[]), [[2, 0, 0], [3, 2, 1]]);
    }

    #[test]
    fn streams_whose_slots_were_taken_are_in_flight_no_more() {
        let slots = [slot(1, 1, NOW - 2 * ABANDONED)];
        for event in ["streams_full", "streams_abandoned"] {
            assert_eq!(told(&[flow(1, 4)], &slots, &[(event, 0)]), [[3, 0, 0]]);
            assert_eq!(told(&[flow(1, 4)], &slots, &[(event, 2)]), [[1, 0, 0]]);
        }
    }
}
