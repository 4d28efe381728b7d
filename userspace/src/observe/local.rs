//! Which addresses are this host's own: whether a connection ends here, begins here, or passes through.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// What connections have to do with this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Relation {
    /// The client is here, the server elsewhere.
    Outgoing,
    /// The server is here.
    Incoming,
    /// Neither is; its packets are those that come to this host.
    ThroughReceived,
    /// Neither is; its packets are those that this host sends on.
    ThroughSent,
}

impl Relation {
    /// Of a connection, whose client's packets were first seen on their way in (`received`) or out.
    ///
    /// Where a gateway rewrites addresses (DNAT, a Kubernetes node) one connection is two to whoever looks at packets: to
    /// the service's address as it is received, to a backend as it is sent on.
    #[must_use]
    pub fn of(
        client: SocketAddr,
        server: SocketAddr,
        received: bool,
        local: &BTreeSet<IpAddr>,
    ) -> Self {
        if local.contains(&server.ip()) || server.ip().is_loopback() {
            Self::Incoming
        } else if local.contains(&client.ip()) {
            Self::Outgoing
        } else if received {
            Self::ThroughReceived
        } else {
            Self::ThroughSent
        }
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Outgoing => "outgoing",
            Self::Incoming => "incoming",
            Self::ThroughReceived => "passing through, as received",
            Self::ThroughSent => "passing through, as sent on",
        })
    }
}

/// The addresses that `table` (the text of /proc/net/fib_trie) calls local: each stands on a line of its own, and one
/// of the lines below says what kind it is.
#[must_use]
pub fn local_addresses(table: &str) -> BTreeSet<IpAddr> {
    let mut found = BTreeSet::new();
    let mut last: Option<Ipv4Addr> = None;
    for line in table.lines().map(str::trim) {
        if let Some(address) = line.strip_prefix("|-- ") {
            last = address.parse().ok();
        } else if line.contains("host LOCAL")
            && let Some(address) = last
        {
            found.insert(IpAddr::V4(address));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::{Relation, local_addresses};

    const TABLE: &str = "Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
     |-- 10.77.1.0
        /24 link UNICAST
Local:
  +-- 0.0.0.0/0 3 0 5
     +-- 10.77.1.0/24 2 0 1
        |-- 10.77.1.1
           /32 host LOCAL
        |-- 10.77.1.255
           /32 link BROADCAST
     |-- 127.0.0.1
        /32 host LOCAL
";

    #[test]
    fn only_addresses_of_this_host_are_local() {
        let local: Vec<_> = local_addresses(TABLE)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(local, ["10.77.1.1", "127.0.0.1"]);
        assert!(local_addresses("").is_empty());
    }

    #[test]
    fn connections_come_in_go_out_or_pass() {
        let local = local_addresses(TABLE);
        for (client, server, received, sent) in [
            (
                "10.9.9.9:1",
                "10.77.1.1:2",
                Relation::Incoming,
                Relation::Incoming,
            ),
            (
                "10.77.1.1:1",
                "10.77.1.2:2",
                Relation::Outgoing,
                Relation::Outgoing,
            ),
            (
                "10.9.9.9:1",
                "10.77.1.2:2",
                Relation::ThroughReceived,
                Relation::ThroughSent,
            ),
            (
                "127.0.0.1:1",
                "127.0.0.1:2",
                Relation::Incoming,
                Relation::Incoming,
            ),
        ] {
            let (client, server) = (client.parse().unwrap(), server.parse().unwrap());
            for (way, relation) in [(true, received), (false, sent)] {
                assert_eq!(Relation::of(client, server, way, &local), relation);
            }
        }
    }
}
