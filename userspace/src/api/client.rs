//! The other end of the control socket, for the CLI.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;
use tokio::net::UnixStream;

use super::types::Problem;

/// The largest answer: a full flow table as JSON is about as large.
const MAX_ANSWER: usize = 512 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("the daemon is not running (nothing listens on {}): start it with `evenkeel run`, or name its socket with --socket", .0.display())]
    NotRunning(PathBuf),
    /// The socket is somebody else's.
    #[error("{} may be used by root only: run this with sudo, or set `daemon.socket_group`", .0.display())]
    NotPermitted(PathBuf),
    /// The daemon refused; the sentence is the daemon's.
    #[error("{}", sentence(.0))]
    Refused(Problem),
    /// The exchange broke off.
    #[error("the daemon's answer broke off: {0}")]
    Broken(String),
}

fn sentence(problem: &Problem) -> String {
    if problem.known.is_empty() {
        problem.error.clone()
    } else {
        format!("{}; known: {}", problem.error, problem.known.join(", "))
    }
}

/// A way to ask the daemon; one connection a request.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    runtime: tokio::runtime::Runtime,
}

impl Client {
    /// A client of the daemon behind `socket`; connects when asked something.
    ///
    /// # Errors
    /// The system has no resources for an event loop.
    pub fn new(socket: &Path) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Self {
            socket: socket.to_owned(),
            runtime,
        })
    }

    /// `GET`.
    ///
    /// # Errors
    /// No answer, or the daemon's refusal.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, Bytes::new())
    }

    /// A request that changes something.
    ///
    /// # Errors
    /// No answer, or the daemon's refusal.
    pub fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(broken)?;
        self.ask(method, path, Bytes::from(body))
    }

    fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<T, ClientError> {
        let (success, answer) = self.runtime.block_on(self.exchange(method, path, body))?;
        if success {
            return serde_json::from_slice(&answer).map_err(broken);
        }
        let problem: Problem = serde_json::from_slice(&answer).map_err(broken)?;
        Err(ClientError::Refused(problem))
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<(bool, Bytes), ClientError> {
        let stream =
            UnixStream::connect(&self.socket)
                .await
                .map_err(|error| match error.kind() {
                    io::ErrorKind::PermissionDenied => {
                        ClientError::NotPermitted(self.socket.clone())
                    }
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                        ClientError::NotRunning(self.socket.clone())
                    }
                    _ => broken(error),
                })?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        let driver = tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "evenkeel")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(broken)?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let success = response.status().is_success();
        let body = Limited::new(response.into_body(), MAX_ANSWER)
            .collect()
            .await
            .map_err(broken)?;
        driver.abort();
        Ok((success, body.to_bytes()))
    }
}

fn broken(error: impl std::fmt::Display) -> ClientError {
    ClientError::Broken(error.to_string())
}

/// Encodes a value for a path segment or a query (RFC 3986, section 2.1): all but unreserved characters and `:`.
#[must_use]
pub fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

/// The inverse of [`encode`]; also reads what other clients encoded. `None` where it is malformed.
#[must_use]
pub fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let (high, low) = (rest.next()?, rest.next()?);
            let digits = [high, low];
            let digits = std::str::from_utf8(&digits).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::{decode, encode};
    use proptest::prelude::*;

    #[test]
    fn malformed_escapes_are_refused() {
        for text in ["%", "%4", "%zz", "%ff"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_was_encoded_is_decoded(text in ".*") {
            prop_assert_eq!(decode(&encode(&text)), Some(text));
        }
    }
}
