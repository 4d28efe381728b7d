//! The maps of a [`World`], by name: to fill them, and to read what the programs counted.

use aya::maps::{Array, HashMap, Map, MapData, PerCpuArray};
use aya::{Ebpf, Pod};
use evenkeel::datapath::FlowTable;
use evenkeel_ebpf::abi::{Counters, Event, Flow, Reply, Tuple};
use evenkeel_ebpf::table::Entry;

use super::{SEED, World};

impl World {
    pub fn array<T: Pod>(&mut self, name: &str) -> Array<&mut MapData, T> {
        let map = self.ebpf.map_mut(name).expect("a map of this name");
        map.try_into().expect("an array of this type")
    }

    pub fn hash<K: Pod, V: Pod>(&mut self, name: &str) -> HashMap<&mut MapData, K, V> {
        let map = self.ebpf.map_mut(name).expect("a map of this name");
        map.try_into().expect("a hash map of this type")
    }

    fn per_cpu<T: Pod>(&self, name: &str, index: u32) -> Vec<T> {
        let map = self.ebpf.map(name).expect("a map of this name");
        let array: PerCpuArray<&MapData, T> = map.try_into().expect("a per-CPU array");
        let values = array.get(&index, 0).expect("an entry");
        values.iter().copied().collect()
    }

    fn counters(&self, name: &str) -> Counters {
        let mut sum = Counters::default();
        for one in self.per_cpu::<Counters>(name, 0) {
            sum.flows_opened += one.flows_opened;
            sum.flows_closed += one.flows_closed;
            sum.packets += one.packets;
            sum.bytes += one.bytes;
            sum.reply_packets += one.reply_packets;
            sum.reply_bytes += one.reply_bytes;
            sum.streams += one.streams;
            sum.flows_adopted += one.flows_adopted;
            sum.flows_local += one.flows_local;
            sum.flows_http2 += one.flows_http2;
        }
        sum
    }

    pub fn service(&self) -> Counters {
        self.counters("SERVICE_COUNTS")
    }

    pub fn backend(&self) -> Counters {
        self.counters("BACKEND_COUNTS")
    }

    pub fn event(&self, event: Event) -> u64 {
        self.per_cpu::<u64>("EVENTS", event as u32).iter().sum()
    }

    /// All events together: 0 means that nothing worth a name happened.
    pub fn events(&self) -> u64 {
        (0..Event::COUNT)
            .flat_map(|event| self.per_cpu::<u64>("EVENTS", event))
            .sum()
    }

    pub fn flow(&self, tuple: Tuple) -> Option<Flow> {
        self.flows.get(&tuple, SEED)
    }

    /// A connection of the proxy to a backend.
    pub fn upstream(&mut self, tuple: Tuple) -> Option<Flow> {
        self.hash::<Tuple, Flow>("UPSTREAMS").get(&tuple, 0).ok()
    }

    pub fn reply(&self, tuple: Tuple) -> Option<Reply> {
        self.replies.get(&tuple, SEED)
    }
}

pub(super) fn flow_table<V: Pod + Entry>(ebpf: &Ebpf, index: &str, slots: &str) -> FlowTable<V> {
    let array = |name| match ebpf.map(name) {
        Some(Map::Array(data)) => data,
        _ => panic!("{name} is no array"),
    };
    FlowTable::open(array(index), array(slots), array("RINGS")).expect("the arrays can be mapped")
}
