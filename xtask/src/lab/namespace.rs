//! One network namespace of a lab, and the links between two.

use std::{path::PathBuf, process::Command};

use anyhow::Result;

use super::{Offloads, Spec};
use crate::shell;

/// Where iproute2 keeps the names of namespaces.
pub(super) const NAMES: &str = "/run/netns";

/// A network namespace by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    pub(super) fn new(lab: &str, role: &str) -> Self {
        Self {
            name: format!("{lab}-{role}"),
        }
    }

    /// Its name, as `ip netns` shows it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `program` run inside: same files, same mounts, another network.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        let mut network = std::ffi::OsString::from("--net=");
        network.push(PathBuf::from(NAMES).join(&self.name));
        command.arg(network).arg("--").arg(program);
        command
    }

    /// Runs `ip` commands inside, all in one process.
    pub fn ip(&self, commands: &[&str]) -> Result<()> {
        let mut ip = Command::new("ip");
        ip.args(["-n", &self.name, "-batch", "-"]);
        shell::feed(&mut ip, &(commands.join("\n") + "\n"))
    }

    /// Writes one setting of the namespace, `key` as a path below /proc/sys/net.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let script = format!("echo {value} > /proc/sys/net/{key}");
        shell::capture(self.command("sh").args(["-c", &script])).map(drop)
    }

    pub(super) fn create(&self) -> Result<()> {
        shell::capture(Command::new("ip").args(["netns", "add", &self.name]))?;
        self.ip(&["link set lo up"])
    }

    /// Makes a router of the namespace.
    pub(super) fn forward(&self) -> Result<()> {
        self.sysctl("ipv4/ip_forward", "1")
    }

    /// A link from here to `other`, up at both ends.
    pub(super) fn link(&self, here: &str, other: &Self, there: &str, spec: &Spec) -> Result<()> {
        let mtu = spec.mtu.unwrap_or(1500).to_string();
        let mut ip = Command::new("ip");
        ip.args([
            "link", "add", "name", here, "mtu", &mtu, "netns", &self.name,
        ])
        .args(["type", "veth", "peer", "name", there, "mtu", &mtu])
        .args(["netns", &other.name]);
        shell::capture(&mut ip)?;
        for (namespace, interface) in [(self, here), (other, there)] {
            namespace.ip(&[&format!("link set {interface} up")])?;
            let settings: &[&str] = match spec.offloads {
                Offloads::All => continue,
                Offloads::NoChecksums => &["tx", "off"],
                Offloads::None => &["tx", "off", "tso", "off", "gso", "off", "gro", "off"],
                Offloads::Merged => &["tx", "off", "tso", "off", "gso", "off", "gro", "on"],
            };
            shell::capture(
                namespace
                    .command("ethtool")
                    .args(["-K", interface])
                    .args(settings),
            )?;
        }
        Ok(())
    }
}
