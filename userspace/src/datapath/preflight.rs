//! Can the data path run here? Every answer comes from trying, in a network namespace that is thrown away, or from
//! reading the setting itself; never from the kernel's version alone, since distributions backport and disable.

use std::fs;
use std::path::Path;

use aya::util::KernelVersion;
use evenkeel_ebpf::abi::{Flow, Reply, Slot};
use evenkeel_ebpf::table::{self, Bucket};
use serde::{Deserialize, Serialize};

use super::DatapathError;
use super::attach::index_of;
use super::{
    HookChoice, InterfaceSpec, Options, XdpMode, capabilities, nat, pins, probe, xdp_features,
};

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// As it should be.
    Ok,
    /// Works, but not all of it or not at its best.
    Warn,
    /// `evenkeel run` would fail.
    Fail,
}

/// One thing looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was looked at.
    pub name: String,
    /// The verdict.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What to do about it, a command where there is one; empty only if all is as it should be.
    pub remedy: String,
}

impl Finding {
    pub(super) fn new(
        name: &str,
        status: Status,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            status,
            found: found.into(),
            remedy: remedy.into(),
        }
    }

    pub(super) fn ok(name: &str, found: impl Into<String>) -> Self {
        Self::new(name, Status::Ok, found, "")
    }
}

/// Looks at the host.
#[must_use]
pub fn check() -> Vec<Finding> {
    let mut findings = vec![
        kernel(),
        privileges(),
        btf(),
        jit(),
        bpffs(),
        forwarding(),
        nat_ports(),
    ];
    findings.extend(probe::probes());
    findings.push(native_xdp());
    findings
}

/// What the driver of an interface says of native XDP; `None` where the kernel does not say.
fn takes_xdp(name: &str) -> Option<bool> {
    let index = index_of(name).ok()?;
    let features = xdp_features::of_interface(index).ok()??;
    Some(features.native())
}

/// Which interfaces of this host have drivers that take XDP.
fn native_xdp() -> Finding {
    const NAME: &str = "native xdp";
    let all = super::neighbours::interfaces().unwrap_or_default();
    let said: Vec<(String, Option<bool>)> = all
        .into_iter()
        .map(|name| {
            let takes = takes_xdp(&name);
            (name, takes)
        })
        .collect();
    if said.iter().all(|(_, takes)| takes.is_none()) {
        return Finding::ok(NAME, "the kernel does not say (from 6.3 on it does)");
    }
    let native = said.into_iter().filter(|(_, takes)| *takes == Some(true));
    let names: Vec<String> = native.map(|(name, _)| name).collect();
    let found = match names.as_slice() {
        [] => "no driver here says that it takes it; TC works on every interface".to_owned(),
        _ => format!("drivers that say they take it: {}", names.join(", ")),
    };
    Finding::ok(NAME, found)
}

/// An interface of the configuration, of which there are those that are `known`.
fn interface(wanted: &InterfaceSpec, known: &[String]) -> Finding {
    let name = format!("interface {}", wanted.name);
    if !known.contains(&wanted.name) {
        let remedy = format!("name one of: {}", known.join(", "));
        return Finding::new(&name, Status::Fail, "does not exist here", remedy);
    }
    if let Err(error @ DatapathError::NotEthernet(_)) = super::attach::ethernet(&wanted.name) {
        let remedy = "name the interface that its packets leave by";
        return Finding::new(&name, Status::Fail, error.to_string(), remedy);
    }
    let natively = wanted.hook == HookChoice::Xdp && wanted.xdp_mode == XdpMode::Native;
    match takes_xdp(&wanted.name) {
        Some(true) => Finding::ok(&name, "exists; its driver says that it takes native XDP"),
        Some(false) if natively => Finding::new(
            &name,
            Status::Fail,
            "exists, but its driver says that it takes no native XDP",
            "set `hook = \"tc\"`, which works with every driver",
        ),
        Some(false) if wanted.hook == HookChoice::Auto => Finding::ok(
            &name,
            "exists; for TC, as its driver says that it takes no native XDP",
        ),
        Some(false) | None => Finding::ok(&name, "exists"),
    }
}

/// Looks at what this configuration needs of the host besides.
#[must_use]
pub fn check_options(options: &Options) -> Vec<Finding> {
    let known = super::neighbours::interfaces().unwrap_or_default();
    let interfaces = options.interfaces.iter();
    let mut findings: Vec<Finding> = interfaces.map(|it| interface(it, &known)).collect();
    let pin_dir = &options.pin_dir;
    if !pins::is_bpffs(pin_dir) && !pin_dir.starts_with(pins::DEFAULT_BPFFS) {
        let directory = pin_dir.display();
        let remedy = format!("mkdir -p {directory} && mount -t bpf bpf {directory}");
        findings.push(Finding::new(
            "pin_dir",
            Status::Fail,
            format!("{directory} is not on a bpffs"),
            remedy,
        ));
    }
    if let Err(error) = options.check() {
        findings.push(Finding::new(
            "options",
            Status::Fail,
            error.to_string(),
            "change that key in the configuration and check again",
        ));
    }
    findings.extend(memory(options));
    findings
}

/// Flow tables are allocated whole when they are made (Linux 5.11 on: from the memory cgroup, no memlock limit).
fn memory(options: &Options) -> Option<Finding> {
    let slots = table::slots(options.max_flows);
    let index = 2 * size_of::<Bucket>() as u64 * u64::from(table::buckets(slots));
    let both = (size_of::<Slot<Flow>>() + size_of::<Slot<Reply>>()) as u64;
    let needed = index + both * u64::from(slots);
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let available = line.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024;
    let found = format!(
        "{} MiB for {} flows, {} MiB available",
        needed >> 20,
        options.max_flows,
        available >> 20
    );
    Some(if needed > available {
        Finding::new("memory", Status::Fail, found, "set a smaller `flows.max`")
    } else if needed > available / 2 {
        Finding::new("memory", Status::Warn, found, "set a smaller `flows.max`")
    } else {
        Finding::ok("memory", found)
    })
}

fn kernel() -> Finding {
    const LOWEST: KernelVersion = KernelVersion::new(5, 15, 0);
    match KernelVersion::current() {
        Ok(version) if version.code() >= LOWEST.code() => {
            Finding::ok("kernel", version.to_string())
        }
        Ok(version) => Finding::new(
            "kernel",
            Status::Fail,
            version.to_string(),
            "boot Linux 5.15 or newer",
        ),
        Err(error) => Finding::new(
            "kernel",
            Status::Warn,
            error.to_string(),
            "boot Linux 5.15 or newer",
        ),
    }
}

fn privileges() -> Finding {
    if capabilities::sufficient() {
        Finding::ok("privileges", "CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON")
    } else {
        Finding::new(
            "privileges",
            Status::Fail,
            "not root; what needs it was not tried",
            "sudo evenkeel check, or AmbientCapabilities=CAP_BPF CAP_NET_ADMIN CAP_PERFMON in the service unit",
        )
    }
}

fn btf() -> Finding {
    let path = "/sys/kernel/btf/vmlinux";
    if Path::new(path).exists() {
        Finding::ok("btf", path)
    } else {
        let remedy = "boot a kernel with CONFIG_DEBUG_INFO_BTF=y for readable map dumps";
        Finding::new("btf", Status::Warn, format!("no {path}"), remedy)
    }
}

fn jit() -> Finding {
    match setting("net/core/bpf_jit_enable").as_deref() {
        Some("0") => Finding::new(
            "jit",
            Status::Warn,
            "off: programs are interpreted",
            "sysctl -w net.core.bpf_jit_enable=1",
        ),
        Some(_) => Finding::ok("jit", "on"),
        None => Finding::new(
            "jit",
            Status::Warn,
            "cannot be read",
            "boot a kernel with CONFIG_BPF_JIT=y",
        ),
    }
}

fn bpffs() -> Finding {
    if pins::is_bpffs(Path::new(pins::DEFAULT_BPFFS)) {
        Finding::ok("bpffs", pins::DEFAULT_BPFFS)
    } else {
        Finding::new(
            "bpffs",
            Status::Warn,
            format!(
                "not mounted on {}; evenkeel mounts it if it is root",
                pins::DEFAULT_BPFFS
            ),
            format!("mount -t bpf bpf {}", pins::DEFAULT_BPFFS),
        )
    }
}

fn forwarding() -> Finding {
    match setting("net/ipv4/ip_forward").as_deref() {
        Some("1") => Finding::ok("ip_forward", "on"),
        found => Finding::new(
            "ip_forward",
            Status::Warn,
            format!(
                "{}: mode l4 forwards nothing",
                found.map_or("cannot be read", |_| "off")
            ),
            "sysctl -w net.ipv4.ip_forward=1",
        ),
    }
}

fn nat_ports() -> Finding {
    let ours = Options::default().nat_ports;
    match nat::local_ports() {
        Ok(local) if nat::overlap(&ours, &local) => Finding::new(
            "nat ports",
            Status::Fail,
            format!(
                "local sockets use {}-{}, NAT by default {}-{}",
                local.start(),
                local.end(),
                ours.start(),
                ours.end()
            ),
            "sysctl -w net.ipv4.ip_local_port_range=\"32768 60999\", or set other `nat.ports`",
        ),
        Ok(local) => Finding::ok(
            "nat ports",
            format!("local sockets use {}-{}", local.start(), local.end()),
        ),
        Err(error) => Finding::new(
            "nat ports",
            Status::Warn,
            error.to_string(),
            "mount -t proc proc /proc: the ports of local sockets, which NAT must not use, are read there",
        ),
    }
}

/// A sysctl, as seen from the network namespace of this thread.
fn setting(path: &str) -> Option<String> {
    let text = fs::read_to_string(Path::new("/proc/sys").join(path)).ok()?;
    Some(text.trim().to_owned())
}
