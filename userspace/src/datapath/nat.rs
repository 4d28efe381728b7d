//! The pool of addresses that NAT may use as source, and the ports.
//!
//! A backend refers to a run of entries, a flow to one entry. So an entry never changes while either refers to it:
//! equal lists share a run, others are appended, and only [`Pool::reclaim`] empties entries.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::ops::RangeInclusive;
use std::{fs, io};

use evenkeel_ebpf::abi::{Address, MAX_NAT_SOURCES};

use super::address::address_of;
use super::{BackendEntry, DatapathError};

/// What `NAT_SOURCES` holds; an all-zero entry is free.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pool(Vec<Address>);

impl Pool {
    /// From the map's entries.
    pub(super) fn new(entries: Vec<Address>) -> Self {
        Self(entries)
    }

    /// First entry and length of a run that holds `wanted`, made if there is none; `None` if the pool is full.
    pub(super) fn claim(&mut self, wanted: &[Address]) -> Option<(u16, u16)> {
        let count = u16::try_from(wanted.len()).ok()?;
        if count == 0 {
            return Some((0, 0));
        }
        let free = |run: &[Address]| run.iter().all(|entry| *entry == Address::default());
        let runs = || self.0.windows(wanted.len());
        let first = runs()
            .position(|run| run == wanted)
            .or_else(|| runs().position(free))?;
        self.0[first..first + wanted.len()].copy_from_slice(wanted);
        Some((u16::try_from(first).ok()?, count))
    }

    /// Empties the entries that nothing refers to.
    pub(super) fn reclaim(&mut self, referred: impl Fn(usize) -> bool) {
        for (index, entry) in self.0.iter_mut().enumerate() {
            if !referred(index) {
                *entry = Address::default();
            }
        }
    }

    /// The entry at `index`.
    pub(super) fn get(&self, index: u16) -> Option<Address> {
        self.0.get(usize::from(index)).copied()
    }

    /// The entries that differ from `old`.
    pub(super) fn changes(&self, old: &Self) -> Vec<(u32, Address)> {
        (0..MAX_NAT_SOURCES)
            .zip(self.0.iter().zip(&old.0))
            .filter(|(_, (new, old))| new != old)
            .map(|(index, (new, _))| (index, *new))
            .collect()
    }
}

/// The sources for flows to `backend`: those listed, or the address that this host would use itself. None if it has
/// no route; that is no error, since routes come back.
pub(super) fn sources(backend: &BackendEntry) -> Result<Vec<Address>, DatapathError> {
    for source in &backend.nat_sources {
        if source.is_ipv4() != backend.address.is_ipv4() {
            return Err(DatapathError::SourceFamily {
                backend: backend.address,
                source_address: *source,
            });
        }
    }
    if !backend.nat_sources.is_empty() {
        return Ok(backend
            .nat_sources
            .iter()
            .map(|source| address_of(*source))
            .collect());
    }
    Ok(preferred_source(backend.address)
        .map_or_else(|_| Vec::new(), |source| vec![address_of(source)]))
}

/// What the kernel would choose: a connected UDP socket sends nothing, but has looked up the route.
fn preferred_source(backend: SocketAddr) -> io::Result<IpAddr> {
    let any: IpAddr = if backend.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.connect(backend)?;
    Ok(socket.local_addr()?.ip())
}

/// The ports that the kernel gives to local sockets.
pub(super) fn local_ports() -> io::Result<RangeInclusive<u16>> {
    let path = "/proc/sys/net/ipv4/ip_local_port_range";
    let text = fs::read_to_string(path)?;
    parse_ports(&text).ok_or_else(|| io::Error::other(format!("{path} holds {text:?}")))
}

fn parse_ports(text: &str) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.split_whitespace().map(str::parse);
    Some(numbers.next()?.ok()?..=numbers.next()?.ok()?)
}

/// Refuses NAT ports that a local socket may hold as well: both would answer to the same backend.
pub(super) fn check_ports(ours: &RangeInclusive<u16>) -> Result<(), DatapathError> {
    if ours.is_empty() || *ours.start() < 1024 {
        return Err(DatapathError::Option {
            key: "nat.ports",
            found: format!("{}-{}", ours.start(), ours.end()),
            allowed: "a range such as 10240-32767, first <= last, not below 1024",
        });
    }
    let local = local_ports().map_err(|source| DatapathError::System {
        action: "reading net.ipv4.ip_local_port_range",
        source,
    })?;
    if overlap(ours, &local) {
        return Err(DatapathError::NatPortsOverlap {
            ours: ours.clone(),
            local,
        });
    }
    Ok(())
}

pub(super) fn overlap(a: &RangeInclusive<u16>, b: &RangeInclusive<u16>) -> bool {
    a.start() <= b.end() && b.start() <= a.end()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(last: &[u8]) -> Vec<Address> {
        last.iter()
            .map(|byte| address_of(IpAddr::from([10, 0, 0, *byte])))
            .collect()
    }

    #[test]
    fn equal_lists_share_entries_and_others_do_not_move_them() {
        let mut pool = Pool::new(vec![Address::default(); 4]);
        assert_eq!(pool.claim(&addresses(&[1, 2])), Some((0, 2)));
        assert_eq!(pool.claim(&addresses(&[1, 2])), Some((0, 2)));
        assert_eq!(pool.claim(&addresses(&[2])), Some((1, 1)));
        assert_eq!(pool.claim(&addresses(&[3])), Some((2, 1)));
        assert_eq!(pool.claim(&addresses(&[4, 5])), None);
        assert_eq!(pool.claim(&[]), Some((0, 0)));
    }

    #[test]
    fn only_entries_that_nothing_refers_to_are_reclaimed() {
        let mut pool = Pool::new(addresses(&[1, 2, 3]));
        let old = pool.clone();
        pool.reclaim(|index| index != 1);
        assert_eq!(pool.get(0), old.get(0));
        assert_eq!(pool.changes(&old), [(1, Address::default())]);
        assert_eq!(pool.claim(&addresses(&[4])), Some((1, 1)));
    }

    #[test]
    fn overlapping_port_ranges_are_told_from_neighbouring_ones() {
        assert!(!overlap(&(10_240..=32_767), &(32_768..=60_999)));
        assert!(overlap(&(10_240..=32_768), &(32_768..=60_999)));
        assert!(overlap(&(1024..=65_535), &(32_768..=60_999)));
        assert_eq!(parse_ports("32768\t60999\n"), Some(32_768..=60_999));
        assert_eq!(parse_ports("32768"), None);
    }
}
