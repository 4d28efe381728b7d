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

mod place;

use std::cell::{Cell, RefCell};
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

pub(super) use place::{InFlight, Place};

use place::State;

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

#[cfg(test)]
mod tests;
