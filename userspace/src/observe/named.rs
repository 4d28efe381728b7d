//! Peers that were said to be one service's.
//!
//! By default peers of one port are compared, which is wrong where two services share a port, or where replicas of one
//! listen on ports of their own. Whoever knows better names the peers of each service.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// One service's peers, as named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Address and port, or an address with whatever port.
    members: Vec<(IpAddr, Option<u16>)>,
}

impl Named {
    /// Whether the server is one of them.
    #[must_use]
    pub fn has(&self, server: SocketAddr) -> bool {
        self.members.iter().any(|(address, port)| {
            *address == server.ip() && port.is_none_or(|port| port == server.port())
        })
    }

    /// Those that are known to be there, seen or not: the ones named with their ports.
    pub(super) fn servers(&self) -> impl Iterator<Item = SocketAddr> {
        let members = self.members.iter();
        members.filter_map(|(address, port)| Some(SocketAddr::new(*address, (*port)?)))
    }
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let member = |text: &str| {
            let socket = text
                .parse()
                .map(|it: SocketAddr| (it.ip(), Some(it.port())));
            let member = socket.or_else(|_| text.parse().map(|address: IpAddr| (address, None)));
            member.map_err(|_| {
                format!("`{text}` is no peer; allowed: ADDR or ADDR:PORT, several with commas")
            })
        };
        let members = text.split(',').map(member).collect::<Result<_, _>>()?;
        Ok(Self { members })
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (address, port)) in self.members.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match port {
                Some(port) => write!(f, "{comma}{}", SocketAddr::new(*address, *port))?,
                None => write!(f, "{comma}{address}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Named;

    #[test]
    fn peers_are_named_with_a_port_or_with_any() {
        let named: Named = "127.0.0.1:50051,10.0.0.2".parse().unwrap();
        for (server, member) in [
            ("127.0.0.1:50051", true),
            ("127.0.0.1:50052", false),
            ("10.0.0.2:1", true),
            ("10.0.0.3:1", false),
        ] {
            assert_eq!(named.has(server.parse().unwrap()), member, "{server}");
        }
        assert_eq!(named.to_string(), "127.0.0.1:50051,10.0.0.2");
        assert_eq!(named.servers().count(), 1);
    }

    #[test]
    fn what_is_no_peer_is_told_with_what_is_allowed() {
        for text in ["", "10.0.0.1,", "host:80", "10.0.0.1:99999"] {
            let error = text.parse::<Named>().unwrap_err();
            assert!(error.contains("allowed: ADDR or ADDR:PORT"), "{error}");
        }
    }
}
