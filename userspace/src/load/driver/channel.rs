//! The connections of one client, and which of them takes the next request.
//!
//! Connections are made beside the requests ([`Place`] by place): a backend that does not answer takes nobody's time. One
//! that could not be made is left alone for a second (gRPC's first back-off) while others take its requests; when none is
//! left, any is tried. Which are made, and which takes a request, differs:
//!
//! | client | makes | takes |
//! | --- | --- | --- |
//! | HTTP/2, and HTTP/1.1 with keep-alive | all of them from the first request on ([`Channel::to_make`]) | a place with a connection ([`Channel::pick_ready`]), as gRPC picks among subchannels that are READY. Only a client without any connection waits |
//! | HTTP/1.1 without keep-alive | that of the place whose turn it is ([`Channel::next_to_make`]) | the place that has one ([`Channel::pick_made`]): mostly that for which it was made |

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng as _;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use super::balance::Balance;
use super::record::{Failed, Failure};
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
    /// Whether all places are ready, so that a request need not look for those that are not.
    complete: Cell<bool>,
    /// A connection was made, or could not be.
    changed: Notify,
    /// Why the last one that could not be made was not.
    unreachable: RefCell<Option<Failed>>,
    random: RefCell<Generator>,
}

/// Where one connection of a client is, or will be.
pub(super) struct Place<L> {
    /// Who may serve it, best first.
    addresses: RefCell<Vec<SocketAddr>>,
    /// The connection.
    pub(super) link: RefCell<Option<L>>,
    state: Cell<State>,
    in_flight: Cell<u32>,
}

/// How far the connection of a place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// There is none.
    Idle,
    /// It is being made.
    Making,
    /// It was there when it was last looked at.
    Ready,
    /// It could not be made, and is left alone until then.
    Resting(Instant),
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
            complete: Cell::new(false),
            changed: Notify::new(),
            unreachable: RefCell::default(),
            random: RefCell::new(random),
        };
        channel.follow();
        channel
    }

    /// The place that takes the next request, of those that are ready.
    pub(super) fn pick_ready(&self) -> Option<InFlight<L>> {
        self.keep_up();
        self.pick_of(|state| state == State::Ready)
    }

    /// A place that is ready, whosever turn it is.
    pub(super) fn pick_made(&self) -> Option<InFlight<L>> {
        self.keep_up();
        let places = self.places.borrow();
        let made = places
            .iter()
            .find(|place| place.state.get() == State::Ready)?;
        Some(InFlight::at(made))
    }

    fn pick_of(&self, takes: impl Fn(State) -> bool) -> Option<InFlight<L>> {
        let places = self.places.borrow();
        let picked = match places.as_slice() {
            [only] => Some(only).filter(|only| takes(only.state.get()))?,
            places => {
                let candidate = |place: &Rc<Place<L>>| Candidate {
                    weight: u32::from(takes(place.state.get())),
                    in_flight: place.in_flight.get(),
                };
                let candidates: Vec<Candidate> = places.iter().map(candidate).collect();
                let mut random = self.random.borrow_mut();
                let picked = self.balancer.pick(&candidates, &mut || random.next_u64())?;
                places.get(picked)?
            }
        };
        Some(InFlight::at(picked))
    }

    /// Whether every place is ready.
    pub(super) fn is_complete(&self) -> bool {
        self.complete.get()
    }

    /// Whether any connection is being made.
    pub(super) fn is_making(&self) -> bool {
        self.any(|state| state == State::Making)
    }

    /// Places whose connection is to be made now; they count as being made from here on. `stranded`: who asks has none
    /// to use, so that when all rest none does.
    pub(super) fn to_make(&self, stranded: bool) -> Vec<Rc<Place<L>>> {
        let now = Instant::now();
        let all_rest = !self.any(|state| !state.rests(now));
        let places = self.places.borrow();
        let chosen = places.iter().filter(|place| {
            let state = place.state.get();
            state.is_due(now) || stranded && all_rest
        });
        let chosen: Vec<_> = chosen.map(Rc::clone).collect();
        chosen
            .iter()
            .for_each(|place| place.state.set(State::Making));
        chosen
    }

    /// The place whose turn it is, of those whose connection can be made now; it counts as being made from here on.
    pub(super) fn next_to_make(&self) -> Option<Rc<Place<L>>> {
        self.keep_up();
        let now = Instant::now();
        let picked = self.pick_of(|state| state.is_due(now))?;
        self.set(&picked.place, State::Making);
        Some(Rc::clone(&picked.place))
    }

    /// The connection of a place was made, or could not be.
    pub(super) fn dialled(&self, place: &Place<L>, made: Result<L, Failed>) {
        match made {
            Ok(link) => {
                place.link.replace(Some(link));
                self.set(place, State::Ready);
                self.changed.notify_waiters();
            }
            Err(failed) => self.failed(place, failed),
        }
    }

    /// A connection could not be made: its place rests, and names are resolved again.
    pub(super) fn failed(&self, place: &Place<L>, failed: Failed) {
        self.unreachable.replace(Some(failed));
        self.set(place, State::Resting(Instant::now() + REST));
        self.addresses.look_again();
        self.changed.notify_waiters();
    }

    /// What is to be said where no connection can be made.
    pub(super) fn unreachable(&self) -> Failed {
        let unreachable = self.unreachable.borrow().clone();
        unreachable.unwrap_or_else(|| Failed::new(Failure::Connect, "no address"))
    }

    /// The connection of a place takes no more requests; those in flight finish on it.
    pub(super) fn retire(&self, place: &Place<L>) {
        place.link.replace(None);
        self.set(place, State::Idle);
    }

    /// The peer ended the connection of a place: who serves there may be elsewhere by now.
    pub(super) fn lost(&self, place: &Place<L>) {
        self.addresses.look_again();
        self.retire(place);
    }

    /// Resolves when the next connection was made, or could not be.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    fn any(&self, is: impl Fn(State) -> bool) -> bool {
        self.places
            .borrow()
            .iter()
            .any(|place| is(place.state.get()))
    }

    fn set(&self, place: &Place<L>, state: State) {
        place.state.set(state);
        self.count();
    }

    fn count(&self) {
        self.complete.set(!self.any(|state| state != State::Ready));
    }

    /// Follows the addresses where they changed.
    fn keep_up(&self) {
        let version = self.addresses.version();
        if self.seen.replace(version) != version {
            self.follow();
        }
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
        self.count();
    }
}

// === impl Place ===

impl<L> Place<L> {
    fn new(addresses: Vec<SocketAddr>) -> Rc<Self> {
        Rc::new(Self {
            addresses: RefCell::new(addresses),
            link: RefCell::new(None),
            state: Cell::new(State::Idle),
            in_flight: Cell::new(0),
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
}

// === impl State ===

impl State {
    fn rests(self, now: Instant) -> bool {
        matches!(self, Self::Resting(until) if now < until)
    }

    /// Whether it has rested enough, or never was asked for.
    fn is_due(self, now: Instant) -> bool {
        self == Self::Idle || matches!(self, Self::Resting(until) if until <= now)
    }
}

// === impl InFlight ===

impl<L> InFlight<L> {
    fn at(place: &Rc<Place<L>>) -> Self {
        place.in_flight.set(place.in_flight.get() + 1);
        Self {
            place: Rc::clone(place),
        }
    }
}

impl<L> Drop for InFlight<L> {
    fn drop(&mut self) {
        let in_flight = &self.place.in_flight;
        in_flight.set(in_flight.get().saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::driver::target::Target;
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

    fn made(channel: &Channel<()>) {
        let places = channel.places.borrow().clone();
        for place in places {
            channel.dialled(&place, Ok(()));
        }
    }

    fn failure() -> Failed {
        Failed::new(Failure::Connect, "refused")
    }

    /// Where requests go, of which `count` follow each other.
    fn picks(channel: &Channel<()>, count: usize) -> Vec<SocketAddr> {
        let pick = |_| {
            channel
                .pick_ready()
                .expect("a connection")
                .place
                .addresses()[0]
        };
        (0..count).map(pick).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_failed_is_left_alone_for_a_second() {
        let addresses = Arc::new(Addresses::new([address(1), address(2), address(3)]));
        let channel = channel(Balance::RoundRobin, &addresses);
        made(&channel);
        let failed = channel.pick_ready().unwrap();
        channel.failed(&failed.place, failure());
        let gone = failed.place.addresses()[0];
        assert!(!picks(&channel, 30).contains(&gone));
        assert!(channel.to_make(false).is_empty() && channel.next_to_make().is_none());
        tokio::time::advance(Duration::from_millis(1001)).await;
        assert_eq!(channel.next_to_make().unwrap().addresses(), [gone]);
        assert!(channel.to_make(true).is_empty(), "it is being made");
    }

    #[tokio::test(start_paused = true)]
    async fn when_all_connections_failed_any_is_tried_by_who_has_none() {
        let addresses = Arc::new(Addresses::new([address(1), address(2)]));
        let channel = channel(Balance::P2c, &addresses);
        assert_eq!(channel.unreachable().cause, "no address");
        let places = channel.places.borrow().clone();
        for place in &places {
            channel.dialled(place, Err(failure()));
        }
        assert_eq!(channel.unreachable(), failure());
        assert!(channel.pick_ready().is_none() && channel.pick_made().is_none());
        assert!(channel.next_to_make().is_none());
        assert!(channel.to_make(false).is_empty());
        assert_eq!(channel.to_make(true).len(), 2);
        assert!(channel.is_making());
    }

    #[tokio::test]
    async fn connections_for_one_request_each_are_made_in_turn() {
        let addresses = Arc::new(Addresses::new([address(1), address(2), address(3)]));
        let channel = channel(Balance::RoundRobin, &addresses);
        let mut turns = Vec::new();
        for _ in 0..6 {
            let place = channel.next_to_make().unwrap();
            channel.dialled(&place, Ok(()));
            let picked = channel.pick_made().unwrap();
            assert!(Rc::ptr_eq(&picked.place, &place));
            channel.retire(&place);
            turns.push(place.addresses()[0]);
        }
        let distinct: std::collections::BTreeSet<_> = turns[..3].iter().collect();
        assert_eq!((distinct.len(), &turns[..3]), (3, &turns[3..]));
    }

    #[tokio::test(start_paused = true)]
    async fn names_are_resolved_again_when_a_connection_fails_or_is_lost() {
        let addresses = Arc::new(Addresses::new([address(1)]));
        let channel = channel(Balance::RoundRobin, &addresses);
        let names = [Target::Name("backends.test".to_owned(), 80)];
        let next = Cell::new(1);
        let resolve = async |_: &Target| {
            next.set(next.get() + 1);
            Ok(vec![address(next.get())])
        };
        let keep = addresses.keep(&names, vec![vec![address(1)]], None, resolve);
        let asking = async {
            made(&channel);
            let picked = channel.pick_ready().unwrap();
            let place = &picked.place;
            let long = Duration::from_secs(10);
            tokio::time::sleep(long).await;
            assert_eq!(*addresses.current(), [address(1)], "nobody asked");
            channel.failed(place, failure());
            tokio::time::sleep(long).await;
            assert_eq!(*addresses.current(), [address(2)]);
            channel.lost(place);
            tokio::time::sleep(long).await;
            assert_eq!(*addresses.current(), [address(3)]);
            channel.retire(place);
            tokio::time::sleep(long).await;
            assert_eq!(*addresses.current(), [address(3)], "it was planned");
        };
        tokio::select! {
            () = keep => {}
            () = asking => {}
        }
    }

    #[tokio::test]
    async fn p2c_goes_where_fewer_streams_are_in_flight() {
        let addresses = Arc::new(Addresses::new([address(1), address(2)]));
        let channel = channel(Balance::P2c, &addresses);
        made(&channel);
        let held: Vec<_> = (0..100).filter_map(|_| channel.pick_ready()).collect();
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
        let addresses = Arc::new(Addresses::new([address(1), address(2)]));
        for balance in [Balance::RoundRobin, Balance::Pool(2), Balance::PickFirst] {
            addresses.found(&[address(1), address(2)]);
            let channel = channel(balance, &addresses);
            let place_of = |host| {
                let places = channel.places.borrow();
                let found = places.iter().find(|place| place.may_use(address(host)));
                found.map(Rc::clone)
            };
            let kept = place_of(2).unwrap();
            addresses.found(&[address(3), address(2)]);
            channel.keep_up();
            made(&channel);
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
