//! Control socket and command line against a daemon with a fake data path: needs no root.

mod changes;
#[path = "../fake/mod.rs"]
mod fake;
mod reading;
mod socket;
mod watch;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use fake::Daemon;
use serde_json::Value;

fn json(text: &str) -> Value {
    serde_json::from_str(text).expect("JSON")
}

/// One raw HTTP exchange, as any client may have it.
fn raw(daemon: &Daemon, request: &str) -> String {
    let mut stream = UnixStream::connect(daemon.socket()).expect("connected");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer
}

fn request(daemon: &Daemon, method: &str, path: &str, body: &str) -> String {
    let length = body.len();
    raw(
        daemon,
        &format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        ),
    )
}
