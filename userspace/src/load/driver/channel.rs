//! The connections of one client, and which of them takes the next request.
//!
//! A connection is made when its first request comes. One that could not be made is left alone for a second (gRPC's
//! first back-off) while others take its requests; when none is left, any is tried.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::balance::Balance;
use super::target::Addresses;
use crate::balance::policy::{Balancer, Candidate};
use crate::load::random::Generator;

/// How long a connection that could not be made is left alone.
const REST: Duration = Duration::from_secs(1);

/// The connections of one client; `L` is what a connection is.
pub(super) struct Channel<L> {
    balance: Balance,
    balancer: Box<dyn Balancer>,
    addresses: Arc<Addresses>,
    /// Version of the addresses that `places` follow.
    seen: Cell<u64>,
    places: RefCell<Vec<Rc<Place<L>>>>,
    random: RefCell<Generator>,
}

/// Where one connection of a client is, or will be.
pub(super) struct Place<L> {
    /// Who may serve it, best first.
    addresses: RefCell<Vec<SocketAddr>>,
    /// The connection.
    pub(super) link: RefCell<Option<L>>,
    /// Locked while a connection is made, so that only one is.
    pub(super) making: Mutex<()>,
    in_flight: Cell<u32>,
    resting_until: Cell<Option<Instant>>,
}

/// A request counts as in flight at its place until this is dropped.
pub(super) struct InFlight<L> {
    pub(super) place: Rc<Place<L>>,
}

// === impl Channel ===

impl<L> Channel<L> {
    pub(super) fn new(balance: Balance, addresses: Arc<Addresses>, random: Generator) -> Self {
        let channel = Self {
            balance,
            balancer: balance.balancer(),
            seen: Cell::new(addresses.version()),
            addresses,
            places: RefCell::default(),
            random: RefCell::new(random),
        };
        channel.follow();
        channel
    }

    /// How many connections the client has when all are made.
    pub(super) fn len(&self) -> usize {
        self.places.borrow().len()
    }

    /// The place that takes the next request; `None` only when there is no address.
    pub(super) fn pick(&self) -> Option<InFlight<L>> {
        let version = self.addresses.version();
        if self.seen.replace(version) != version {
            self.follow();
        }
        let places = self.places.borrow();
        let picked = match places.as_slice() {
            [only] => only,
            places => {
                let now = Instant::now();
                let candidates = |resting_too: bool| -> Vec<Candidate> {
                    let candidate = |place: &Rc<Place<L>>| Candidate {
                        weight: u32::from(resting_too || !place.rests(now)),
                        in_flight: place.in_flight.get(),
                    };
                    places.iter().map(candidate).collect()
                };
                let mut random = self.random.borrow_mut();
                let mut random = || random.next_u64();
                let picked = self
                    .balancer
                    .pick(&candidates(false), &mut random)
                    .or_else(|| self.balancer.pick(&candidates(true), &mut random))?;
                places.get(picked)?
            }
        };
        picked.in_flight.set(picked.in_flight.get() + 1);
        Some(InFlight {
            place: Rc::clone(picked),
        })
    }

    /// A connection could not be made: its place rests, and names are resolved again.
    pub(super) fn failed(&self, place: &Place<L>) {
        place.resting_until.set(Some(Instant::now() + REST));
        self.addresses.look_again();
    }

    /// Takes over the current addresses. Places whose addresses stay keep their connection.
    fn follow(&self) {
        let addresses = self.addresses.current();
        let wanted = self
            .balance
            .connections(&addresses, &mut self.random.borrow_mut());
        let one_each = matches!(self.balance, Balance::RoundRobin | Balance::P2c);
        let mut before = self.places.take().into_iter();
        let mut places: Vec<Rc<Place<L>>> = Vec::with_capacity(wanted.len());
        if one_each {
            let kept = before.filter(|place| wanted.contains(&place.addresses.borrow()));
            places.extend(kept);
            let known: Vec<_> = places.iter().map(|place| place.addresses()).collect();
            let new = wanted.into_iter().filter(|wanted| !known.contains(wanted));
            places.extend(new.map(Place::new));
        } else {
            places.extend(wanted.into_iter().map(|wanted| match before.next() {
                Some(place) => {
                    place.addresses.replace(wanted);
                    place
                }
                None => Place::new(wanted),
            }));
        }
        self.places.replace(places);
    }
}

// === impl Place ===

impl<L> Place<L> {
    fn new(addresses: Vec<SocketAddr>) -> Rc<Self> {
        Rc::new(Self {
            addresses: RefCell::new(addresses),
            link: RefCell::new(None),
            making: Mutex::new(()),
            in_flight: Cell::new(0),
            resting_until: Cell::new(None),
        })
    }

    /// Who may serve it, best first.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.borrow().clone()
    }

    /// Whether `address` may (still) serve it.
    pub(super) fn may_use(&self, address: SocketAddr) -> bool {
        self.addresses.borrow().contains(&address)
    }

    fn rests(&self, now: Instant) -> bool {
        self.resting_until.get().is_some_and(|until| now < until)
    }
}

// === impl InFlight ===

impl<L> Drop for InFlight<L> {
    fn drop(&mut self) {
        let in_flight = &self.place.in_flight;
        in_flight.set(in_flight.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::random::{Purpose, generator};

    fn address(host: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, host], 80))
    }

    fn channel(balance: Balance, addresses: &Arc<Addresses>) -> Channel<()> {
        Channel::new(
            balance,
            Arc::clone(addresses),
            generator(1, Purpose::Balance, 0),
        )
    }

    fn picks(channel: &Channel<()>, count: usize) -> Vec<SocketAddr> {
        let pick = |_| channel.pick().expect("an address").place.addresses()[0];
        (0..count).map(pick).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_failed_is_left_alone_for_a_second() {
        let addresses = Arc::new(Addresses::new(&[address(1), address(2), address(3)]));
        let channel = channel(Balance::RoundRobin, &addresses);
        let failed = channel.pick().unwrap();
        channel.failed(&failed.place);
        let gone = failed.place.addresses()[0];
        assert!(!picks(&channel, 30).contains(&gone));
        tokio::time::advance(Duration::from_millis(1001)).await;
        assert!(picks(&channel, 3).contains(&gone));
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_connections_failed_any_is_tried() {
        let addresses = Arc::new(Addresses::new(&[address(1), address(2)]));
        let channel = channel(Balance::P2c, &addresses);
        for place in channel.places.borrow().iter() {
            channel.failed(place);
        }
        assert_eq!(picks(&channel, 10).len(), 10);
    }

    #[tokio::test]
    async fn p2c_goes_where_fewer_streams_are_in_flight() {
        let addresses = Arc::new(Addresses::new(&[address(1), address(2)]));
        let channel = channel(Balance::P2c, &addresses);
        let held: Vec<_> = (0..100).filter_map(|_| channel.pick()).collect();
        let at_first = held
            .iter()
            .filter(|held| held.place.addresses()[0] == address(1))
            .count();
        assert_eq!(at_first, 50);
        drop(held);
        let places = channel.places.borrow();
        assert!(places.iter().all(|place| place.in_flight.get() == 0));
    }

    #[tokio::test]
    async fn new_addresses_are_taken_in_and_connections_to_old_ones_kept() {
        let addresses = Arc::new(Addresses::new(&[address(1), address(2)]));
        for balance in [Balance::RoundRobin, Balance::Pool(2), Balance::PickFirst] {
            addresses.found(&[address(1), address(2)]);
            let channel = channel(balance, &addresses);
            let place_of = |host| {
                let places = channel.places.borrow();
                let found = places.iter().find(|place| place.may_use(address(host)));
                found.map(Rc::clone)
            };
            let kept = place_of(2).unwrap();
            kept.link.replace(Some(()));
            addresses.found(&[address(3), address(2)]);
            let reached = picks(&channel, 4);
            assert!(!reached.contains(&address(1)), "{balance}");
            assert!(place_of(3).is_some() && place_of(1).is_none(), "{balance}");
            let places = channel.places.borrow();
            assert!(
                places.iter().any(|place| Rc::ptr_eq(place, &kept)),
                "{balance}"
            );
        }
    }
}
