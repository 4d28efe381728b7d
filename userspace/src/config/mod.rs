//! `evenkeel.toml`: what it may say, and errors that name file, line and key.
//!
//! [`Config::parse`] is pure: text in, configuration or *all* mistakes out, one error a mistake. What only this host
//! can tell (does the interface exist?) is checked apart, by [`host::check`]. Nothing in the text can panic.
//!
//! ```toml
//! [[interface]]
//! name = "eth0"
//!
//! [[service]]
//! name = "echo"
//! address = "10.0.0.10:50051"
//! mode = "l4"                  # l4, l7 or auto
//! policy = "least_request"     # round_robin, least_request or p2c: for streams, in mode l7
//! forwarding = "nat"           # nat or dnat: for flows, in mode l4
//!
//! [service.health]             # without it backends are not checked
//! interval = "2s"
//!
//! [[service.backend]]
//! address = "10.0.1.1:50051"
//! weight = 1
//! ```

mod error;
mod health;
pub mod host;
mod l7;
mod parse;
mod reader;
mod service;
mod types;
mod values;

pub use error::{ConfigError, ConfigErrors};
pub use types::{
    Auto, Backend, Config, Daemon, Flows, Forwarding, HashChoice, HookChoice, Interface, Lines,
    Mode, Nat, Service, Sizes, XdpMode,
};
pub use values::{MAX_WEIGHT, backend_address, parse_duration};

use std::path::Path;

/// Where the daemon listens if the file does not say.
pub const DEFAULT_SOCKET: &str = "/run/evenkeel/control.sock";

impl Config {
    /// Reads and parses a file; host checks are not part of it.
    ///
    /// # Errors
    /// Every mistake in the file, or the one reason why it cannot be read.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let file = path.display().to_string();
        let bytes = std::fs::read(path).map_err(|error| {
            ConfigErrors::one(ConfigError {
                file: file.clone(),
                line: 1,
                key: String::new(),
                found: format!("a file that cannot be read ({error})"),
                allowed: "a readable TOML file".to_owned(),
            })
        })?;
        let text = String::from_utf8(bytes).map_err(|error| {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
            ConfigErrors::one(ConfigError {
                file: file.clone(),
                line,
                key: String::new(),
                found: "bytes that are not UTF-8".to_owned(),
                allowed: "TOML, which is UTF-8 text".to_owned(),
            })
        })?;
        Self::parse(&text, &file)
    }
}
