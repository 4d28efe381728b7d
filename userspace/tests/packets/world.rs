//! One service on a private copy of the maps, and the programs run on frames by `BPF_PROG_TEST_RUN`.

mod maps;

use std::io::ErrorKind::WouldBlock;
use std::net::Ipv4Addr;

use aya::maps::{Array, ArrayOfMaps, MapData};
use aya::programs::{Program, ProgramError, SchedClassifier, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader};
use evenkeel::datapath::FlowTable;
use evenkeel_ebpf::abi::{
    Address, Backend, BackendIndex, Event, FILTER_BACKENDS, FILTER_SERVICES, Filter, Flow,
    MaglevTable, NO_BACKEND, PROTOCOL_TCP, Reply, Service, ServiceKey, Settings, Tuple, filter_bit,
    forwarding, hash, mode,
};
use evenkeel_ebpf::table;

use crate::lab::{Lab, run};

/// The very object that this build of evenkeel embeds, wherever it came from; empty where there was none.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/evenkeel.bpf.o"));

/// Of the flow hash.
pub const SEED: u64 = 7;
/// How long a closed flow is kept, and its NAT port while there are others; ns.
pub const CLOSED_HOLD: u64 = 1_000_000_000;
pub const PORT_HOLD: u64 = 60_000_000_000;

pub const CLIENT: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 77, 0, 9), 40_000);
pub const SERVICE: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 77, 1, 1), 80);
pub const BACKEND: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 77, 0, 2), 8080);
pub const NAT_SOURCE: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Destination and source of what leaves for the backend, and for the client.
pub const TO_BACKEND: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0x77, 2], [2, 0, 0, 0, 0x77, 1]);
pub const TO_CLIENT: ([u8; 6], [u8; 6]) = ([2, 0, 0, 0, 0x77, 9], [2, 0, 0, 0, 0x77, 1]);

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    Xdp,
    Tc,
    Egress,
}

impl Hook {
    const fn program(self) -> &'static str {
        match self {
            Self::Xdp => "ek_xdp",
            Self::Tc => "ek_ingress",
            Self::Egress => "ek_egress",
        }
    }
}

pub const BOTH: [Hook; 2] = [Hook::Xdp, Hook::Tc];

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    Drop,
    Redirect,
}

/// What the world is like.
#[derive(Clone, Copy)]
pub struct Setup {
    pub mode: u8,
    pub forwarding: u8,
    pub hash: u8,
    pub backend: bool,
    pub nat_ports: (u16, u16),
    /// That the flow table is made for.
    pub flows: u32,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            mode: mode::L4,
            forwarding: forwarding::NAT,
            hash: hash::FIVE_TUPLE,
            backend: true,
            nat_ports: (10_240, 32_767),
            flows: 1024,
        }
    }
}

/// See the module.
pub struct World {
    pub hook: Hook,
    pub flows: FlowTable<Flow>,
    pub replies: FlowTable<Reply>,
    ebpf: Ebpf,
    _lab: Lab,
}

impl World {
    pub fn new(hook: Hook, setup: Setup) -> Self {
        let lab = Lab::new();
        run(
            "ip",
            &["link", "set", "ekd0", "address", "02:00:00:00:77:01"],
        );
        for (address, mac) in [
            (BACKEND.0, "02:00:00:00:77:02"),
            (CLIENT.0, "02:00:00:00:77:09"),
        ] {
            let address = address.to_string();
            run(
                "ip",
                &["neigh", "replace", &address, "lladdr", mac, "dev", "ekd0"],
            );
        }
        assert!(
            !OBJECT.is_empty(),
            "these tests need the BPF program: run `cargo xtask build`"
        );
        let slots = table::slots(setup.flows);
        let buckets = table::buckets(slots);
        let ebpf = EbpfLoader::new()
            .map_max_entries("FLOWS", slots)
            .map_max_entries("FLOW_INDEX", buckets)
            .map_max_entries("REPLIES", slots)
            .map_max_entries("REPLY_INDEX", buckets)
            .load(OBJECT)
            .expect("the object's maps can be made");
        let mut world = Self {
            hook,
            flows: maps::flow_table(&ebpf, "FLOW_INDEX", "FLOWS"),
            replies: maps::flow_table(&ebpf, "REPLY_INDEX", "REPLIES"),
            ebpf,
            _lab: lab,
        };
        world.fill(setup);
        world.load(hook.program());
        world.load("ek_clock");
        world.load("ek_expire");
        // 250 Hz: which one does not matter to a test that knows no other clock.
        world.keep_time(4_000_000);
        world
    }

    /// Sets the clock, to ticks of so many ns; 0: no ticks.
    pub fn keep_time(&mut self, tick_ns: u32) {
        let mut map = self.array::<Settings>("SETTINGS");
        let old = map.get(&0, 0).expect("SETTINGS");
        let settings = Settings { tick_ns, ..old };
        map.set(0, settings, 0).expect("SETTINGS");
        self.run("ek_clock", &[0; 64]);
    }

    /// Closes the flows of this list.
    pub fn expire(&self, list: &[u8]) {
        self.run("ek_expire", list);
    }

    /// Makes interfaces such that XDP cannot send by them.
    pub fn take_xdp_from_interfaces(&mut self) {
        let port = self.interface();
        let removed = self.hash::<u32, u32>("XDP_PORTS").remove(&port);
        removed.expect("it was there");
    }

    /// Index of the interface that packets leave by.
    fn interface(&self) -> u32 {
        // `2: ekd0@ekd1: …`; /sys would show the namespace that it was mounted in.
        let link = run("ip", &["-o", "link", "show", "dev", "ekd0"]);
        let index = link.split(':').next().expect("something");
        index.parse().expect("a number")
    }

    /// Gives the route to `destination` this MTU, from the next tick on.
    pub fn narrow(&self, destination: Ipv4Addr, mtu: u16) {
        let (to, mtu) = (destination.to_string(), mtu.to_string());
        // Unlocked, `bpf_fib_lookup` overlooks it (`ip_mtu_from_fib_result`).
        let lock = ["route", "replace", &to, "dev", "ekd0", "mtu", "lock", &mtu];
        run("ip", &lock);
    }

    fn run(&self, name: &str, frame: &[u8]) {
        let program = self.ebpf.program(name).expect("a program of this name");
        let program: &Xdp = program.try_into().expect("an XDP program");
        let options = TestRunOptions {
            data_in: Some(frame),
            ..TestRunOptions::new()
        };
        program.test_run(options).expect("the kernel runs it");
    }

    fn load(&mut self, name: &str) {
        let program = self.ebpf.program_mut(name).expect("a program of this name");
        let mut load = || match program {
            Program::Xdp(program) => program.load(),
            Program::SchedClassifier(program) => program.load(),
            _ => panic!("{name} is neither an XDP nor a TC program"),
        };
        // The verifier gives up with EAGAIN when a signal comes, as on a loaded machine the test runner's do.
        let loaded = (0..20).map(|_| load()).find(|loaded| match loaded {
            Err(ProgramError::LoadError { io_error, .. }) => io_error.kind() != WouldBlock,
            _ => true,
        });
        loaded
            .expect("a load without a signal")
            .expect("the verifier accepts it");
    }

    /// Goes on with the other program at TC, on the same maps.
    pub fn turn_to(&mut self, hook: Hook) {
        assert!(hook != Hook::Xdp && self.hook != Hook::Xdp, "{hook:?}");
        self.hook = hook;
        let program = self.ebpf.program(hook.program()).expect("a program");
        if program.fd().is_err() {
            self.load(hook.program());
        }
    }

    /// Runs the program on one frame.
    pub fn send(&self, frame: &[u8]) -> (Verdict, Vec<u8>) {
        let mut out = vec![0xff; frame.len() + 64];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut out),
            ..TestRunOptions::new()
        };
        let name = self.hook.program();
        let program = self.ebpf.program(name).expect("a program of this name");
        let result = if self.hook == Hook::Xdp {
            let program: &Xdp = program.try_into().expect("an XDP program");
            program.test_run(options)
        } else {
            let program: &SchedClassifier = program.try_into().expect("a TC program");
            program.test_run(options)
        };
        let result = result.expect("the kernel runs it");
        // enum xdp_action; TC_ACT_UNSPEC, TC_ACT_SHOT, TC_ACT_REDIRECT.
        let verdict = match (self.hook, result.return_value as i32) {
            (Hook::Xdp, 2) | (_, -1) => Verdict::Pass,
            (Hook::Xdp, 1) | (Hook::Tc, 2) => Verdict::Drop,
            (Hook::Xdp, 4) | (Hook::Tc, 7) => Verdict::Redirect,
            (hook, other) => panic!("{hook:?} said {other}"),
        };
        out.truncate(result.data_size_out as usize);
        (verdict, out)
    }

    /// Runs the program on a frame that must pass untouched.
    #[track_caller]
    pub fn passes(&mut self, frame: &[u8]) {
        let (verdict, out) = self.send(frame);
        assert_eq!(verdict, Verdict::Pass, "{:?}", self.hook);
        assert_eq!(out, frame, "{:?}", self.hook);
    }

    /// Runs the program on a frame that must leave as `expected`, to the byte.
    #[track_caller]
    pub fn leaves_as(&mut self, frame: &[u8], expected: &[u8]) {
        let (verdict, out) = self.send(frame);
        assert_eq!(verdict, Verdict::Redirect, "{:?}", self.hook);
        assert_eq!(out, expected, "{:?}", self.hook);
    }

    #[track_caller]
    pub fn drops(&mut self, frame: &[u8], reason: Event) {
        let before = self.event(reason);
        assert_eq!(self.send(frame).0, Verdict::Drop, "{:?}", self.hook);
        assert_eq!(self.event(reason), before + 1, "{:?}", self.hook);
    }

    fn fill(&mut self, setup: Setup) {
        let settings = Settings {
            seed: SEED,
            nat_port_first: setup.nat_ports.0,
            nat_port_last: setup.nat_ports.1,
            count_streams: 1,
            closed_hold: CLOSED_HOLD,
            port_hold: PORT_HOLD,
            flow_buckets: self.flows.buckets(),
            flow_slots: self.flows.slots(),
            ..Settings::default()
        };
        self.array("SETTINGS")
            .set(0, settings, 0)
            .expect("SETTINGS");
        self.array("NAT_SOURCES")
            .set(0, address(NAT_SOURCE), 0)
            .expect("NAT_SOURCES");
        let port = self.interface();
        self.hash::<u32, u32>("XDP_PORTS")
            .insert(port, 1, 0)
            .expect("XDP_PORTS");
        let backend = Backend {
            address: address(BACKEND.0),
            port: BACKEND.1.to_be(),
            nat_count: u16::from(setup.forwarding == forwarding::NAT),
            forwarding: setup.forwarding,
            used: 1,
            ..Backend::default()
        };
        self.array("BACKENDS").set(0, backend, 0).expect("BACKENDS");
        self.array("SERVICE_INFO")
            .set(0, key(SERVICE), 0)
            .expect("SERVICE_INFO");
        for (index, at) in [(FILTER_SERVICES, SERVICE), (FILTER_BACKENDS, BACKEND)] {
            let key = key(at);
            let bit = filter_bit(&key.address, key.port, key.protocol) as usize;
            let mut filter = Filter { words: [0; _] };
            filter.words[bit / 64] |= 1 << (bit % 64);
            self.array("FILTERS")
                .set(index, filter, 0)
                .expect("FILTERS");
        }
        let slot = if setup.backend { 0 } else { NO_BACKEND };
        self.balance(Box::new(MaglevTable { slots: [slot; _] }));
        self.write_service(setup);
        let index = BackendIndex::default();
        self.hash("BACKEND_BY_ADDR")
            .insert(key(BACKEND), index, 0)
            .expect("BACKEND_BY_ADDR");
    }

    /// Makes the service what `setup` says, from the next packet on.
    pub fn write_service(&mut self, setup: Setup) {
        let service = Service {
            mode: setup.mode,
            forwarding: setup.forwarding,
            hash: setup.hash,
            ..Service::default()
        };
        self.hash("SERVICES")
            .insert(key(SERVICE), service, 0)
            .expect("SERVICES");
        let mut epoch = self.array::<u64>("SERVICE_EPOCH");
        let next = epoch.get(&0, 0).expect("SERVICE_EPOCH") + 1;
        epoch.set(0, next, 0).expect("SERVICE_EPOCH");
    }

    /// Gives the service this table.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "128 KiB: boxed by the caller"
    )]
    fn balance(&mut self, table: Box<MaglevTable>) {
        let mut inner = Array::create(1, 0).expect("an inner map");
        inner.set(0, *table, 0).expect("the inner map");
        let map = self.ebpf.map_mut("MAGLEV").expect("MAGLEV");
        let mut outer: ArrayOfMaps<&mut MapData, Array<MapData, MaglevTable>> =
            map.try_into().expect("MAGLEV is an array of maps");
        outer.set(0, &inner, 0).expect("MAGLEV");
    }

    /// So many backends, all alike but for their index, with equal shares of the table.
    pub fn spread_over(&mut self, backends: u16) {
        let mut copies = self.array::<Backend>("BACKENDS");
        let first = copies.get(&0, 0).expect("BACKENDS");
        for index in 1..backends {
            let port = (BACKEND.1 + index).to_be();
            let backend = Backend { port, ..first };
            copies.set(index.into(), backend, 0).expect("BACKENDS");
        }
        let mut table = Box::new(MaglevTable { slots: [0; _] });
        for (slot, owner) in table.slots.iter_mut().zip((0..backends).cycle()) {
            *slot = owner;
        }
        self.balance(table);
    }
}

pub fn address(ip: Ipv4Addr) -> Address {
    Address::from_v4_word(u32::from_ne_bytes(ip.octets()))
}

fn key((ip, port): (Ipv4Addr, u16)) -> ServiceKey {
    ServiceKey {
        address: address(ip),
        port: port.to_be(),
        protocol: PROTOCOL_TCP,
        reserved: [0; 5],
    }
}

pub fn tuple(source: (Ipv4Addr, u16), destination: (Ipv4Addr, u16)) -> Tuple {
    Tuple {
        source: address(source.0),
        destination: address(destination.0),
        source_port: source.1.to_be(),
        destination_port: destination.1.to_be(),
        protocol: PROTOCOL_TCP,
        reserved: [0; 3],
    }
}
