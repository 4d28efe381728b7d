//! Text to [`Config`]: the tables besides `[[service]]`, and the rules between tables.

use std::time::Duration;

use toml::de::DeTable;

use super::error::{ConfigError, ConfigErrors};
use super::reader::{Kind, Reader, Section};
use super::service::{choice, services};
use super::types::{Auto, Config, Daemon, Flows, Interface, Lines, Mode, Nat, Service, Sizes};
use super::{l7, values};

const ROOT_KEYS: [&str; 8] = [
    "daemon",
    "interface",
    "flows",
    "nat",
    "limits",
    "auto",
    "l7",
    "service",
];

impl Config {
    /// Parses the text of a file that is called `file` in errors.
    ///
    /// # Errors
    /// Every mistake in the text.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigErrors> {
        let mut reader = Reader::new(file, text);
        let document = match DeTable::parse(text) {
            Ok(document) => document,
            Err(error) => {
                let line = reader.line(error.span().map_or(0, |span| span.start));
                return Err(ConfigErrors::one(ConfigError {
                    file: file.to_owned(),
                    line,
                    key: String::new(),
                    found: format!("what is not TOML ({})", error.message().replace('\n', "; ")),
                    allowed: "TOML, see https://toml.io".to_owned(),
                }));
            }
        };
        let config = document_to_config(&mut reader, &Section::root(document.get_ref()), file);
        ConfigErrors::unless_empty(config, reader.errors)
    }
}

fn document_to_config<'a>(
    reader: &mut Reader<'a>,
    root: &Section<'a>,
    file: &str,
) -> Option<Config> {
    reader.only(root, &ROOT_KEYS);
    let mut lines = Lines::default();
    let daemon = daemon(reader, root, &mut lines);
    let interfaces = interfaces(reader, root, &mut lines);
    let flows = flows(reader, root);
    let nat = nat(reader, root, &mut lines);
    let limits = limits(reader, root);
    let auto = auto(reader, root);
    let l7 = l7::limits(reader, root);
    let services = services(reader, root);
    if let Some(services) = &services {
        within_limits(reader, root, services, limits);
        auto_can_see(reader, root, flows.count_streams);
    }
    Some(Config {
        file: file.to_owned(),
        daemon,
        interfaces: interfaces?,
        flows,
        nat,
        limits,
        auto,
        l7,
        services: services?,
        lines,
    })
}

fn daemon<'a>(reader: &mut Reader<'a>, root: &Section<'a>, lines: &mut Lines) -> Daemon {
    let mut daemon = Daemon::default();
    let Some(section) = reader.table(root, "daemon") else {
        return daemon;
    };
    reader.only(
        &section,
        &["socket", "socket_group", "state_dir", "pin_dir"],
    );
    let path = Kind {
        allowed: "an absolute path",
        read: &values::absolute_path,
    };
    for (key, field) in [
        ("socket", &mut daemon.socket),
        ("state_dir", &mut daemon.state_dir),
        ("pin_dir", &mut daemon.pin_dir),
    ] {
        if let Some(found) = reader.optional(&section, key, &path) {
            *field = found.value;
        }
    }
    let group = Kind {
        allowed: "the name of a group",
        read: &values::name,
    };
    if let Some(found) = reader.optional(&section, "socket_group", &group) {
        daemon.socket_group = Some(found.value);
        lines.socket_group = Some(found.line);
    }
    daemon
}

fn interfaces<'a>(
    reader: &mut Reader<'a>,
    root: &Section<'a>,
    lines: &mut Lines,
) -> Option<Vec<Interface>> {
    let sections = reader.tables(root, "interface")?;
    let mut interfaces: Vec<Interface> = Vec::new();
    let mut complete = true;
    for section in &sections {
        reader.only(section, &["name", "hook", "xdp_mode"]);
        let kind = Kind {
            allowed: "the name of an interface, 1 to 15 bytes",
            read: &values::interface_name,
        };
        let name = reader.required(section, "name", &kind);
        let hook = choice(reader, section, "hook");
        let xdp_mode = choice(reader, section, "xdp_mode");
        let Some(name) = name else {
            complete = false;
            continue;
        };
        if interfaces.iter().any(|other| other.name == name.value) {
            let found = format!("{:?} a second time", name.value);
            reader.wrong(name.line, section.key("name"), found, "each interface once");
            continue;
        }
        lines.interfaces.push(name.line);
        interfaces.push(Interface {
            name: name.value,
            hook,
            xdp_mode,
        });
    }
    complete.then_some(interfaces)
}

fn flows<'a>(reader: &mut Reader<'a>, root: &Section<'a>) -> Flows {
    let mut flows = Flows::default();
    let Some(section) = reader.table(root, "flows") else {
        return flows;
    };
    reader.only(
        &section,
        &[
            "max",
            "closed_hold",
            "idle_timeout",
            "transitory_timeout",
            "count_streams",
        ],
    );
    let max = Kind {
        allowed: "an integer from 1024 to 67108864 (each flow takes about 300 bytes of kernel memory)",
        read: &values::integer(1024..=1 << 26),
    };
    if let Some(found) = reader.optional(&section, "max", &max) {
        flows.max = u32::try_from(found.value).unwrap_or(flows.max);
    }
    if let Some(held) = hold(reader, &section, "closed_hold") {
        flows.closed_hold = held;
    }
    let timeout = Kind {
        allowed: "a duration from \"20s\" to \"30d\", such as \"4m\" or \"124m\"",
        read: &values::duration(Duration::from_secs(20)..=Duration::from_secs(30 * 86_400)),
    };
    for (key, field) in [
        ("idle_timeout", &mut flows.idle_timeout),
        ("transitory_timeout", &mut flows.transitory_timeout),
    ] {
        if let Some(found) = reader.optional(&section, key, &timeout) {
            *field = found.value;
        }
    }
    let truth = Kind {
        allowed: "true, false",
        read: &values::boolean,
    };
    if let Some(found) = reader.optional(&section, "count_streams", &truth) {
        flows.count_streams = found.value;
    }
    flows
}

fn nat<'a>(reader: &mut Reader<'a>, root: &Section<'a>, lines: &mut Lines) -> Nat {
    let mut nat = Nat::default();
    let Some(section) = reader.table(root, "nat") else {
        return nat;
    };
    reader.only(&section, &["ports", "addresses", "port_hold"]);
    let ports = Kind {
        allowed: "a range of at least 16 ports within 1024-65535, such as \"10240-32767\"",
        read: &values::ports,
    };
    if let Some(found) = reader.optional(&section, "ports", &ports) {
        nat.ports = found.value;
        lines.nat_ports = Some(found.line);
    }
    let addresses = Kind {
        allowed: "an array of IPv4 addresses and prefixes (/24 to /32), such as [\"10.0.0.2\", \"10.0.0.16/28\"]",
        read: &values::addresses,
    };
    if let Some(found) = reader.optional(&section, "addresses", &addresses) {
        nat.addresses = found.value;
    }
    if let Some(held) = hold(reader, &section, "port_hold") {
        nat.port_hold = held;
    }
    nat
}

/// How long something of a closed flow is kept.
fn hold<'a>(reader: &mut Reader<'a>, section: &Section<'a>, key: &str) -> Option<Duration> {
    let kind = Kind {
        allowed: "a duration from \"0s\" to \"1h\", such as \"500ms\" or \"1s\"",
        read: &values::duration(Duration::ZERO..=Duration::from_secs(3600)),
    };
    reader
        .optional(section, key, &kind)
        .map(|found| found.value)
}

fn limits<'a>(reader: &mut Reader<'a>, root: &Section<'a>) -> Sizes {
    let mut limits = Sizes::default();
    let Some(section) = reader.table(root, "limits") else {
        return limits;
    };
    reader.only(&section, &["backends", "services", "upstreams", "checks"]);
    for (key, field) in [
        ("backends", &mut limits.backends),
        ("services", &mut limits.services),
    ] {
        let kind = Kind {
            allowed: "an integer from 1 to 65535",
            read: &values::integer(1..=65_535),
        };
        if let Some(found) = reader.optional(&section, key, &kind) {
            *field = u32::try_from(found.value).unwrap_or(*field);
        }
    }
    let kind = Kind {
        allowed: "an integer from 1024 to 4194304 (each takes about 200 bytes of kernel memory)",
        read: &values::integer(1024..=1 << 22),
    };
    if let Some(found) = reader.optional(&section, "upstreams", &kind) {
        limits.upstreams = u32::try_from(found.value).unwrap_or(limits.upstreams);
    }
    let kind = Kind {
        allowed: "an integer from 1 to 4096 (each takes a file descriptor)",
        read: &values::integer(1..=4096),
    };
    if let Some(found) = reader.optional(&section, "checks", &kind) {
        limits.checks = u32::try_from(found.value).unwrap_or(limits.checks);
    }
    limits
}

fn auto<'a>(reader: &mut Reader<'a>, root: &Section<'a>) -> Auto {
    let mut auto = Auto::default();
    let Some(section) = reader.table(root, "auto") else {
        return auto;
    };
    reader.only(&section, &["hot_factor", "min_streams", "interval"]);
    let factor = Kind {
        allowed: "a number above 1 and up to 1000",
        read: &values::factor,
    };
    if let Some(found) = reader.optional(&section, "hot_factor", &factor) {
        auto.hot_factor = found.value;
    }
    let streams = Kind {
        allowed: "an integer from 1 to 1000000000",
        read: &values::integer(1..=1_000_000_000),
    };
    if let Some(found) = reader.optional(&section, "min_streams", &streams) {
        auto.min_streams = found.value;
    }
    let interval = Kind {
        allowed: "a duration from \"1s\" to \"1h\"",
        read: &values::duration(Duration::from_secs(1)..=Duration::from_secs(3600)),
    };
    if let Some(found) = reader.optional(&section, "interval", &interval) {
        auto.interval = found.value;
    }
    auto
}

/// Mode `auto` decides by the streams that the data path counts.
fn auto_can_see<'a>(reader: &mut Reader<'a>, root: &Section<'a>, count_streams: bool) {
    if count_streams {
        return;
    }
    let mode = Kind {
        allowed: &values::names::<Mode>(),
        read: &values::named::<Mode>,
    };
    for section in reader.tables(root, "service").unwrap_or_default() {
        let found = reader.optional(&section, "mode", &mode);
        if let Some(found) = found.filter(|found| found.value == Mode::Auto) {
            reader.wrong(
                found.line,
                section.key("mode"),
                "\"auto\", where `flows.count_streams` is false",
                "\"l4\", \"l7\"; \"auto\" decides by the streams that are counted",
            );
        }
    }
}

fn within_limits<'a>(
    reader: &mut Reader<'a>,
    root: &Section<'a>,
    services: &[Service],
    limits: Sizes,
) {
    let backends: usize = services.iter().map(|service| service.backends.len()).sum();
    // Where the limit is set, for that is what may be changed without losing anything.
    let line = reader
        .table(root, "limits")
        .map_or(1, |section| section.line());
    for (key, count, limit) in [
        ("service", services.len(), limits.services),
        ("service.backend", backends, limits.backends),
    ] {
        if count > limit as usize {
            let found = format!("{count} of them");
            let name = key.rsplit('.').next().unwrap_or(key);
            let allowed = format!("{limit}, which `limits.{name}s` can raise to 65535");
            reader.wrong(line, key.to_owned(), found, allowed);
        }
    }
}
