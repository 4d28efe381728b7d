//! The ways of balancing that are compared, and how each places connections on backends.

use super::stage::BACKENDS;
use crate::bench::number::number;

/// Where the services of the stage listen.
pub(super) mod port {
    /// evenkeel, mode `l4`; the backends listen on the same port.
    pub(in super::super) const MAGLEV: u16 = 8080;
    /// nftables.
    pub(in super::super) const HASH: u16 = 8081;
    /// evenkeel, mode `l7`, a port for each policy.
    pub(in super::super) const L7: [(u16, &str); 3] = [
        (8082, "round_robin"),
        (8083, "least_request"),
        (8084, "p2c"),
    ];
}

/// Whom the client talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// The balancer, on this port.
    Service(u16),
    /// The backends themselves.
    Backends,
}

/// What is known of where streams land before anything is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Placement {
    /// Each connection whole, at random.
    AtRandom,
    /// The streams of each client in turn.
    InTurn,
    /// Everything on one backend.
    First,
    /// Depends on who answers when.
    Unknown,
}

/// One way of balancing.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) name: &'static str,
    pub(super) target: Target,
    /// `--balance` of `evenkeel load`.
    pub(super) balance: &'static str,
    pub(super) placement: Placement,
    /// Compared by the size of the pool; the others by who balances.
    pub(super) pool: bool,
    /// Connections of one client.
    pub(super) connections: u32,
}

const fn way(
    name: &'static str,
    target: Target,
    balance: &'static str,
    placement: Placement,
) -> Way {
    Way {
        name,
        target,
        balance,
        placement,
        pool: false,
        connections: 1,
    }
}

const fn pool(name: &'static str, balance: &'static str, connections: u32) -> Way {
    Way {
        pool: true,
        connections,
        ..way(
            name,
            Target::Service(port::MAGLEV),
            balance,
            Placement::AtRandom,
        )
    }
}

/// What the way of evenkeel's L4 is called: the pools go through it.
pub(super) const MAGLEV: &str = "L4 maglev";
/// And of its L7, in the order of [`port::L7`].
pub(super) const ROUND_ROBIN: &str = "L7 round_robin";

/// All of them.
pub(super) static WAYS: [Way; 12] = [
    way(
        "L4 hash (nftables)",
        Target::Service(port::HASH),
        "pick_first",
        Placement::AtRandom,
    ),
    way(
        MAGLEV,
        Target::Service(port::MAGLEV),
        "pick_first",
        Placement::AtRandom,
    ),
    way(
        ROUND_ROBIN,
        Target::Service(port::L7[0].0),
        "pick_first",
        Placement::Unknown,
    ),
    way(
        "L7 least_request",
        Target::Service(port::L7[1].0),
        "pick_first",
        Placement::Unknown,
    ),
    way(
        "L7 p2c",
        Target::Service(port::L7[2].0),
        "pick_first",
        Placement::Unknown,
    ),
    way(
        "client pick_first",
        Target::Backends,
        "pick_first",
        Placement::First,
    ),
    way(
        "client pick_first, shuffled",
        Target::Backends,
        "pick_first:shuffle",
        Placement::AtRandom,
    ),
    Way {
        connections: BACKENDS as u32,
        ..way(
            "client round_robin",
            Target::Backends,
            "round_robin",
            Placement::InTurn,
        )
    },
    pool("pool of 2 over L4", "pool:2", 2),
    pool("pool of 4 over L4", "pool:4", 4),
    pool("pool of 8 over L4", "pool:8", 8),
    pool("pool of 16 over L4", "pool:16", 16),
];

/// How many streams each client has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weights {
    Equal,
    Zipf,
}

impl Weights {
    pub(super) const ALL: [Self; 2] = [Self::Equal, Self::Zipf];

    /// As `evenkeel load --weights` has it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Zipf => "zipf",
        }
    }

    /// In words.
    pub(super) const fn about(self) -> &'static str {
        match self {
            Self::Equal => "all clients equally busy",
            Self::Zipf => "few busy clients and a long tail (Zipf)",
        }
    }
}

/// A cell of the comparison: a way, so many clients, how busy each is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Point {
    pub(super) way: &'static Way,
    pub(super) weights: Weights,
    pub(super) clients: u32,
}

impl Point {
    /// In words.
    pub(super) fn name(&self) -> String {
        format!(
            "{}, {}, {}",
            self.way.name,
            spell(self.clients),
            self.weights.name()
        )
    }
}

/// So many clients, in words.
pub(super) fn spell(clients: u32) -> String {
    match clients {
        1 => "1 client".to_owned(),
        many => format!("{} clients", number(f64::from(many), 0)),
    }
}

/// All points with these numbers of clients.
pub(super) fn points(clients: &[u32]) -> Vec<Point> {
    let mut points = Vec::new();
    for weights in Weights::ALL {
        for clients in clients.iter().copied() {
            points.extend(WAYS.iter().map(|way| Point {
                way,
                weights,
                clients,
            }));
        }
    }
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_way_has_a_name_and_a_service_of_its_own() {
        let names: HashSet<&str> = WAYS.iter().map(|way| way.name).collect();
        assert_eq!(names.len(), WAYS.len());
        for (number, policy) in port::L7 {
            let way = WAYS
                .iter()
                .find(|way| way.target == Target::Service(number));
            assert_eq!(way.map(|way| way.name), Some(&*format!("L7 {policy}")));
        }
    }
}
