//! The lab: client, balancer and backends, each in a network namespace of its own, on one machine and invisible to it.
//!
//! ```text
//!            10.77.0.0/24                     10.77.I.0/24
//!  client ---------------- .1 balancer .1 ------------------ .2 backend I (1, 2, ...)
//!       .2                    10.79.0.1 on lo: the services' address
//! ```
//!
//! With [`Loss`] a router stands between client (then in 10.78.0.0/24) and balancer and drops packets there: a drop
//! on the sender's own egress is reported to the sender, which then knows what no real network would tell it.
//! With a [`RelaySpec`] the link between client and router is a [`Relay`]: delay, loss, a rate and a queue, from a seed.
//!
//! Two labs at once do not meet: names carry the process id and a counter, and interfaces exist only inside the
//! namespaces. Pins have a bpffs of their own, because entering a namespace by `ip netns exec` mounts /sys anew and
//! hides the usual one; for the same reason [`Namespace::command`] uses `nsenter`. Everything goes away with the
//! [`Lab`], on a panic, and on Ctrl-C; what a killed run left behind, [`clean`] removes.

mod cleanup;
mod client;
mod config;
mod daemon;
mod namespace;
mod packets;
mod process;
mod relay;
mod stop;

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result, bail, ensure};

pub use cleanup::{Leftovers, clean};
pub use config::{Interface, Service, render};
pub use daemon::Daemon;
pub use namespace::Namespace;
pub use nix::sys::signal::Signal;
pub use process::Process;
pub use relay::{Passed, Relay, RelaySpec};

use crate::{setup, shell, workspace};

/// Where labs keep their files; one directory each.
const HOME: &str = "/run/evenkeel-lab";
/// The address of every service of a lab.
const SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 79, 0, 1);
/// Backends have a /24 each, 10.77.1.0 to 10.77.99.0.
const MOST_BACKENDS: usize = 99;

/// What the virtual network cards do by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Offloads {
    /// As the kernel makes them: packets of 64 KiB without checksums, and nothing is merged. Fast, and hides a missing
    /// checksum.
    #[default]
    All,
    /// Checksums are written and checked: what functional tests want.
    NoChecksums,
    /// Every packet is as it would be on a wire.
    None,
    /// Sent as on a wire and merged where they arrive (GRO), which a virtual card does not do by itself: what TC sees
    /// behind a real card.
    Merged,
}

/// Packets lost between client and balancer, in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Every n-th packet: the same in each run that sends the same packets.
    EveryNth(u32),
    /// One packet in n, at random.
    OneIn(u32),
}

/// What lab to make.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Number of backends, at least 1.
    pub backends: usize,
    /// What the virtual network cards do by themselves.
    pub offloads: Offloads,
    /// MTU of every link, 1500 if `None`.
    pub mtu: Option<u32>,
    /// Loss between client and balancer.
    pub loss: Option<Loss>,
    /// A link that is not ideal between client and balancer; not together with `loss`.
    pub relay: Option<RelaySpec>,
    /// Whether the balancer is the backends' gateway, which forwarding `dnat` needs; without, they know no route
    /// to the client at all.
    pub gateway: bool,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            backends: 2,
            offloads: Offloads::default(),
            mtu: None,
            loss: None,
            relay: None,
            gateway: false,
        }
    }
}

/// Client, balancer and backends. Gone when dropped, unless [`Lab::keep`] was called.
#[derive(Debug)]
pub struct Lab {
    id: String,
    directory: PathBuf,
    client: Namespace,
    balancer: Namespace,
    backends: Vec<Namespace>,
    relay: Option<Relay>,
    kept: bool,
}

impl Lab {
    /// Makes the namespaces and everything in them. Needs root.
    pub fn new(spec: &Spec) -> Result<Self> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        ensure!(
            workspace::is_root(),
            "network namespaces and BPF programs need root: run this as root"
        );
        ensure!(
            (1..=MOST_BACKENDS).contains(&spec.backends),
            "a lab has 1 to {MOST_BACKENDS} backends, not {}",
            spec.backends
        );
        setup::lab_tools()?;
        let id = format!(
            "ek{}x{}",
            std::process::id(),
            COUNTER.fetch_add(1, Ordering::Relaxed)
        );
        let _changing = cleanup::changing();
        cleanup::register(&id)?;
        // From here on dropping `lab` takes away whatever was made before a failure.
        let mut lab = Self {
            directory: Path::new(HOME).join(&id),
            client: Namespace::new(&id, "client"),
            balancer: Namespace::new(&id, "balancer"),
            backends: (1..=spec.backends)
                .map(|number| Namespace::new(&id, &format!("backend{number}")))
                .collect(),
            id,
            relay: None,
            kept: false,
        };
        match lab.make(spec) {
            Ok(()) => Ok(lab),
            Err(error) => {
                drop(_changing);
                Err(error.context("cannot make the lab"))
            }
        }
    }

    fn make(&mut self, spec: &Spec) -> Result<()> {
        let bpf = self.bpffs();
        fs::create_dir_all(&bpf)?;
        fs::create_dir_all(self.directory.join("state"))?;
        shell::capture(Command::new("mount").args(["-t", "bpf", "bpf"]).arg(&bpf))?;
        for namespace in [&self.client, &self.balancer]
            .into_iter()
            .chain(&self.backends)
        {
            namespace.create()?;
        }
        self.client_side(spec)?;
        for (index, backend) in self.backends.iter().enumerate() {
            let number = index + 1;
            let (near, far) = (format!("10.77.{number}.1"), format!("10.77.{number}.2"));
            self.balancer
                .link(&format!("b{number}"), backend, "eth0", spec)?;
            self.balancer
                .ip(&[&format!("addr add {near}/24 dev b{number}")])?;
            backend.ip(&[&format!("addr add {far}/24 dev eth0")])?;
            if spec.gateway {
                backend.ip(&[&format!("route add default via {near}")])?;
            }
        }
        self.balancer
            .ip(&[&format!("addr add {SERVICE_ADDRESS}/32 dev lo")])
    }

    /// The name that all of this lab's namespaces begin with.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where the clients run.
    #[must_use]
    pub fn client(&self) -> &Namespace {
        &self.client
    }

    /// Where evenkeel runs.
    #[must_use]
    pub fn balancer(&self) -> &Namespace {
        &self.balancer
    }

    /// Where the servers run.
    #[must_use]
    pub fn backends(&self) -> &[Namespace] {
        &self.backends
    }

    /// Lets the ends of client and backends take packets redirected to them by native XDP: a veth does so only if it
    /// has NAPI itself, which GRO gives it.
    pub fn receive_redirected(&self) -> Result<()> {
        for namespace in self.backends.iter().chain([&self.client]) {
            let mut ethtool = namespace.command("ethtool");
            shell::capture(ethtool.args(["-K", "eth0", "gro", "on"]))?;
        }
        Ok(())
    }

    /// How many packets the lab lost on purpose so far.
    pub fn lost(&self) -> Result<u64> {
        let router = Namespace::new(&self.id, "router");
        let rules = shell::capture(router.command("nft").args(["--json", "list", "ruleset"]))?;
        let rules: serde_json::Value = serde_json::from_str(&rules)?;
        rules["nftables"]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|object| object["rule"]["expr"].as_array().into_iter().flatten())
            .find_map(|expression| expression["counter"]["packets"].as_u64())
            .context("this lab loses nothing")
    }

    /// The link between client and router, where it is not ideal.
    pub fn relay(&self) -> Result<&Relay> {
        self.relay.as_ref().context("this lab has no relay")
    }

    /// The virtual address `port` of this lab.
    #[must_use]
    pub fn service(&self, port: u16) -> SocketAddr {
        SocketAddr::new(IpAddr::V4(SERVICE_ADDRESS), port)
    }

    /// The address of the backend at `index` (from 0).
    pub fn backend_address(&self, index: usize, port: u16) -> Result<SocketAddr> {
        if index >= self.backends.len() {
            bail!(
                "the lab has {} backends, none at {index}",
                self.backends.len()
            );
        }
        let number = u8::try_from(index + 1).context("backend number")?;
        Ok(SocketAddr::from((Ipv4Addr::new(10, 77, number, 2), port)))
    }

    /// The client's own address.
    #[must_use]
    pub fn client_address(&self, spec: &Spec) -> IpAddr {
        let routed = spec.loss.is_some() || spec.relay.is_some();
        let third = if routed { 78 } else { 77 };
        IpAddr::V4(Ipv4Addr::new(10, third, 0, 2))
    }

    /// The balancer's interfaces: towards the client, then towards each backend.
    #[must_use]
    pub fn interfaces(&self) -> Vec<String> {
        std::iter::once("client".to_owned())
            .chain((1..=self.backends.len()).map(|number| format!("b{number}")))
            .collect()
    }

    /// The lab's files: configuration, control socket, logs.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The bpffs for pins.
    #[must_use]
    pub fn bpffs(&self) -> PathBuf {
        self.directory.join("bpf")
    }

    /// Starts a program for this lab: it ends with the lab at the latest, wherever it is then.
    pub fn spawn(&self, command: &mut Command) -> Result<Child> {
        cleanup::spawn(&self.id, command)
    }

    /// How to get into a kept lab and how to get rid of it.
    #[must_use]
    pub fn describe(&self) -> String {
        let enter = |namespace: &Namespace| {
            format!("  nsenter --net=/run/netns/{} bash\n", namespace.name())
        };
        let namespaces: String = [&self.client, &self.balancer]
            .into_iter()
            .chain(&self.backends)
            .map(enter)
            .collect();
        format!(
            "lab {} is left running; files in {}\n{namespaces}  cargo xtask lab clean {}    removes it",
            self.id,
            self.directory.display(),
            self.id
        )
    }

    /// Leaves everything running when dropped, except a relay, which is a thread of this process. [`clean`] removes it when told to remove kept labs.
    pub fn keep(&mut self) -> Result<()> {
        cleanup::keep(&self.id)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.relay = None;
        if !self.kept {
            cleanup::remove(&self.id);
        }
    }
}
