//! How single values are read: addresses, ranges, durations, names.
//!
//! Each reader says why a value is wrong only where the value itself does not show it.

use std::net::{Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeValue;

use super::types::Named;

/// Largest weight of a backend: with more, a backend of weight 1 would own less than 0.1 % of what its neighbour owns.
pub const MAX_WEIGHT: u32 = 1000;

/// No further reason: the value shows it.
fn plain<T>() -> Result<T, String> {
    Err(String::new())
}

fn text<'v>(value: &'v DeValue<'_>) -> Result<&'v str, String> {
    value.as_str().ok_or_else(String::new)
}

/// An integer within `range`.
pub(super) fn integer(range: RangeInclusive<u64>) -> impl Fn(&DeValue<'_>) -> Result<u64, String> {
    move |value| {
        let DeValue::Integer(number) = value else {
            return plain();
        };
        let digits = number.as_str().replace('_', "");
        match u64::from_str_radix(digits.trim_start_matches('+'), number.radix()) {
            Ok(number) if range.contains(&number) => Ok(number),
            _ => plain(),
        }
    }
}

/// `true` or `false`.
pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, String> {
    value.as_bool().ok_or_else(String::new)
}

/// A number above 1 and not above 1000.
pub(super) fn factor(value: &DeValue<'_>) -> Result<f64, String> {
    let digits = match value {
        DeValue::Integer(number) if number.radix() == 10 => number.as_str(),
        DeValue::Float(number) => number.as_str(),
        _ => return plain(),
    };
    match digits.replace('_', "").parse::<f64>() {
        Ok(number) if number > 1.0 && number <= 1000.0 => Ok(number),
        _ => plain(),
    }
}

/// One of a fixed set of names.
pub(super) fn named<T: Named>(value: &DeValue<'_>) -> Result<T, String> {
    let text = text(value)?;
    let found = T::NAMES.iter().find(|(name, _)| *name == text);
    found.map(|(_, value)| *value).ok_or_else(String::new)
}

/// The names of a fixed set.
pub(super) fn names<T: Named>() -> String {
    let quoted: Vec<String> = T::NAMES
        .iter()
        .map(|(name, _)| format!("{name:?}"))
        .collect();
    quoted.join(", ")
}

/// An absolute path.
pub(super) fn absolute_path(value: &DeValue<'_>) -> Result<PathBuf, String> {
    let path = PathBuf::from(text(value)?);
    if path.is_absolute() && !text(value)?.contains('\0') {
        Ok(path)
    } else {
        plain()
    }
}

/// A name that needs no quoting in a shell, a URL or a table.
pub(super) fn name(value: &DeValue<'_>) -> Result<String, String> {
    let text = text(value)?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if (1..=64).contains(&text.len()) && text.chars().all(fits) {
        Ok(text.to_owned())
    } else {
        plain()
    }
}

/// An interface name, by the kernel's rule (`dev_valid_name`): 1 to 15 bytes, no slash, colon or white space.
pub(super) fn interface_name(value: &DeValue<'_>) -> Result<String, String> {
    let text = text(value)?;
    let bad = |c: char| c == '/' || c == ':' || c.is_whitespace() || c == '\0';
    if (1..=15).contains(&text.len()) && !text.contains(bad) && text != "." && text != ".." {
        Ok(text.to_owned())
    } else {
        plain()
    }
}

/// A duration such as `"500ms"`, `"1s"`, `"5m"`, within `range`.
pub(super) fn duration(
    range: RangeInclusive<Duration>,
) -> impl Fn(&DeValue<'_>) -> Result<Duration, String> {
    move |value| match parse_duration(text(value)?) {
        Some(duration) if range.contains(&duration) => Ok(duration),
        _ => plain(),
    }
}

/// Reads `"500ms"`, `"1s"`, `"5m"`, `"1h"`, `"30d"`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_lowercase());
    let number: u64 = digits.parse().ok()?;
    let milliseconds = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(milliseconds)?))
}

/// A range of ports such as `"10240-32767"`.
pub(super) fn ports(value: &DeValue<'_>) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = text(value)?.split_once('-').ok_or_else(String::new)?;
    let (Ok(first), Ok(last)) = (first.trim().parse::<u16>(), last.trim().parse::<u16>()) else {
        return plain();
    };
    if first > last {
        return Err("which ends before it starts".to_owned());
    }
    if first < 1024 {
        return Err("which takes privileged ports".to_owned());
    }
    if last - first < 15 {
        return Err("which is fewer than 16 ports".to_owned());
    }
    Ok(first..=last)
}

/// A pool of addresses: addresses and prefixes of /24 or longer.
pub(super) fn addresses(value: &DeValue<'_>) -> Result<Vec<Ipv4Addr>, String> {
    let DeValue::Array(items) = value else {
        return plain();
    };
    let mut pool = Vec::new();
    for item in items.iter() {
        let text = text(item.get_ref())
            .map_err(|_| format!("with {}", super::reader::show(item.get_ref())))?;
        for address in prefix(text).map_err(|why| format!("with {text:?}{why}"))? {
            if pool.contains(&address) {
                return Err(format!("with {address} twice"));
            }
            pool.push(address);
        }
        if pool.len() > 1024 {
            return Err("with more than 1024 addresses".to_owned());
        }
    }
    Ok(pool)
}

/// The addresses of `"10.0.0.2"` or `"10.0.0.0/28"`.
fn prefix(text: &str) -> Result<Vec<Ipv4Addr>, String> {
    let (address, length) = text.split_once('/').unwrap_or((text, "32"));
    let (Ok(address), Ok(length)) = (address.parse::<Ipv4Addr>(), length.parse::<u32>()) else {
        return plain();
    };
    if !(24..=32).contains(&length) {
        return Err(", a prefix that is not /24 to /32".to_owned());
    }
    let size = 1_u32 << (32 - length);
    let first = address.to_bits();
    if !first.is_multiple_of(size) {
        return Err(", which has bits beyond its prefix".to_owned());
    }
    usable(address).map_err(|why| format!(", {why}"))?;
    Ok((first..=first + (size - 1))
        .map(Ipv4Addr::from_bits)
        .collect())
}

/// `ip:port` of a service or a backend.
pub(super) fn socket_address(value: &DeValue<'_>) -> Result<SocketAddr, String> {
    backend_address(text(value)?)
}

/// Reads `ip:port` and refuses what cannot be balanced to; also used for addresses on the command line.
///
/// # Errors
/// Why it is wrong; empty where the text itself shows it.
pub fn backend_address(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| match text.rsplit_once(':') {
        None => "which has no port".to_owned(),
        Some((host, _)) if host.parse::<Ipv4Addr>().is_ok() => "which has no valid port".to_owned(),
        Some(_) => String::new(),
    })?;
    let SocketAddr::V4(v4) = address else {
        return Err("which is IPv6: not yet".to_owned());
    };
    if v4.port() == 0 {
        return Err("which has port 0".to_owned());
    }
    usable(*v4.ip())?;
    Ok(address)
}

fn usable(address: Ipv4Addr) -> Result<(), String> {
    if address.is_unspecified() {
        Err("which is the unspecified address".to_owned())
    } else if address.is_multicast() {
        Err("which is a multicast address".to_owned())
    } else if address.is_broadcast() {
        Err("which is the broadcast address".to_owned())
    } else {
        Ok(())
    }
}
