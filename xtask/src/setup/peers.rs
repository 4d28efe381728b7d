//! The rivals that benchmarks compare evenkeel with. None of them is needed for anything else: where one cannot be
//! had, the tables name it instead of a figure.

use std::fs;

use anyhow::Result;

use super::{collect, debian, programs};
use crate::workspace;

/// Programs, and the Debian packages that bring them.
const PROGRAMS: &[(&str, &str)] = &[
    ("nft", "nftables"),
    ("haproxy", "haproxy"),
    ("nginx", "nginx"),
    ("nghttpx", "nghttp2-proxy"),
];
/// Where Debian's libnginx-mod-stream puts nginx's stream module; a nginx from elsewhere may have it built in.
const NGINX_STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

/// Finds or installs all of them.
pub fn provide() -> Result<()> {
    let found = programs(PROGRAMS);
    let module = nginx_stream();
    collect(
        "cannot provide every peer of the benchmarks",
        [found.as_ref().err(), module.as_ref().err()],
    )
}

fn nginx_stream() -> Result<()> {
    if fs::exists(NGINX_STREAM)? || !debian::is_debian() {
        return Ok(());
    }
    debian::install(&["libnginx-mod-stream"])
}

/// The file of nginx's stream module, if it is one of its own.
#[must_use]
pub fn nginx_stream_module() -> Option<&'static str> {
    fs::exists(NGINX_STREAM)
        .unwrap_or(false)
        .then_some(NGINX_STREAM)
}

/// What to say of `program` where it is not on this machine.
#[must_use]
pub fn missing(program: &str) -> Option<String> {
    workspace::which(program)
        .is_none()
        .then(|| format!("no {program} here: run `cargo xtask setup --peers`"))
}
