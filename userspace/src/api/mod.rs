//! The control API: HTTP/1.1 and JSON on a Unix socket. The CLI is its first client; `curl --unix-socket` is another.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /v1/status` | [`types::Status`] |
//! | `GET /v1/services` | [`types::Services`] |
//! | `GET /v1/backends[?service=NAME]` | [`types::Backends`] |
//! | `GET /v1/flows[?service=NAME][&top=N][&client=TEXT][&backend=TEXT][&state=STATE]` | [`types::Flows`] |
//! | `GET /v1/pinning[?service=NAME][&for=5s]` | [`crate::pinning::PinningReport`], over the interval or since load |
//! | `GET /v1/explain?client=IP:PORT&service=NAME` | [`types::Explanation`] |
//! | `PUT /v1/services/NAME/mode` [`types::ModeRequest`] | [`types::Done`] |
//! | `POST /v1/services/NAME/backends` [`types::BackendRequest`] | [`types::Done`] |
//! | `PATCH /v1/services/NAME/backends/IP:PORT` [`types::BackendPatch`] | [`types::Done`] |
//! | `DELETE /v1/services/NAME/backends/IP:PORT[?now=true]` | [`types::Done`] |
//! | `POST /v1/reload` | [`types::Done`] |
//!
//! A service is named by its name or its address. Errors are [`types::Problem`] with status 400 (the request is
//! wrong), 404 (no such service, backend or path; `known` lists what there is), 405, 409 (right, but not now), 413
//! or 500 (the data path refused). A request that fails changes nothing.

pub mod client;
pub mod server;
pub mod types;
