//! Where one connection of a client is, how far it is, and how many requests it has.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use tokio::time::Instant;

/// Where one connection of a client is, or will be.
pub(in super::super) struct Place<L> {
    /// Who may serve it, best first.
    pub(super) addresses: RefCell<Vec<SocketAddr>>,
    /// The connection.
    pub(in super::super) link: RefCell<Option<L>>,
    pub(super) state: Cell<State>,
    pub(super) in_flight: Cell<u32>,
}

/// How far the connection of a place is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
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
pub(in super::super) struct InFlight<L> {
    pub(in super::super) place: Rc<Place<L>>,
}

// === impl Place ===

impl<L> Place<L> {
    pub(super) fn new(addresses: Vec<SocketAddr>) -> Rc<Self> {
        Rc::new(Self {
            addresses: RefCell::new(addresses),
            link: RefCell::new(None),
            state: Cell::new(State::Idle),
            in_flight: Cell::new(0),
        })
    }

    /// Who may serve it, best first.
    pub(in super::super) fn addresses(&self) -> Vec<SocketAddr> {
        self.addresses.borrow().clone()
    }

    /// Whether `address` may (still) serve it.
    pub(in super::super) fn may_use(&self, address: SocketAddr) -> bool {
        self.addresses.borrow().contains(&address)
    }
}

// === impl State ===

impl State {
    pub(super) fn rests(self, now: Instant) -> bool {
        matches!(self, Self::Resting(until) if now < until)
    }

    /// Whether it has rested enough, or never was asked for.
    pub(super) fn is_due(self, now: Instant) -> bool {
        self == Self::Idle || matches!(self, Self::Resting(until) if until <= now)
    }
}

// === impl InFlight ===

impl<L> InFlight<L> {
    pub(super) fn at(place: &Rc<Place<L>>) -> Self {
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
