//! What only this host can tell about a configuration.

use std::path::Path;

use super::error::{ConfigError, ConfigErrors};
use super::types::Config;

/// Checks the configuration against this host.
///
/// # Errors
/// Every key that does not fit this host.
pub fn check(config: &Config) -> Result<(), ConfigErrors> {
    let mut errors = Vec::new();
    let mut wrong = |line: usize, key: &str, found: String, allowed: String| {
        errors.push(ConfigError {
            file: config.file.clone(),
            line,
            key: key.to_owned(),
            found,
            allowed,
        });
    };
    let present = interfaces(Path::new("/proc/thread-self/net/dev"));
    for (interface, line) in config.interfaces.iter().zip(&config.lines.interfaces) {
        if !present.contains(&interface.name) {
            wrong(
                *line,
                "interface.name",
                format!("{:?}, which this host does not have", interface.name),
                present.join(", "),
            );
        }
    }
    if let Some((first, last)) = local_ports(Path::new("/proc/sys/net/ipv4/ip_local_port_range")) {
        let ports = &config.nat.ports;
        if *ports.start() <= last && first <= *ports.end() {
            wrong(
                config.lines.nat_ports.unwrap_or(1),
                "nat.ports",
                format!(
                    "\"{}-{}\", which overlaps net.ipv4.ip_local_port_range",
                    ports.start(),
                    ports.end()
                ),
                format!(
                    "ports outside {first}-{last}, from which this host opens its own connections"
                ),
            );
        }
    }
    if let (Some(group), Some(line)) = (&config.daemon.socket_group, config.lines.socket_group)
        && group_id(Path::new("/etc/group"), group).is_none()
    {
        wrong(
            line,
            "daemon.socket_group",
            format!("{group:?}, which this host does not have"),
            "a group of /etc/group".to_owned(),
        );
    }
    ConfigErrors::unless_empty(Some(()), errors)
}

/// Names of the interfaces of this thread's network namespace, sorted; from a file in the format of `/proc/net/dev`.
/// (`/sys/class/net` shows the namespace in which /sys was mounted.)
fn interfaces(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let mut names: Vec<String> = text
        .lines()
        .skip(2)
        .filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()))
        .collect();
    names.sort();
    names
}

/// The range from which the kernel takes ports of its own connections, if it can be read.
fn local_ports(file: &Path) -> Option<(u16, u16)> {
    let text = std::fs::read_to_string(file).ok()?;
    let mut numbers = text.split_whitespace().map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The number of a group, from a file in the format of group(5).
#[must_use]
pub fn group_id(file: &Path, name: &str) -> Option<u32> {
    let text = std::fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let found = fields.next()? == name;
        let id = fields.nth(1)?.parse().ok()?;
        found.then_some(id)
    })
}
