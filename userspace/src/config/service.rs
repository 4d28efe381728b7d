//! `[[service]]` and `[[service.backend]]`, and what holds between services.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::health::health;
use super::reader::{At, Kind, Reader, Section};
use super::types::{Backend, Forwarding, HashChoice, Mode, Named, Service};
use super::values::{MAX_WEIGHT, integer, name, named, names, socket_address};
use crate::balance::Policy;

const ADDRESS: &str = "an IPv4 address and port, such as \"10.0.0.10:50051\"";
const NAME: &str = "a name of 1 to 64 letters, digits, `-`, `_` and `.`";
const SERVICE_KEYS: [&str; 9] = [
    "name",
    "address",
    "protocol",
    "mode",
    "policy",
    "forwarding",
    "hash",
    "health",
    "backend",
];

/// What has been read so far, for the rules between services.
#[derive(Default)]
struct Seen {
    names: BTreeMap<String, usize>,
    addresses: BTreeMap<SocketAddr, (String, usize)>,
    backends: Vec<At<SocketAddr>>,
}

/// All services, or `None` where a mistake left one of them incomplete.
pub(super) fn services<'a>(reader: &mut Reader<'a>, root: &Section<'a>) -> Option<Vec<Service>> {
    let mut seen = Seen::default();
    let sections = reader.tables(root, "service")?;
    let services: Vec<Option<Service>> = sections
        .iter()
        .map(|section| service(reader, section, &mut seen))
        .collect();
    for backend in &seen.backends {
        if let Some((name, line)) = seen.addresses.get(&backend.value) {
            reader.wrong(
                backend.line,
                "service.backend.address".to_owned(),
                format!(
                    "\"{}\", the address of service `{name}` (line {line})",
                    backend.value
                ),
                "an address that no service has, or it would balance to itself",
            );
        }
    }
    services.into_iter().collect()
}

fn service<'a>(reader: &mut Reader<'a>, section: &Section<'a>, seen: &mut Seen) -> Option<Service> {
    reader.only(section, &SERVICE_KEYS);
    let name = unique_name(reader, section, seen);
    let address = unique_address(reader, section, seen, name.as_deref());
    // Read for its errors: TCP is what there is.
    let _: Option<At<()>> = reader.optional(section, "protocol", &PROTOCOL);
    let mode = choice::<Mode>(reader, section, "mode");
    let policy = choice::<Policy>(reader, section, "policy");
    let forwarding = forwarding(reader, section);
    let hash = choice::<HashChoice>(reader, section, "hash");
    let health = health(reader, section);
    let backends = backends(reader, section, seen);
    Some(Service {
        name: name?,
        address: address?,
        mode,
        policy,
        forwarding,
        hash,
        health,
        backends: backends?,
    })
}

const PROTOCOL: Kind<'static, ()> = Kind {
    allowed: "\"tcp\"",
    read: &|value| match value.as_str() {
        Some("tcp") => Ok(()),
        Some("udp") => Err("which is not balanced yet".to_owned()),
        _ => Err(String::new()),
    },
};

fn unique_name<'a>(
    reader: &mut Reader<'a>,
    section: &Section<'a>,
    seen: &mut Seen,
) -> Option<String> {
    let kind = Kind {
        allowed: NAME,
        read: &name,
    };
    let found = reader.required(section, "name", &kind)?;
    if let Some(line) = seen.names.get(&found.value) {
        let text = format!(
            "{:?}, already the name of another service (line {line})",
            found.value
        );
        reader.wrong(
            found.line,
            section.key("name"),
            text,
            "a name that no other service has",
        );
        return None;
    }
    seen.names.insert(found.value.clone(), found.line);
    Some(found.value)
}

fn unique_address<'a>(
    reader: &mut Reader<'a>,
    section: &Section<'a>,
    seen: &mut Seen,
    name: Option<&str>,
) -> Option<SocketAddr> {
    let kind = Kind {
        allowed: ADDRESS,
        read: &socket_address,
    };
    let found = reader.required(section, "address", &kind)?;
    if let Some((other, line)) = seen.addresses.get(&found.value) {
        let text = format!(
            "\"{}\", already the address of service `{other}` (line {line})",
            found.value
        );
        let allowed = "an address and port that no other service has";
        reader.wrong(found.line, section.key("address"), text, allowed);
        return None;
    }
    let name = name.unwrap_or("?").to_owned();
    seen.addresses.insert(found.value, (name, found.line));
    Some(found.value)
}

/// One of a fixed set, or its default.
pub(super) fn choice<'a, T: Named + Default>(
    reader: &mut Reader<'a>,
    section: &Section<'a>,
    key: &str,
) -> T {
    let kind = Kind {
        allowed: &names::<T>(),
        read: &named::<T>,
    };
    reader
        .optional(section, key, &kind)
        .map(|found| found.value)
        .unwrap_or_default()
}

fn forwarding<'a>(reader: &mut Reader<'a>, section: &Section<'a>) -> Forwarding {
    let kind = Kind {
        allowed: &names::<Forwarding>(),
        read: &|value| match value.as_str() {
            Some("dsr" | "ipip") => Err("which is not there yet".to_owned()),
            _ => named::<Forwarding>(value),
        },
    };
    reader
        .optional(section, "forwarding", &kind)
        .map(|found| found.value)
        .unwrap_or_default()
}

fn backends<'a>(
    reader: &mut Reader<'a>,
    service: &Section<'a>,
    seen: &mut Seen,
) -> Option<Vec<Backend>> {
    let sections = reader.tables(service, "backend")?;
    let mut own: BTreeMap<SocketAddr, usize> = BTreeMap::new();
    let backends: Vec<Option<Backend>> = sections
        .iter()
        .map(|section| backend(reader, section, &mut own, seen))
        .collect();
    backends.into_iter().collect()
}

fn backend<'a>(
    reader: &mut Reader<'a>,
    section: &Section<'a>,
    own: &mut BTreeMap<SocketAddr, usize>,
    seen: &mut Seen,
) -> Option<Backend> {
    reader.only(section, &["address", "weight"]);
    let kind = Kind {
        allowed: ADDRESS,
        read: &socket_address,
    };
    let address = reader.required(section, "address", &kind);
    let kind = Kind {
        allowed: &format!("an integer from 0 (takes nothing new) to {MAX_WEIGHT}"),
        read: &integer(0..=u64::from(MAX_WEIGHT)),
    };
    let weight = reader
        .optional(section, "weight", &kind)
        .map_or(1, |found| found.value);
    let address = address?;
    if let Some(line) = own.insert(address.value, address.line) {
        let text = format!(
            "\"{}\", already a backend of this service (line {line})",
            address.value
        );
        let allowed = "each address once; give it a larger `weight` to send it more";
        reader.wrong(address.line, section.key("address"), text, allowed);
        return None;
    }
    seen.backends.push(address);
    Some(Backend {
        address: address.value,
        weight: u32::try_from(weight).unwrap_or(MAX_WEIGHT),
    })
}
