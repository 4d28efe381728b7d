//! Where a flow would go, and why: the decision of the kernel side, taken again with the same hash and the same table.

use std::net::SocketAddr;
use std::os::fd::AsFd;

use aya::maps::IterableMap;
use evenkeel_ebpf::abi::{MAGLEV_SLOTS, MaglevTable, NO_BACKEND, PROTOCOL_TCP, hash, mode};
use evenkeel_ebpf::select;

use super::address::{key_of, socket_of_key, tuple_of};
use super::flows::now;
use super::{Datapath, DatapathError, FlowHash, FlowRecord, Mode, syscall};

/// Answer of [`Datapath::explain`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// The client asked for.
    pub client: SocketAddr,
    /// The service asked for.
    pub service: SocketAddr,
    /// Its mode for new flows.
    pub mode: Mode,
    /// The flow, if it is in the table and not closed; then its backend is the answer, whatever the hash says.
    pub existing: Option<FlowRecord>,
    /// What decides at L4.
    pub kind: FlowHash,
    /// Hash of that, with the seed of this host.
    pub hash: u64,
    /// Slot of the service's Maglev table.
    pub slot: u32,
    /// The backend in that slot; `None` if no backend takes new flows.
    pub choice: Option<SocketAddr>,
    /// The decision: a backend, or nothing (see `reasons`).
    pub backend: Option<SocketAddr>,
    /// The decision: it goes to the local proxy, which chooses a backend for each stream.
    pub local: bool,
    /// How the decision came about, a sentence each, in order.
    pub reasons: Vec<String>,
}

impl Datapath {
    /// Where would a connection from `client` to `service` go, and why?
    pub fn explain(
        &self,
        client: SocketAddr,
        service: SocketAddr,
    ) -> Result<Explanation, DatapathError> {
        let key = key_of(service, PROTOCOL_TCP);
        let index = self
            .indexes
            .services
            .index(&key)
            .filter(|index| self.indexes.services.is_live(*index));
        let Some(index) = index else {
            return Err(DatapathError::UnknownService {
                service,
                known: self.services(),
            });
        };
        let value = self
            .maps
            .services
            .get(&key, 0)
            .map_err(DatapathError::map("SERVICES"))?;
        let tuple = tuple_of(client, service, PROTOCOL_TCP);
        let chosen = select::choice(&tuple, self.settings.seed, value.hash);
        let slot = select::slot(chosen);
        let choice = self.slot_owner(index, slot)?;
        let mut explanation = Explanation {
            client,
            service,
            mode: if value.mode == mode::L7 {
                Mode::L7
            } else {
                Mode::L4
            },
            existing: self.existing(&tuple),
            kind: if value.hash == hash::SOURCE_IP {
                FlowHash::SourceIp
            } else {
                FlowHash::FiveTuple
            },
            hash: chosen,
            slot,
            choice,
            backend: None,
            local: false,
            reasons: Vec::new(),
        };
        explanation.decide();
        Ok(explanation)
    }

    /// Addresses of the services balanced now.
    fn services(&self) -> Vec<SocketAddr> {
        let live = self.indexes.services.occupied().filter(|(.., live)| *live);
        live.map(|(_, key, _)| socket_of_key(key)).collect()
    }

    fn slot_owner(&self, service: u32, slot: u32) -> Result<Option<SocketAddr>, DatapathError> {
        let wrong = DatapathError::map("MAGLEV");
        let adopted;
        let table = match self.tables.get(&service) {
            Some(installed) => &installed.table,
            // Adopted and not applied yet.
            None => {
                adopted = self.maps.maglev.get(&service, 0).map_err(wrong)?;
                &adopted
            }
        };
        let mut slots = Box::new(MaglevTable {
            slots: [NO_BACKEND; MAGLEV_SLOTS + 3],
        });
        syscall::lookup_into(table.map().fd().as_fd(), 0, &mut *slots).map_err(|source| {
            DatapathError::Bpf {
                call: "BPF_MAP_LOOKUP_ELEM",
                object: "MAGLEV".to_owned(),
                source,
            }
        })?;
        let owner = slots.slots.get(slot as usize).copied();
        // NO_BACKEND is no index.
        Ok(owner
            .and_then(|index| self.indexes.backends.key(index.into()))
            .map(|id| socket_of_key(&id.address)))
    }

    fn existing(&self, tuple: &evenkeel_ebpf::abi::Tuple) -> Option<FlowRecord> {
        let flow = self.maps.flows.get(tuple, self.settings.seed)?;
        let reply = self.reply_of(tuple, &flow);
        self.record(tuple, &flow, reply.as_ref(), now())
    }
}

impl Explanation {
    /// Fills the decision and its reasons from the rest; in the order of the kernel side.
    fn decide(&mut self) {
        let mut say = |text: String| self.reasons.push(text);
        if let Some(flow) = &self.existing {
            let open = !matches!(
                flow.state,
                super::FlowState::Closed | super::FlowState::Reset
            );
            if open && flow.moved {
                self.backend = flow.backend;
                say("this flow is moved to the proxy: its client's next packet is answered with a reset, and the client comes again".to_owned());
                return;
            }
            if open {
                say(match flow.backend {
                    Some(backend) => format!("this flow is in the table, on {backend}: a decision holds for the life of the flow"),
                    None => "this flow is in the table, with the local proxy: a decision holds for the life of the flow".to_owned(),
                });
                self.backend = flow.backend;
                self.local = flow.backend.is_none();
                return;
            }
            say("the flow in the table is closed: a SYN begins a new one".to_owned());
        } else {
            say("no such flow is in the table".to_owned());
        }
        if self.mode == Mode::L7 {
            say("the service is in mode l7: new flows go to the local proxy, which chooses a backend for each stream".to_owned());
            self.local = true;
            return;
        }
        let of = match self.kind {
            FlowHash::FiveTuple => "of the 5-tuple",
            FlowHash::SourceIp => {
                "of the client's address (hash source-ip, any port of the client)"
            }
        };
        say(format!(
            "the service is in mode l4: hash {:#018x} {of} leads to slot {}",
            self.hash, self.slot
        ));
        say(match self.choice {
            Some(backend) => format!("slot {} of the service's table belongs to {backend}", self.slot),
            None => "no backend takes new flows (none, or all have weight 0): the packet is dropped and counted as drop_no_backend".to_owned(),
        });
        self.backend = self.choice;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{FlowState, PayloadProtocol};
    use super::*;

    fn explanation(mode: Mode, existing: Option<FlowRecord>) -> Explanation {
        let mut explanation = Explanation {
            client: ([10, 0, 0, 1], 4000).into(),
            service: ([10, 0, 0, 2], 80).into(),
            mode,
            existing,
            kind: FlowHash::FiveTuple,
            hash: 1,
            slot: 2,
            choice: Some(([10, 0, 0, 3], 80).into()),
            backend: None,
            local: false,
            reasons: Vec::new(),
        };
        explanation.decide();
        explanation
    }

    fn flow(backend: Option<SocketAddr>, state: FlowState) -> FlowRecord {
        FlowRecord {
            client: ([10, 0, 0, 1], 4000).into(),
            service: ([10, 0, 0, 2], 80).into(),
            protocol: PROTOCOL_TCP,
            backend,
            nat: None,
            moved: false,
            state,
            adopted: false,
            age: Duration::ZERO,
            idle: Duration::ZERO,
            packets: 0,
            bytes: 0,
            reply_packets: 0,
            reply_bytes: 0,
            streams: 0,
            payload: PayloadProtocol::Unknown,
        }
    }

    #[test]
    fn an_existing_flow_stays_where_it_is_whatever_the_mode_and_the_hash_say() {
        let elsewhere: SocketAddr = ([10, 0, 0, 9], 80).into();
        for mode in [Mode::L4, Mode::L7] {
            let answer = explanation(mode, Some(flow(Some(elsewhere), FlowState::Established)));
            assert_eq!((answer.backend, answer.local), (Some(elsewhere), false));
            let answer = explanation(mode, Some(flow(None, FlowState::Established)));
            assert_eq!((answer.backend, answer.local), (None, true));
        }
    }

    #[test]
    fn a_new_or_closed_flow_follows_the_mode() {
        let closed = flow(Some(([10, 0, 0, 9], 80).into()), FlowState::Closed);
        for existing in [None, Some(closed)] {
            let answer = explanation(Mode::L4, existing.clone());
            assert_eq!((answer.backend, answer.local), (answer.choice, false));
            let answer = explanation(Mode::L7, existing);
            assert_eq!((answer.backend, answer.local), (None, true));
        }
    }
}
