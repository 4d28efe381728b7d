//! A good answer: what it says of itself, and when it was over.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::load::TOOK_HEADER;
use crate::load::arrival::Arrival;

/// What is counted of an answer.
pub(super) struct Answer {
    /// Who gave it.
    pub(super) backend: Option<HeaderValue>,
    /// How long that one says it took.
    pub(super) took: Option<Duration>,
    /// The arrival of its end.
    pub(super) over: Arrival,
}

impl Answer {
    /// One with these header fields that was `over` then; the field `backend` names who gave it.
    pub(super) fn of(fields: &HeaderMap, backend: &HeaderName, over: Arrival) -> Self {
        let took = fields.get(TOOK_HEADER).and_then(|took| took.to_str().ok());
        Self {
            backend: fields.get(backend).cloned(),
            took: took
                .and_then(|nanos| nanos.parse().ok())
                .map(Duration::from_nanos),
            over,
        }
    }
}
