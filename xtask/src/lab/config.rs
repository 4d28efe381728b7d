//! `evenkeel.toml` for a lab.

use std::{fmt::Write as _, net::SocketAddr};

use super::Lab;

/// An interface of the balancer and how evenkeel attaches to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name inside the balancer's namespace.
    pub name: String,
    /// `auto`, `xdp` or `tc`.
    pub hook: String,
    /// `native` or `generic`.
    pub xdp_mode: String,
}

impl Interface {
    /// All interfaces of `lab`'s balancer, attached to in the same way.
    #[must_use]
    pub fn all(lab: &Lab, hook: &str, xdp_mode: &str) -> Vec<Self> {
        lab.interfaces()
            .into_iter()
            .map(|name| Self {
                name,
                hook: hook.to_owned(),
                xdp_mode: xdp_mode.to_owned(),
            })
            .collect()
    }
}

/// A service to configure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its virtual address.
    pub address: SocketAddr,
    /// `l4`, `l7` or `auto`.
    pub mode: String,
    /// `round_robin`, `least_request` or `p2c`.
    pub policy: String,
    /// `nat` or `dnat`.
    pub forwarding: String,
    /// `5-tuple` or `source-ip`.
    pub hash: String,
    /// How its backends are checked, as an inline table; empty: not at all.
    pub health: String,
    /// Backends and their weights.
    pub backends: Vec<(SocketAddr, u32)>,
}

impl Service {
    /// A service with the defaults of most tests: `l4`, `round_robin`, `nat`, `5-tuple`, no checks, all weights 1.
    #[must_use]
    pub fn new(name: &str, address: SocketAddr, backends: &[SocketAddr]) -> Self {
        Self {
            name: name.to_owned(),
            address,
            mode: "l4".to_owned(),
            policy: "round_robin".to_owned(),
            forwarding: "nat".to_owned(),
            hash: "5-tuple".to_owned(),
            health: String::new(),
            backends: backends.iter().map(|address| (*address, 1)).collect(),
        }
    }
}

/// The configuration file of `lab`'s daemon; `more` is put in as it is.
#[must_use]
pub fn render(lab: &Lab, interfaces: &[Interface], services: &[Service], more: &str) -> String {
    let directory = lab.directory().display();
    let mut text = format!(
        "[daemon]\nsocket = \"{directory}/control.sock\"\nstate_dir = \"{directory}/state\"\n\
         pin_dir = \"{directory}/bpf/evenkeel\"\n\n{more}\n"
    );
    for interface in interfaces {
        let Interface {
            name,
            hook,
            xdp_mode,
        } = interface;
        let _ = writeln!(
            text,
            "[[interface]]\nname = \"{name}\"\nhook = \"{hook}\"\nxdp_mode = \"{xdp_mode}\"\n"
        );
    }
    for service in services {
        let Service {
            name,
            address,
            mode,
            policy,
            forwarding,
            hash,
            health,
            backends,
        } = service;
        let _ = writeln!(
            text,
            "[[service]]\nname = \"{name}\"\naddress = \"{address}\"\nmode = \"{mode}\"\n\
             policy = \"{policy}\"\nforwarding = \"{forwarding}\"\nhash = \"{hash}\""
        );
        if !health.is_empty() {
            let _ = writeln!(text, "health = {health}");
        }
        for (address, weight) in backends {
            let _ = writeln!(
                text,
                "\n[[service.backend]]\naddress = \"{address}\"\nweight = {weight}"
            );
        }
        text.push('\n');
    }
    text
}
