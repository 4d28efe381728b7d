//! Can the data path run here? Every answer comes from trying, in a network namespace that is thrown away, or from
//! reading the setting itself; never from the kernel's version alone, since distributions backport and disable.

use std::fs;
use std::path::Path;

use aya::programs::tc::{NlOptions, TcAttachOptions, qdisc_add_clsact};
use aya::programs::{
    LinkOrder, Program, ProgramError, SchedClassifier, SkLookup, TcAttachType, Xdp,
};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfLoader};
use serde::{Deserialize, Serialize};

use super::{Options, capabilities, maps, nat, object, pins, syscall};

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
    /// What to do about it, a command where there is one; empty if nothing is to be done.
    pub remedy: String,
}

impl Finding {
    fn new(
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

    fn ok(name: &str, found: impl Into<String>) -> Self {
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
    findings.extend(probes());
    findings
}

/// Looks at what this configuration needs of the host besides.
#[must_use]
pub fn check_options(options: &Options) -> Vec<Finding> {
    let known = super::neighbours::interfaces().unwrap_or_default();
    let mut findings: Vec<Finding> = options
        .interfaces
        .iter()
        .map(|interface| {
            let name = format!("interface {}", interface.name);
            if known.contains(&interface.name) {
                Finding::ok(&name, "exists")
            } else {
                let remedy = format!("name one of: {}", known.join(", "));
                Finding::new(&name, Status::Fail, "does not exist here", remedy)
            }
        })
        .collect();
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
        findings.push(Finding::new("options", Status::Fail, error.to_string(), ""));
    }
    findings
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
        Err(error) => Finding::new("nat ports", Status::Warn, error.to_string(), ""),
    }
}

/// A sysctl, as seen from the network namespace of this thread.
fn setting(path: &str) -> Option<String> {
    let text = fs::read_to_string(Path::new("/proc/sys").join(path)).ok()?;
    Some(text.trim().to_owned())
}

/// Loads every program and attaches each kind once, to the loopback interface of a namespace made for this.
fn probes() -> Vec<Finding> {
    if !capabilities::sufficient() {
        return Vec::new();
    }
    let thread = std::thread::spawn(|| match syscall::unshare_network() {
        Ok(()) => probe_here(),
        Err(error) => vec![Finding::new(
            "network namespaces",
            Status::Warn,
            format!("{error}: hooks were not tried"),
            "boot a kernel with CONFIG_NET_NS=y",
        )],
    });
    thread.join().unwrap_or_else(|_| {
        vec![Finding::new(
            "hooks",
            Status::Warn,
            "trying them failed",
            "",
        )]
    })
}

fn probe_here() -> Vec<Finding> {
    let mut ebpf = match load() {
        Ok(ebpf) => ebpf,
        Err(finding) => return vec![finding],
    };
    let mut findings = vec![Finding::ok("maps", "all are created")];
    for (name, what) in [
        ("ek_ingress", "TC"),
        ("ek_egress", "TC"),
        ("ek_steer", "sk_lookup"),
        ("ek_xdp", "XDP"),
    ] {
        findings.extend(verify(&mut ebpf, name, what));
    }
    if findings
        .iter()
        .any(|finding| finding.status == Status::Fail)
    {
        return findings;
    }
    let generic = "set `hook = \"tc\"`, which works without";
    findings.push(verdict(
        "xdp",
        Status::Warn,
        "works",
        generic,
        attach_xdp(&mut ebpf),
    ));
    let tcx = attach_tcx(&mut ebpf);
    let clsact = attach_clsact(&mut ebpf);
    let needed = if tcx.is_ok() {
        Status::Ok
    } else {
        Status::Fail
    };
    findings.push(verdict("tcx", Status::Ok, "works", "", tcx));
    findings.push(verdict(
        "clsact",
        needed,
        "works",
        "modprobe sch_ingress cls_bpf",
        clsact,
    ));
    let steer = "boot a kernel with CONFIG_BPF_SYSCALL=y and CONFIG_INET=y, 5.9 or newer";
    findings.push(verdict(
        "sk_lookup",
        Status::Fail,
        "works",
        steer,
        attach_steer(&mut ebpf),
    ));
    findings
}

fn verdict(
    name: &str,
    otherwise: Status,
    found: &str,
    remedy: &str,
    result: Result<(), ProgramError>,
) -> Finding {
    match result {
        Ok(()) => Finding::ok(name, found),
        Err(error) => Finding::new(
            name,
            otherwise,
            format!("not available: {}", cause(&error)),
            remedy,
        ),
    }
}

/// The innermost cause: what the kernel said.
fn cause(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |&error| error.source());
    causes.last().map(ToString::to_string).unwrap_or_default()
}

/// Small maps, nothing pinned: all of it goes when the value does.
fn load() -> Result<Ebpf, Finding> {
    let object = object::bytes().map_err(|error| {
        Finding::new(
            "programs",
            Status::Fail,
            "not in this binary",
            error.to_string(),
        )
    })?;
    let options = Options {
        max_flows: 1024,
        max_backends: 1,
        max_services: 1,
        ..Options::default()
    };
    let mut loader = EbpfLoader::new();
    for (name, entries) in maps::sizes(&options) {
        loader.map_max_entries(name, entries);
    }
    loader.load(object).map_err(|error| {
        Finding::new(
            "maps",
            Status::Fail,
            cause(&error),
            "boot a kernel with CONFIG_BPF_SYSCALL=y",
        )
    })
}

/// `None` if the verifier takes the program.
fn verify(ebpf: &mut Ebpf, name: &str, what: &str) -> Option<Finding> {
    let result = match ebpf.program_mut(name) {
        Some(Program::Xdp(program)) => program.load(),
        Some(Program::SchedClassifier(program)) => program.load(),
        Some(Program::SkLookup(program)) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    };
    let error = result.err()?;
    let remedy =
        "report this with the output of `uname -a`: the kernel's verifier refuses the program";
    Some(Finding::new(
        &format!("{what} program {name}"),
        Status::Fail,
        cause(&error),
        remedy,
    ))
}

fn program<'a, P>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut P, ProgramError>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    ebpf.program_mut(name)
        .ok_or(ProgramError::NotLoaded)?
        .try_into()
}

fn attach_xdp(ebpf: &mut Ebpf) -> Result<(), ProgramError> {
    let xdp: &mut Xdp = program(ebpf, "ek_xdp")?;
    let link = xdp.attach("lo", aya::programs::XdpMode::Skb)?;
    xdp.detach(link)
}

fn attach_tcx(ebpf: &mut Ebpf) -> Result<(), ProgramError> {
    let tc: &mut SchedClassifier = program(ebpf, "ek_ingress")?;
    let options = TcAttachOptions::TcxOrder(LinkOrder::default());
    let link = tc.attach_with_options("lo", TcAttachType::Ingress, options)?;
    tc.detach(link)
}

fn attach_clsact(ebpf: &mut Ebpf) -> Result<(), ProgramError> {
    qdisc_add_clsact("lo")?;
    let tc: &mut SchedClassifier = program(ebpf, "ek_ingress")?;
    let options = TcAttachOptions::Netlink(NlOptions::default());
    let link = tc.attach_with_options("lo", TcAttachType::Ingress, options)?;
    tc.detach(link)
}

fn attach_steer(ebpf: &mut Ebpf) -> Result<(), ProgramError> {
    let namespace = fs::File::open("/proc/thread-self/ns/net")?;
    let steer: &mut SkLookup = program(ebpf, "ek_steer")?;
    let link = steer.attach(namespace)?;
    steer.detach(link)
}
