//! Trying what [`super::preflight`] reports on.

use std::fs;

use aya::programs::tc::{NlOptions, TcAttachOptions, qdisc_add_clsact};
use aya::programs::{
    LinkOrder, Program, ProgramError, SchedClassifier, SkLookup, TcAttachType, Xdp,
};
use aya::{Ebpf, EbpfLoader};

use super::load::loaded;
use super::preflight::{Finding, Status};
use super::{Options, capabilities, maps, object, syscall};

/// Loads every program and attaches each kind once, to the loopback interface of a namespace made for this.
pub(super) fn probes() -> Vec<Finding> {
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
            "report this with the output of `uname -a` and what was printed above",
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
    // Native XDP is up to each driver, and attaching to a network card in use may reset it: `run` does, a check must not. What
    // the drivers say of themselves is [`super::preflight`]'s.
    findings.push(verdict(
        "generic xdp",
        Status::Warn,
        "works",
        "set `hook = \"tc\"`, which works without",
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
        max_upstreams: 1024,
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
fn verify(ebpf: &mut Ebpf, name: &'static str, what: &str) -> Option<Finding> {
    let result = match what {
        "XDP" => loaded::<Xdp>(ebpf, name).err(),
        "TC" => loaded::<SchedClassifier>(ebpf, name).err(),
        _ => loaded::<SkLookup>(ebpf, name).err(),
    };
    let error = result?;
    let remedy =
        "report this with the output of `uname -a`: the kernel's verifier refuses the program";
    Some(Finding::new(
        &format!("{what} program {name}"),
        Status::Fail,
        error.to_string(),
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
