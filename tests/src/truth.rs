//! What byte-level clients say they sent: the truth that the kernel's counts are held against.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xtask::shell;

use crate::{Counts, Stage};

/// What a client opened, all of which was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truth {
    /// Streams.
    pub streams: u64,
    /// Connections.
    pub connections: u64,
    /// Segments with payload, of clients that make them themselves.
    pub segments: u64,
    /// Stream ids below the highest that it did not use.
    pub left_out: u64,
}

impl Truth {
    fn parse(printed: &Value) -> Result<Self> {
        let number = |key: &str| {
            printed[key]
                .as_u64()
                .with_context(|| format!("no number `{key}` in {printed}"))
        };
        let truth = Self {
            streams: number("streams")?,
            connections: number("connections")?,
            segments: number("segments")?,
            left_out: number("left_out")?,
        };
        ensure!(
            number("answered")? == truth.streams && truth.streams > 0,
            "not every request was answered: {printed}"
        );
        Ok(truth)
    }

    /// Kernel, backends and client agree: backend by backend, on streams and on flows.
    pub fn is_counted_by(&self, counts: &Counts) -> Result<()> {
        counts.agree_on(self.streams)?;
        let flows: u64 = counts.flows_opened.values().sum();
        ensure!(
            flows == self.connections,
            "{} connections are {flows} flows: {counts:?}",
            self.connections
        );
        Ok(())
    }
}

impl Stage {
    /// Runs a case of `clients/segments.py`, which makes TCP segments itself, and gives what it sent.
    pub fn segments(&self, case: &str, seed: u32) -> Result<Truth> {
        // The client's kernel knows nothing of these connections and would reset them.
        shell::feed(
            self.client("nft").args(["-f", "-"]),
            "table ip raw_client {\nchain output { type filter hook output priority 0; \
             tcp flags & rst == rst drop; }\n}\n",
        )?;
        let printed = self.script("segments.py", &[&self.target(), case, &seed.to_string()]);
        shell::feed(
            self.client("nft").args(["-f", "-"]),
            "delete table ip raw_client\n",
        )?;
        Truth::parse(&printed?)
    }

    /// Runs a case of `clients/frames.py`, which makes HTTP/2 frames itself, and gives what it sent.
    pub fn frames(&self, case: &str) -> Result<Truth> {
        Truth::parse(&self.script("frames.py", &[&self.target(), case])?)
    }
}
