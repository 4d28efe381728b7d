//! The only module that knows aya: load, attach, pin, typed maps.
//!
//! [`Datapath::open`] loads the programs, or adopts what an earlier process left pinned; [`Datapath::apply`] says what
//! to balance. Dropping a [`Datapath`] leaves everything running; [`Datapath::detach`] is the clean end.

mod address;
mod attach;
pub mod bench;
pub mod capabilities;
mod clock;
mod counters;
mod error;
mod expire;
mod explain;
mod flows;
mod load;
mod maps;
mod moving;
mod nat;
mod neighbours;
mod netlink;
mod object;
mod options;
mod pins;
mod place;
mod plan;
mod ports;
pub mod preflight;
mod probe;
mod slots;
mod sweep;
mod syscall;
mod table;
mod tables;
pub mod watch;
mod xdp_features;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use aya::{Ebpf, EbpfLoader};
use evenkeel_ebpf::abi::{self, Settings};
use serde::Serialize;

pub use attach::Attachment;
pub use counters::{CounterSnapshot, Counters};
pub use error::DatapathError;
pub use explain::Explanation;
pub use flows::{FlowRecord, FlowState, PayloadProtocol, UpstreamRecord};
pub use neighbours::is_local;
pub use options::{
    BackendEntry, FlowHash, Forwarding, HookChoice, InterfaceSpec, Mode, Options, ServiceTable,
    TcAttach, XdpMode,
};
pub use sweep::SweepReport;
pub use table::FlowTable;

use maps::Maps;
use pins::Pins;
use plan::Indexes;
use tables::Installed;

/// The loaded data path.
pub struct Datapath {
    ebpf: Ebpf,
    maps: Maps,
    pins: Pins,
    options: Options,
    attachments: Vec<Attachment>,
    /// Indexes of the interfaces of the options when they were attached to; none for one that was not there.
    attached_to: Vec<Option<u32>>,
    indexes: Indexes,
    /// By service index.
    tables: HashMap<u32, Installed>,
    /// `MAGLEV` once more, because aya's type for it cannot delete.
    maglev_pin: OwnedFd,
    settings: Settings,
    /// Backends without a source address, and then the tables that name them, to be applied again.
    sourceless: Vec<SocketAddr>,
    applied: Vec<ServiceTable>,
    /// Not before this is the flow table read for a sweep again.
    next_scan: Option<Instant>,
    /// When the flow table is looked through for flows that were silent for too long.
    next_expiry: Instant,
    /// Flows opened and closed at the last sweep.
    swept_turnover: (u64, u64),
    /// The last sweep left closed flows behind, or there was none yet.
    sweep_again: bool,
}

/// What [`Datapath::open`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Adopted {
    /// False: everything was made anew. True: maps, flows, counters and links of an earlier process carry on.
    pub adopted: bool,
    /// Services found.
    pub services: usize,
    /// Backends found.
    pub backends: usize,
}

impl Datapath {
    /// Loads, or adopts, and attaches. When this fails on a fresh pin directory nothing stays behind.
    pub fn open(options: &Options) -> Result<(Self, Adopted), DatapathError> {
        options.check()?;
        if !capabilities::sufficient() {
            return Err(DatapathError::NotPermitted);
        }
        let object = object::bytes()?;
        let pins = Pins::open(options)?;
        let adopted = pins.populated();
        let opened = Self::load(options, object, &pins, adopted);
        match opened {
            Ok((ebpf, maps, settings)) => Self::start(options, ebpf, maps, pins, settings, adopted),
            Err(error) => {
                if !adopted {
                    // The first error is the one to tell.
                    let _ = pins.remove();
                }
                Err(error)
            }
        }
    }

    fn load(
        options: &Options,
        object: &[u8],
        pins: &Pins,
        adopted: bool,
    ) -> Result<(Ebpf, Maps, Settings), DatapathError> {
        pins.check(&pins::shapes(object, options)?)?;
        let mut loader = EbpfLoader::new();
        for (name, entries) in maps::sizes(options) {
            loader.map_max_entries(name, entries);
        }
        for name in maps::NAMES {
            loader.map_pin_path(name, pins.map(name));
        }
        let mut ebpf = loader
            .load(object)
            .map_err(|error| DatapathError::Load(Box::new(error)))?;
        let mut maps = Maps::take(&mut ebpf)?;
        let wrong = DatapathError::map("SETTINGS");
        let old = if adopted {
            maps.settings.get(&0, 0).map_err(&wrong)?
        } else {
            Settings::default()
        };
        let settings = Settings {
            // Another seed would send packets of unrecorded flows elsewhere.
            seed: if old.seed == 0 {
                random_seed()?
            } else {
                old.seed
            },
            nat_port_first: *options.nat_ports.start(),
            nat_port_last: *options.nat_ports.end(),
            count_streams: options.count_streams.into(),
            closed_hold: u64::try_from(options.closed_hold.as_nanos()).unwrap_or(u64::MAX),
            port_hold: u64::try_from(options.port_hold.as_nanos()).unwrap_or(u64::MAX),
            // Packets go on being forwarded while this is written.
            clock_offset: old.clock_offset,
            tick_ns: clock::tick_ns(),
            flow_buckets: maps.flows.buckets(),
            flow_slots: maps.flows.slots(),
            reserved: 0,
        };
        maps.settings.set(0, settings, 0).map_err(wrong)?;
        clock::calibrate(&mut ebpf)?;
        // Later it could no longer be loaded: see `capabilities`.
        expire::load(&mut ebpf)?;
        Ok((ebpf, maps, settings))
    }

    fn start(
        options: &Options,
        mut ebpf: Ebpf,
        maps: Maps,
        pins: Pins,
        settings: Settings,
        adopted: bool,
    ) -> Result<(Self, Adopted), DatapathError> {
        let prepare = |ebpf: &mut Ebpf| {
            let indexes = Indexes::adopt(&maps)?;
            let pin = pins.map("MAGLEV");
            let maglev_pin = syscall::open_pin(&pin).map_err(|source| DatapathError::Bpf {
                call: "BPF_OBJ_GET",
                object: pin.display().to_string(),
                source,
            })?;
            // Two versions at once would both rewrite the same packets.
            pins.remove_other_versions()?;
            let attachments =
                attach::attach_all(ebpf, &pins, &options.interfaces, options.tc_attach)?;
            Ok((indexes, maglev_pin, attachments))
        };
        let (indexes, maglev_pin, attachments) = match prepare(&mut ebpf) {
            Ok(prepared) => prepared,
            Err(error) => {
                if !adopted {
                    // The first error is the one to tell.
                    let _ = attach::detach_all(&pins).and_then(|()| pins.remove());
                }
                return Err(error);
            }
        };
        let found = Adopted {
            adopted,
            services: indexes.services.occupied().count(),
            backends: indexes.backends.occupied().count(),
        };
        let mut datapath = Self {
            ebpf,
            maps,
            pins,
            options: options.clone(),
            attachments,
            attached_to: Vec::new(),
            indexes,
            tables: HashMap::new(),
            maglev_pin,
            settings,
            sourceless: Vec::new(),
            applied: Vec::new(),
            next_scan: None,
            next_expiry: Instant::now(),
            swept_turnover: (0, 0),
            sweep_again: true,
        };
        datapath.attached_to = datapath.interface_indexes();
        datapath.find_ports()?;
        if adopted {
            datapath.maps.flows.recover(settings.seed);
            datapath.maps.replies.recover(settings.seed);
            datapath.forget_proxy()?;
        }
        Ok((datapath, found))
    }

    /// Attaches to these interfaces from now on, and to no others; the network namespace's `sk_lookup` stays.
    pub fn attach(&mut self, interfaces: &[InterfaceSpec]) -> Result<(), DatapathError> {
        self.attachments = attach::attach_all(
            &mut self.ebpf,
            &self.pins,
            interfaces,
            self.options.tc_attach,
        )?;
        self.options.interfaces = interfaces.to_vec();
        self.attached_to = self.interface_indexes();
        self.find_ports()
    }

    /// Hands connections of `l7` services to this listening socket (or its SO_REUSEPORT group). The kernel forgets it
    /// when the socket closes.
    pub fn steer_to(&mut self, listener: BorrowedFd<'_>) -> Result<(), DatapathError> {
        self.maps
            .steer_sockets
            .set(0, &listener.as_raw_fd(), 0)
            .map_err(DatapathError::map("STEER_SOCKETS"))
    }

    /// What is attached where.
    #[must_use]
    pub fn attachments(&self) -> Vec<Attachment> {
        self.attachments.clone()
    }

    /// The options it was opened with, and the interfaces it is attached to now.
    #[must_use]
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// The seed of the flow hash.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.settings.seed
    }

    /// Ends balancing: removes links, filters, maps and pins. Flows end with them.
    pub fn detach(self) -> Result<(), DatapathError> {
        attach::detach_all(&self.pins)?;
        self.pins.remove()
    }
}

impl Options {
    /// Refuses values that no map or program can work with.
    pub fn check(&self) -> Result<(), DatapathError> {
        let sizes = [
            ("flows.max", self.max_flows, 1 << 26, "1024 to 67108864"),
            (
                "limits.backends",
                self.max_backends,
                u32::from(abi::NO_BACKEND),
                "1 to 65535",
            ),
            ("limits.services", self.max_services, 65_536, "1 to 65536"),
            (
                "limits.upstreams",
                self.max_upstreams,
                1 << 22,
                "1024 to 4194304",
            ),
        ];
        for (key, found, most, allowed) in sizes {
            let least = if allowed.starts_with("1024") { 1024 } else { 1 };
            if !(least..=most).contains(&found) {
                return Err(DatapathError::Option {
                    key,
                    found: found.to_string(),
                    allowed,
                });
            }
        }
        // The kernel refuses names with a dot on bpffs (they are reserved for special files).
        if self
            .pin_dir
            .components()
            .any(|part| part.as_os_str().to_string_lossy().contains('.'))
            || !self.pin_dir.is_absolute()
        {
            return Err(DatapathError::Option {
                key: "daemon.pin_dir",
                found: self.pin_dir.display().to_string(),
                allowed: "an absolute path without dots",
            });
        }
        nat::check_ports(&self.nat_ports)
    }
}

/// Never zero, which stands for "none yet".
fn random_seed() -> Result<u64, DatapathError> {
    let mut bytes = [0; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()).map_err(
        |errno| DatapathError::System {
            action: "drawing the hash seed",
            source: errno.into(),
        },
    )?;
    Ok(u64::from_ne_bytes(bytes) | 1)
}
