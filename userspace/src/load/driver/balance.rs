//! Client-side balancing: which connections a client makes, and which of them takes the next request.
//!
//! | policy | connections of a client | the next request goes to |
//! | --- | --- | --- |
//! | `pick_first` | one, to the first address that takes it | that one |
//! | `pick_first:shuffle` | one, to the first of the addresses in a random order of its own | that one |
//! | `round_robin` | one to each address | each in turn |
//! | `p2c` | one to each address | the one with fewer streams in flight, of two drawn |
//! | `pool:K` | K, to the addresses in turn | each in turn |
//!
//! `pick_first` and `round_robin` are those of gRPC (`doc/load-balancing.md` there; the shuffle is its proposal A62);
//! a client begins its turns at a random address, as gRPC clients do, so that many clients with few requests do not
//! meet at the first one. A connection that several addresses may serve tries one after the other.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;

use rand::RngExt as _;
use rand::seq::SliceRandom as _;

use crate::balance::policy::{Balancer, P2c, RoundRobin};
use crate::load::Malformed;
use crate::load::random::Generator;

/// A client-side policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Balance {
    /// One connection to the first address that takes it.
    #[default]
    PickFirst,
    /// The same, in a random order of addresses.
    PickFirstShuffled,
    /// A connection to each address, in turn.
    RoundRobin,
    /// A connection to each address, the less busy of two.
    P2c,
    /// So many connections, in turn.
    Pool(u32),
}

/// More connections a client does not make.
const LARGEST_POOL: u32 = 1024;

// === impl Balance ===

impl Balance {
    const ALLOWED: Malformed = Malformed(
        "pick_first, pick_first:shuffle, round_robin, p2c, or pool:K with K from 1 to 1024",
    );

    /// The connections of one client: for each the addresses that may serve it, best first. None of nothing.
    pub(super) fn connections(
        self,
        addresses: &[SocketAddr],
        random: &mut Generator,
    ) -> Vec<Vec<SocketAddr>> {
        if addresses.is_empty() {
            return Vec::new();
        }
        let mut turned = addresses.to_vec();
        match self {
            Self::PickFirst => vec![turned],
            Self::PickFirstShuffled => {
                turned.shuffle(random);
                vec![turned]
            }
            Self::RoundRobin | Self::P2c => {
                turned.rotate_left(random.random_range(0..addresses.len()));
                turned.into_iter().map(|address| vec![address]).collect()
            }
            Self::Pool(connections) => {
                turned.rotate_left(random.random_range(0..addresses.len()));
                let next = |_| {
                    let connection = turned.clone();
                    turned.rotate_left(1);
                    connection
                };
                (0..connections).map(next).collect()
            }
        }
    }

    /// Deals the requests of one client.
    pub(super) fn balancer(self) -> Box<dyn Balancer> {
        match self {
            Self::P2c => Box::new(P2c),
            Self::PickFirst | Self::PickFirstShuffled | Self::RoundRobin | Self::Pool(_) => {
                Box::new(RoundRobin::default())
            }
        }
    }
}

impl FromStr for Balance {
    type Err = Malformed;

    fn from_str(text: &str) -> Result<Self, Malformed> {
        match (text, text.strip_prefix("pool:")) {
            ("pick_first", _) => Ok(Self::PickFirst),
            ("pick_first:shuffle", _) => Ok(Self::PickFirstShuffled),
            ("round_robin", _) => Ok(Self::RoundRobin),
            ("p2c", _) => Ok(Self::P2c),
            (_, Some(connections)) => connections
                .parse()
                .ok()
                .filter(|connections| (1..=LARGEST_POOL).contains(connections))
                .map(Self::Pool)
                .ok_or(Self::ALLOWED),
            _ => Err(Self::ALLOWED),
        }
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PickFirst => f.write_str("pick_first"),
            Self::PickFirstShuffled => f.write_str("pick_first:shuffle"),
            Self::RoundRobin => f.write_str("round_robin"),
            Self::P2c => f.write_str("p2c"),
            Self::Pool(connections) => write!(f, "pool:{connections}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::random::{Purpose, generator};
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn addresses(count: u8) -> Vec<SocketAddr> {
        (1..=count)
            .map(|host| SocketAddr::from(([10, 0, 0, host], 80)))
            .collect()
    }

    fn connections(balance: Balance, count: u8, client: usize) -> Vec<Vec<SocketAddr>> {
        balance.connections(
            &addresses(count),
            &mut generator(1, Purpose::Balance, client),
        )
    }

    /// Connections by the address that they go to first, over 1000 clients.
    fn first_choices(balance: Balance, count: u8) -> HashMap<SocketAddr, u32> {
        let mut choices = HashMap::new();
        for connection in (0..1000).flat_map(|client| connections(balance, count, client)) {
            *choices.entry(connection[0]).or_default() += 1;
        }
        choices
    }

    #[test]
    fn policies_read_as_they_print() {
        for text in [
            "pick_first",
            "pick_first:shuffle",
            "round_robin",
            "p2c",
            "pool:16",
        ] {
            assert_eq!(text.parse::<Balance>().unwrap().to_string(), text);
        }
        for text in ["", "pool", "pool:0", "pool:1025", "pool:x", "least_request"] {
            assert!(text.parse::<Balance>().is_err(), "{text}");
        }
    }

    #[test]
    fn pick_first_pins_every_client_to_the_same_address_unless_shuffled() {
        let first = addresses(10)[0];
        assert_eq!(
            first_choices(Balance::PickFirst, 10),
            [(first, 1000)].into()
        );
        let shuffled = first_choices(Balance::PickFirstShuffled, 10);
        assert!(
            shuffled.len() == 10 && shuffled.values().all(|clients| (60..140).contains(clients))
        );
    }

    #[test]
    fn a_pool_spreads_its_connections_over_the_addresses() {
        let pool = connections(Balance::Pool(5), 2, 3);
        let first = pool
            .iter()
            .filter(|connection| connection[0] == pool[0][0])
            .count();
        assert_eq!((pool.len(), first), (5, 3));
        assert_eq!(pool[0].len(), 2, "each may fall back on any address");
    }

    #[test]
    fn clients_begin_their_turns_at_different_addresses() {
        for client in [0, 1] {
            assert_eq!(connections(Balance::RoundRobin, 4, client).len(), 4);
        }
        let starts: std::collections::HashSet<SocketAddr> = (0..100)
            .map(|client| connections(Balance::RoundRobin, 4, client)[0][0])
            .collect();
        assert_eq!(starts.len(), 4);
    }

    proptest! {
        #[test]
        fn every_connection_can_reach_an_address_and_every_address_is_used(
            count in 1_u8..20, pool in 1_u32..40, seed: u64
        ) {
            for balance in [
                Balance::PickFirst, Balance::PickFirstShuffled, Balance::RoundRobin, Balance::P2c, Balance::Pool(pool),
            ] {
                let mut random = generator(seed, Purpose::Balance, 0);
                let connections = balance.connections(&addresses(count), &mut random);
                prop_assert!(!connections.is_empty() && connections.iter().all(|c| !c.is_empty()));
                let mut reached: Vec<_> = connections.concat();
                reached.sort();
                reached.dedup();
                prop_assert_eq!(reached, addresses(count), "{}", balance);
            }
        }
    }
}
