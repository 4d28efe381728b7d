//! What a good answer says of itself.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};

use crate::load::{BACKEND_HEADER, TOOK_HEADER};

/// The fields of an answer that are counted by.
#[derive(Default)]
pub(super) struct Answer {
    /// Who gave it.
    pub(super) backend: Option<HeaderValue>,
    /// How long that one says it took.
    pub(super) took: Option<Duration>,
}

impl Answer {
    pub(super) fn of(fields: &HeaderMap) -> Self {
        let took = fields.get(TOOK_HEADER).and_then(|took| took.to_str().ok());
        Self {
            backend: fields.get(BACKEND_HEADER).cloned(),
            took: took
                .and_then(|nanos| nanos.parse().ok())
                .map(Duration::from_nanos),
        }
    }
}
