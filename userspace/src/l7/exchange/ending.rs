//! How an exchange ends: answered, refused, lost or given up.

use h2::Reason;

use super::{Exchange, ResponseState};
use crate::l7::guard::Guard;
use crate::l7::respond::{Failure, is_grpc};

impl Exchange {
    /// Nothing left to try: the last refusal, else our own answer.
    pub(super) fn give_up(&mut self) {
        match self.refused {
            Some(reason) => self.respond.send_reset(reason),
            None => {
                self.view.counters().no_backend.add(1);
                self.answer(Failure::NoBackend);
            }
        }
    }

    /// There was no response. True when another backend is to be tried.
    pub(super) fn failed(&mut self, error: &h2::Error) -> bool {
        let Some(attempt) = self.attempt.take() else {
            return false;
        };
        let counters = self.view.pools[attempt.position].counters();
        let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
        if error.is_remote() && (refused || error.is_go_away()) {
            if refused {
                self.tried.push(attempt.position);
            }
            self.refused = Some(Reason::REFUSED_STREAM);
            self.refusals += 1;
            if self.replay.is_possible() && self.refusals <= self.client.worker.limits.retries {
                counters.retried.add(1);
                return true;
            }
            counters.reset_by_backend.add(1);
            self.respond.send_reset(Reason::REFUSED_STREAM);
        } else if error.is_remote() && error.is_reset() {
            counters.reset_by_backend.add(1);
            self.respond
                .send_reset(error.reason().unwrap_or(Reason::INTERNAL_ERROR));
        } else {
            counters.failed.add(1);
            self.answer(Failure::UpstreamLost);
        }
        false
    }

    pub(super) fn answered(&self) {
        if let Some(counters) = self.counters() {
            counters.ok.add(1);
        }
        self.client.io.earn(Guard::stream_finished);
    }

    pub(super) fn answer(&mut self, failure: Failure) {
        let response = failure.response(is_grpc(self.head.headers()));
        // An error means that the client has gone.
        let _ = self.respond.send_response(response, true);
    }

    /// The client gave up: so do we at the backend.
    pub(super) fn abandon(&mut self, reason: Reason) {
        if matches!(self.response, ResponseState::Done { .. }) {
            // Counted as answered. Its request is cut short.
        } else if let Some(counters) = self.counters() {
            counters.reset_by_client.add(1);
        }
        if let Some(opened) = self.opened() {
            opened.send.send_reset(reason);
        }
    }

    /// Nothing moved for too long, whoever is to blame: both sides are let go.
    pub(super) fn time_out(&mut self) {
        match self.response {
            ResponseState::Awaited => self.answer(Failure::TimedOut),
            ResponseState::Content { .. } | ResponseState::Done { .. } => {
                self.reset_client(Reason::CANCEL);
            }
        }
        if !matches!(self.response, ResponseState::Done { .. })
            && let Some(counters) = self.counters()
        {
            counters.timed_out.add(1);
        }
        if let Some(opened) = self.opened() {
            opened.send.send_reset(Reason::CANCEL);
        }
    }

    pub(super) fn reset_client(&mut self, reason: Reason) {
        match &mut self.response {
            ResponseState::Awaited => self.respond.send_reset(reason),
            ResponseState::Content { send, .. } | ResponseState::Done { send } => {
                send.send_reset(reason);
            }
        }
    }
}
