//! The ways from a client to a server that [`super::l4`] compares: each in a lab of its own, made once.

use std::process::Command;

use anyhow::{Result, anyhow};

use super::{configure, failure, serve, wait_for_listener};
use crate::{
    lab::{self, Daemon, Interface, Lab, Offloads, Process, Service, Spec},
    setup::peers,
    shell,
};

/// Port of the service and of the server.
const PORT: u16 = 8080;

/// Who brings the client's packets to the server.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// The kernel's forwarding, without a service.
    Routed,
    /// nftables with these rules.
    Nftables(&'static str),
    /// HAProxy in TCP mode.
    Haproxy,
    /// nginx with its stream module.
    Nginx,
    /// evenkeel at this hook.
    Evenkeel(&'static str),
}

pub(super) const NFTABLES: Kind = Kind::Nftables(include_str!("config/nftables-dnat.nft"));
pub(super) const FLOWTABLE: Kind = Kind::Nftables(include_str!("config/nftables-flowtable.nft"));

/// A way that stands.
pub(super) struct Way {
    /// Where the client finds the server.
    pub(super) url: String,
    /// Server and balancer: alive as long as the way, and dropped before the lab that they run in.
    _running: (Process, Option<Process>, Option<Daemon>),
    /// Where it is.
    pub(super) lab: Lab,
}

impl Way {
    /// Builds it, or says why not.
    pub(super) fn new(kind: Kind, offloads: Offloads) -> Result<Self, String> {
        let program = match kind {
            Kind::Nftables(_) => Some("nft"),
            Kind::Haproxy => Some("haproxy"),
            Kind::Nginx => Some("nginx"),
            Kind::Routed | Kind::Evenkeel(_) => None,
        };
        if let Some(what) = program.and_then(peers::missing) {
            return Err(what);
        }
        Self::build(kind, offloads).map_err(|error| failure(&error))
    }

    fn build(kind: Kind, offloads: Offloads) -> Result<Self> {
        let lab = Lab::new(&Spec {
            backends: 1,
            offloads,
            gateway: matches!(kind, Kind::Routed),
            ..Spec::default()
        })?;
        let namespace = lab.backends().first();
        let namespace = namespace.ok_or_else(|| anyhow!("the lab has no backend"))?;
        let server = serve(&lab, namespace, PORT)?;
        let (proxy, daemon) = match kind {
            Kind::Routed => (None, None),
            Kind::Nftables(rules) => {
                nftables(&lab, rules)?;
                (None, None)
            }
            Kind::Haproxy => (Some(haproxy(&lab)?), None),
            Kind::Nginx => (Some(nginx(&lab)?), None),
            Kind::Evenkeel(hook) => (None, Some(evenkeel(&lab, hook)?)),
        };
        let address = match kind {
            Kind::Routed => lab.backend_address(0, PORT)?,
            _ => lab.service(PORT),
        };
        Ok(Self {
            url: format!("http://{address}/index.html"),
            _running: (server, proxy, daemon),
            lab,
        })
    }
}

fn nftables(lab: &Lab, rules: &str) -> Result<()> {
    let (service, backend) = (lab.service(PORT), lab.backend_address(0, PORT)?);
    let rules = super::fill(
        rules,
        &[
            ("address", &service.ip().to_string()),
            ("port", &PORT.to_string()),
            ("backend", &backend.to_string()),
        ],
    );
    let mut nft: Command = lab.balancer().command("nft");
    shell::feed(nft.args(["-f", "-"]), &rules)
}

fn haproxy(lab: &Lab) -> Result<Process> {
    let config = configure(
        lab,
        "haproxy.cfg",
        include_str!("config/haproxy-tcp.cfg"),
        &[
            ("service", &lab.service(PORT).to_string()),
            ("backend", &lab.backend_address(0, PORT)?.to_string()),
        ],
    )?;
    let mut haproxy = lab.balancer().command("haproxy");
    start(lab, "haproxy", haproxy.arg("-db").arg("-f").arg(config))
}

fn nginx(lab: &Lab) -> Result<Process> {
    let load = peers::nginx_stream_module().map(|path| format!("load_module {path};"));
    let config = configure(
        lab,
        "nginx.conf",
        include_str!("config/nginx-stream.conf"),
        &[
            // Where there is no such file the module may be built in; where it is not nginx says so.
            ("load_stream", &load.unwrap_or_default()),
            ("directory", &lab.directory().display().to_string()),
            ("service", &lab.service(PORT).to_string()),
            ("backend", &lab.backend_address(0, PORT)?.to_string()),
        ],
    )?;
    let mut nginx = lab.balancer().command("nginx");
    nginx.args(["-e", "stderr", "-c"]).arg(config);
    start(lab, "nginx", &mut nginx)
}

fn start(lab: &Lab, name: &str, command: &mut Command) -> Result<Process> {
    let mut process = Process::start(lab, name, command)?;
    wait_for_listener(&mut process, PORT)?;
    Ok(process)
}

fn evenkeel(lab: &Lab, hook: &str) -> Result<Daemon> {
    if hook == "xdp" {
        lab.receive_redirected()?;
    }
    let service = Service::new("web", lab.service(PORT), &[lab.backend_address(0, PORT)?]);
    let config = lab::render(lab, &Interface::all(lab, hook, "native"), &[service], "");
    Daemon::start(lab, &config)
}
