//! What a received frame does: to its stream, to the connection, or as an offence against the protocol.

use std::rc::Rc;

use h2::Reason;
use h2::frame::{self, Frame, StreamId};
use http::header::CONTENT_LENGTH;

use super::super::record::{Failed, Failure};
use super::super::rpc::Trouble;
use super::pump::{Broken, Pump};
use super::stream::{Head, State};
use super::{LARGEST_WINDOW, STREAM_WINDOW};

/// Bytes of the connection's window that are given back at once.
const TELL_AFTER: u32 = LARGEST_WINDOW / 2;

impl Pump {
    /// Ends a stream because of what the peer sent on it.
    pub(super) fn reset(
        &mut self,
        id: StreamId,
        reason: Reason,
        cause: &str,
    ) -> Result<(), Broken> {
        if let Some(state) = self.shared.stream(id) {
            state.fail(Trouble::Failed(Failed::new(Failure::Protocol, cause)));
        }
        frame::Reset::new(id, reason).encode(&mut self.unsent);
        Ok(())
    }

    pub(super) fn take(&mut self, frame: Frame) -> Result<(), Broken> {
        if !self.shared.settled.get() && !matches!(frame, Frame::Settings(_)) {
            return Err(Broken::protocol(
                "a connection that does not begin with SETTINGS",
            ));
        }
        match frame {
            Frame::Headers(headers) => self.take_headers(headers),
            Frame::Data(data) => self.take_data(data),
            Frame::Settings(settings) => self.take_settings(&settings),
            Frame::WindowUpdate(update) => self.take_window(&update),
            Frame::Reset(reset) => {
                let (id, reason) = (reset.stream_id(), reset.reason());
                if let Some(state) = self.known(id)? {
                    let failed = |class| Failed::new(class, format_args!("reset: {reason}"));
                    state.fail(match reason {
                        Reason::REFUSED_STREAM => Trouble::NotProcessed(failed(Failure::Refused)),
                        _ => Trouble::Failed(failed(Failure::Reset)),
                    });
                }
                Ok(())
            }
            Frame::Ping(ping) if ping.is_ack() => Ok(()),
            Frame::Ping(ping) => {
                frame::Ping::pong(ping.into_payload()).encode(&mut self.unsent);
                Ok(())
            }
            Frame::GoAway(away) => {
                let cause = format_args!("the peer goes away: {}", away.reason());
                let trouble = Trouble::NotProcessed(Failed::new(Failure::Refused, cause));
                self.shared
                    .fail_above(away.last_stream_id().into(), &trouble);
                self.shared.close(trouble);
                Ok(())
            }
            Frame::PushPromise(_) => Err(Broken::protocol("a push that was not allowed")),
            Frame::Priority(_) => Ok(()),
        }
    }

    /// The stream that a frame is for; `None`: it is over already.
    fn known(&mut self, id: StreamId) -> Result<Option<Rc<State>>, Broken> {
        if let Some((last, state)) = &self.last
            && *last == id
        {
            return Ok(Some(Rc::clone(state)));
        }
        if !id.is_client_initiated() || u32::from(id) >= self.shared.next.get() {
            return Err(Broken::protocol(
                "a frame for a stream that was never opened",
            ));
        }
        let state = self.shared.stream(id);
        self.last = state.clone().map(|state| (id, state));
        Ok(state)
    }

    fn take_headers(&mut self, headers: frame::Headers) -> Result<(), Broken> {
        let id = headers.stream_id();
        let Some(state) = self.known(id)? else {
            return Ok(());
        };
        if headers.is_over_size() {
            return self.reset(
                id,
                Reason::PROTOCOL_ERROR,
                "too long a list of header fields",
            );
        }
        let end = headers.is_end_stream();
        let (pseudo, fields) = headers.into_parts();
        let mut received = state.received.borrow_mut();
        let good = match pseudo.status {
            _ if received.ended.is_some() => false,
            // 100 to 199: the answer is still to come.
            Some(status) if status.is_informational() => {
                if !end && !received.headed {
                    return Ok(());
                }
                false
            }
            Some(status) if !received.headed => {
                let length = fields
                    .get(CONTENT_LENGTH)
                    .and_then(|value| value.to_str().ok());
                let length = length.filter(|_| !self.shared.template.is_head);
                received.left = length.and_then(|length| length.parse().ok());
                received.head = Some(Head { status, fields });
                received.headed = true;
                true
            }
            None if received.headed && end => {
                received.trailers = Some(fields);
                true
            }
            _ => false,
        };
        let good = good && (!end || received.end(self.latest.get()));
        drop(received);
        if good {
            state.wake();
            return Ok(());
        }
        self.reset(id, Reason::PROTOCOL_ERROR, "a malformed answer")
    }

    fn take_data(&mut self, data: frame::Data) -> Result<(), Broken> {
        let (id, end) = (data.stream_id(), data.is_end_stream());
        let piece = data.into_payload();
        // A frame's length has 24 bits.
        let length = u32::try_from(piece.len()).unwrap_or(u32::MAX);
        self.taken += length;
        if self.taken >= TELL_AFTER {
            let bytes = std::mem::take(&mut self.taken);
            frame::WindowUpdate::new(StreamId::ZERO, bytes).encode(&mut self.unsent);
        }
        let Some(state) = self.known(id)? else {
            return Ok(());
        };
        let mut received = state.received.borrow_mut();
        if received.unread + length > STREAM_WINDOW {
            let cause = "more data than the window allows";
            return Err(Broken::window(cause));
        }
        let mut good = received.headed && received.ended.is_none();
        if let Some(left) = &mut received.left {
            let after = left.checked_sub(length.into());
            *left = after.unwrap_or(0);
            good &= after.is_some();
        }
        received.unread += length;
        if !piece.is_empty() {
            received.pieces.push_back(piece);
        }
        let good = good && (!end || received.end(self.latest.get()));
        drop(received);
        if good {
            state.wake();
            return Ok(());
        }
        self.reset(id, Reason::PROTOCOL_ERROR, "a malformed answer")
    }

    fn take_settings(&mut self, settings: &frame::Settings) -> Result<(), Broken> {
        if settings.is_ack() {
            return Ok(());
        }
        let shared = &self.shared;
        if let Some(most) = settings.max_concurrent_streams() {
            shared.take_most(usize::try_from(most).unwrap_or(usize::MAX));
        } else if !shared.settled.get() {
            shared.take_most(usize::MAX);
        }
        if let Some(window) = settings.initial_window_size() {
            let more = i64::from(window) - shared.first_window.replace(window.into());
            for state in shared.streams.borrow().values() {
                state.window.set(state.window.get() + more);
                state.wake();
            }
        }
        if let Some(size) = settings.max_frame_size() {
            shared.largest_piece.set(size as usize);
        }
        if !shared.settled.replace(true) {
            // Even where it takes no stream yet.
            shared.room.notify_waiters();
        }
        if let Some(size) = settings.header_table_size() {
            self.table.resize(size);
        }
        frame::Settings::ack().encode(&mut self.unsent);
        Ok(())
    }

    fn take_window(&mut self, update: &frame::WindowUpdate) -> Result<(), Broken> {
        let (id, more) = (update.stream_id(), i64::from(update.size_increment()));
        let overflow = |window: i64| window > i64::from(LARGEST_WINDOW);
        if id.is_zero() {
            let window = &self.shared.window;
            let stalled = window.get() <= 0;
            window.set(window.get() + more);
            if overflow(window.get()) {
                let cause = "a window beyond its limit";
                return Err(Broken::window(cause));
            }
            if stalled {
                self.shared
                    .streams
                    .borrow()
                    .values()
                    .for_each(|state| state.wake());
            }
            return Ok(());
        }
        let Some(state) = self.known(id)? else {
            return Ok(());
        };
        state.window.set(state.window.get() + more);
        if overflow(state.window.get()) {
            return self.reset(id, Reason::FLOW_CONTROL_ERROR, "a window beyond its limit");
        }
        state.wake();
        Ok(())
    }
}
