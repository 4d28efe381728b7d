//! Whether a backend can be reached, protocol by protocol.
//!
//! | what an attempt showed | HTTP/1.1 | HTTP/2 |
//! | --- | --- | --- |
//! | no TCP connection, from whichever protocol's attempt | down | down |
//! | a TCP connection | no longer down | as it was |
//! | SETTINGS | no longer down | up |
//! | a TCP connection, and no SETTINGS | | down |
//! | a response | up | |
//!
//! So a backend that speaks only HTTP/1.1 is down for HTTP/2 clients and serves the others: a service may have both, and a
//! client must not decide by the protocol that it chose what others get.

use std::cell::Cell;

use crate::l7::stats::Reach;

/// What is known of a backend.
#[derive(Debug, Default)]
pub struct Reachability {
    http1: Cell<Reach>,
    http2: Cell<Reach>,
}

// === impl Reachability ===

impl Reachability {
    /// Over HTTP/1.1.
    pub fn http1(&self) -> Reach {
        self.http1.get()
    }

    /// Over HTTP/2.
    pub fn http2(&self) -> Reach {
        self.http2.get()
    }

    /// What is known in one word: down where nothing that was tried works.
    pub fn summary(&self) -> Reach {
        match (self.http1.get(), self.http2.get()) {
            (Reach::Up, _) | (_, Reach::Up) => Reach::Up,
            (Reach::Down, _) | (_, Reach::Down) => Reach::Down,
            (Reach::Unknown, Reach::Unknown) => Reach::Unknown,
        }
    }

    /// There was no TCP connection, so there is no protocol to speak.
    pub fn refused(&self) {
        self.http1.set(Reach::Down);
        self.http2.set(Reach::Down);
    }

    /// There was a TCP connection: the least that HTTP/1.1 needs, whose clients speak first.
    pub fn accepted(&self) {
        if self.http1.get() == Reach::Down {
            self.http1.set(Reach::Unknown);
        }
    }

    /// It answered an HTTP/1.1 request.
    pub fn answered_http1(&self) {
        self.http1.set(Reach::Up);
    }

    /// SETTINGS came, over TCP.
    pub fn answered_http2(&self) {
        self.accepted();
        self.http2.set(Reach::Up);
    }

    /// No SETTINGS came.
    pub fn not_http2(&self) {
        self.http2.set(Reach::Down);
    }

    /// It is worth asking for SETTINGS again.
    pub fn may_be_http2(&self) {
        if self.http2.get() == Reach::Down {
            self.http2.set(Reach::Unknown);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Reach, Reachability};

    fn both(reach: &Reachability) -> (Reach, Reach) {
        (reach.http1(), reach.http2())
    }

    #[test]
    fn without_tcp_there_is_neither_protocol() {
        let reach = Reachability::default();
        reach.answered_http1();
        reach.answered_http2();
        reach.refused();
        assert_eq!(both(&reach), (Reach::Down, Reach::Down));
    }

    #[test]
    fn a_backend_without_settings_is_down_for_http2_alone() {
        let reach = Reachability::default();
        reach.refused();
        reach.accepted();
        reach.not_http2();
        assert_eq!(both(&reach), (Reach::Unknown, Reach::Down));
        assert_eq!(reach.summary(), Reach::Down);
        reach.answered_http1();
        reach.accepted();
        assert_eq!(both(&reach), (Reach::Up, Reach::Down));
        assert_eq!(reach.summary(), Reach::Up);
    }

    #[test]
    fn a_backend_that_accepts_again_is_asked_for_settings_again() {
        let reach = Reachability::default();
        reach.refused();
        reach.accepted();
        reach.may_be_http2();
        assert_eq!(both(&reach), (Reach::Unknown, Reach::Unknown));
        reach.answered_http2();
        reach.may_be_http2();
        assert_eq!(reach.http2(), Reach::Up);
    }
}
