//! Katran's XDP program (`balancer_ingress` of facebookincubator/katran) on the packets that ours is measured with.
//!
//! One virtual address at the same port, as many backends, a Maglev ring of 65,537 filled in turns, and a table of flows
//! with as many entries as both of ours have together: all as in [`super::tables`]. It does less per packet: it wraps
//! packets for backends that answer their clients directly, so it records one direction only, allocates no port, looks
//! for no route and counts no streams.
//!
//! Above a rate of new flows it records none (`MAX_CONN_RATE`, 125,000 a second and CPU), and test runs are faster than
//! that. The object must be built with that out of the way; one that left flows out is refused.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use aya::EbpfLoader;
use aya::maps::{Array, ArrayOfMaps, HashMap, MapData};
use evenkeel_ebpf::abi::{MAGLEV_SLOTS, PROTOCOL_TCP};

use super::super::DatapathError;
use super::super::maps::take;
use super::{Kind, Measured, PORT, Program, SERVICE, SIZE, time};

/// `XDP_TX` of `enum xdp_action`, what it does with packets for backends.
const XDP_TX: u32 = 3;
/// Both of our tables at their default size.
const FLOWS: u32 = 2 * 1_048_576;
/// Backends' addresses count from here; no packet is sent to them.
const BACKENDS: Ipv4Addr = Ipv4Addr::new(10, 254, 0, 0);
/// The map that it falls back on where a CPU has none; here every CPU gets this one.
const TABLE: &str = "fallback_cache";
/// Its maps that are filled here.
const MAPS: [&str; 6] = [
    "vip_map",
    "ch_rings",
    "reals",
    "ctl_array",
    "lru_mapping",
    TABLE,
];

// Layouts of katran/lib/bpf/balancer_structs.h, as bytes: addresses and ports are in network byte order.

/// `struct vip_definition`: address (16), port (2), protocol (1), padding.
type Vip = [u8; 20];
/// `struct vip_meta`: flags, number of the virtual address.
type VipMeta = [u32; 2];
/// `struct real_definition`: address (16), flags (1), padding.
type Real = [u8; 20];
/// `struct ctl_value`: here the next hop's MAC address.
type Control = [u8; 8];
/// `struct flow_key`: addresses (16 each), ports (2 each), protocol (1), padding.
type FlowKey = [u8; 40];
/// `struct real_pos_lru`: backend, and when it was last used.
type RealPosition = [u64; 2];

/// The program, and where it records flows.
pub(super) struct Katran {
    object: PathBuf,
    program: OwnedFd,
    flows: HashMap<MapData, FlowKey, RealPosition>,
}

impl Katran {
    /// From its object file, on maps of its own.
    pub(super) fn load(object: &Path) -> Result<Self, DatapathError> {
        let mut ebpf = EbpfLoader::new()
            .map_max_entries(TABLE, FLOWS)
            .load_file(object)
            .map_err(|error| DatapathError::Load(Box::new(error)))?;
        if let Some(map) = MAPS.iter().find(|map| ebpf.map(map).is_none()) {
            return Err(DatapathError::BenchRival {
                object: object.to_owned(),
                what: format!("it has no map {map}, so it is not Katran's balancer.bpf.c"),
            });
        }
        let mut vips: HashMap<MapData, Vip, VipMeta> = take(&mut ebpf, "vip_map")?;
        vips.insert(vip(), [0, 0], 0)
            .map_err(DatapathError::map("vip_map"))?;
        let mut ring: Array<MapData, u32> = take(&mut ebpf, "ch_rings")?;
        let backends = u32::from(SIZE.backends);
        for (slot, index) in (0..MAGLEV_SLOTS as u32).zip((0..backends).cycle()) {
            // Number 0 means none.
            ring.set(slot, index + 1, 0)
                .map_err(DatapathError::map("ch_rings"))?;
        }
        let mut reals: Array<MapData, Real> = take(&mut ebpf, "reals")?;
        for number in 1..=backends {
            reals
                .set(number, real(number), 0)
                .map_err(DatapathError::map("reals"))?;
        }
        let mut control: Array<MapData, Control> = take(&mut ebpf, "ctl_array")?;
        control
            .set(0, [2, 0, 0, 0, 0, 1, 0, 0], 0)
            .map_err(DatapathError::map("ctl_array"))?;
        let flows = take(&mut ebpf, TABLE)?;
        let wrong = || DatapathError::map("lru_mapping");
        let mut tables: ArrayOfMaps<MapData, HashMap<MapData, FlowKey, RealPosition>> =
            take(&mut ebpf, "lru_mapping")?;
        for cpu in 0..tables.len() {
            tables.set(cpu, &flows, 0).map_err(wrong())?;
        }
        Ok(Self {
            object: object.to_owned(),
            program: super::program(&mut ebpf, "balancer_ingress")?,
            flows,
        })
    }

    /// Has it record the flow of `frame`.
    pub(super) fn take(&self, frame: &[u8]) -> Result<(), DatapathError> {
        match time(self.program.as_fd(), frame)?.verdict {
            XDP_TX => Ok(()),
            verdict => Err(self.refused(format!("it forwards no packets (verdict {verdict})"))),
        }
    }

    /// Fails unless it recorded so many flows.
    pub(super) fn verify(&self, flows: usize) -> Result<(), DatapathError> {
        let recorded = self.flows.keys().count();
        if recorded == flows {
            return Ok(());
        }
        Err(self.refused(format!(
            "it recorded {recorded} of {flows} flows: build it with -DMAX_CONN_RATE=4000000000U"
        )))
    }

    fn refused(&self, what: String) -> DatapathError {
        DatapathError::BenchRival {
            object: self.object.clone(),
            what,
        }
    }
}

/// The program to run; a plan without it has no case that takes it.
pub(super) fn program(katran: Option<&Katran>) -> Result<&OwnedFd, DatapathError> {
    katran
        .map(|katran| &katran.program)
        .ok_or(DatapathError::Missing("balancer_ingress"))
}

/// What it is measured with in the turns of our cases.
pub(super) fn cases() -> [Measured; 3] {
    [
        Measured::new(
            "katran_acknowledgement",
            "bare ACK of a known flow, by Katran's program",
            Program::Katran,
            Kind::Acknowledgement,
        ),
        Measured::new(
            "katran_opening",
            "SYN, by Katran's program: backend chosen, one direction recorded",
            Program::Katran,
            Kind::Opening,
        ),
        Measured::new(
            "katran_unrelated",
            "same port as the service, other address, by Katran's program",
            Program::Katran,
            Kind::Unrelated,
        ),
    ]
}

/// One of so many flows.
pub(super) fn flows(name: &'static str, count: u32) -> Measured {
    Measured::new(
        name,
        "ACK of one of so many flows at random, by Katran's program",
        Program::Katran,
        Kind::Flows(count),
    )
}

fn vip() -> Vip {
    let mut bytes = [0; size_of::<Vip>()];
    bytes[..4].copy_from_slice(&SERVICE.octets());
    bytes[16..18].copy_from_slice(&PORT.to_be_bytes());
    bytes[18] = PROTOCOL_TCP;
    bytes
}

fn real(number: u32) -> Real {
    let mut bytes = [0; size_of::<Real>()];
    bytes[..4].copy_from_slice(&(u32::from(BACKENDS) + number).to_be_bytes());
    bytes
}
