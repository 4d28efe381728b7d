//! What the guest printed on its serial console: sections, one for each command, between marker lines.
//!
//! ```text
//! @@ begin NAME      the command starts
//! ...                its standard output
//! @@ errors NAME     it ended
//! ...                its standard error
//! @@ end NAME STATUS
//! ```
//!
//! All else is the firmware's or the kernel's, and is left to the reader of the log. A kernel that dies leaves its last
//! section open; a console may garble anything: nothing here trusts what it reads.

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

/// One command of the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Section {
    name: String,
    output: String,
    errors: String,
    /// Exit status; `None` if the guest never came so far.
    status: Option<i32>,
}

/// All that the guest did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Console {
    sections: Vec<Section>,
}

/// A marker line.
enum Marker<'a> {
    Begin(&'a str),
    Errors(&'a str),
    End(&'a str, i32),
}

// === impl Marker ===

impl<'a> Marker<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let words: Vec<&str> = line.strip_prefix("@@ ")?.split(' ').collect();
        match words[..] {
            ["begin", name] => Some(Self::Begin(name)),
            ["errors", name] => Some(Self::Errors(name)),
            ["end", name, status] => Some(Self::End(name, status.parse().ok()?)),
            _ => None,
        }
    }
}

// === impl Console ===

impl Console {
    /// Takes a serial log apart.
    pub(super) fn parse(log: &str) -> Self {
        let mut sections: Vec<Section> = Vec::new();
        let mut in_errors = false;
        for line in log.lines() {
            let line = line.trim_end_matches('\r');
            let open = sections.last_mut().filter(|it| it.status.is_none());
            match (Marker::of(line), open) {
                (Some(Marker::Begin(name)), _) => {
                    in_errors = false;
                    sections.push(Section {
                        name: name.to_owned(),
                        ..Section::default()
                    });
                }
                (Some(Marker::Errors(name)), Some(open)) if open.name == name => in_errors = true,
                (Some(Marker::End(name, status)), Some(open)) if open.name == name => {
                    open.status = Some(status);
                }
                (_, Some(open)) => {
                    let text = if in_errors {
                        &mut open.errors
                    } else {
                        &mut open.output
                    };
                    text.push_str(line);
                    text.push('\n');
                }
                (_, None) => {}
            }
        }
        Self { sections }
    }

    /// What the guest does, or did last.
    pub(super) fn last(&self) -> Option<&str> {
        self.sections.last().map(|it| it.name.as_str())
    }

    /// Whether the guest ended before it came to `name`: that it ended says all.
    pub(super) fn ended_before(&self, name: &str) -> bool {
        let came_to = |name| self.sections.iter().any(|it| it.name == name);
        !came_to("end") && !came_to(name)
    }

    /// What `name` printed, if it succeeded; else why not, in its own words.
    pub(super) fn output(&self, name: &str) -> Result<&str> {
        let section = self
            .sections
            .iter()
            .find(|it| it.name == name)
            .with_context(|| match self.last() {
                Some(last) => format!("the guest never came to `{name}`; it ended in `{last}`"),
                None => format!("the guest never came to `{name}`: it did not start"),
            })?;
        match section.status {
            Some(0) => Ok(section.output.trim_end()),
            Some(status) => {
                let said = [&section.errors, &section.output]
                    .into_iter()
                    .find_map(|text| text.trim_end().lines().last())
                    .unwrap_or("it said nothing");
                bail!("`{name}` failed with status {status}: {said}")
            }
            None => bail!("`{name}` never ended"),
        }
    }

    /// The JSON document that `name` printed even if it failed: some commands fail to say that what they report is bad.
    pub(super) fn json_of_any(&self, name: &str) -> Result<Value> {
        let section = self.sections.iter().find(|it| it.name == name);
        let document = section
            .filter(|it| it.status.is_some())
            .and_then(|it| serde_json::from_str(&it.output).ok());
        document.map_or_else(|| self.json(name), Ok)
    }

    /// The JSON document that `name` printed.
    pub(super) fn json(&self, name: &str) -> Result<Value> {
        let printed = self.output(name)?;
        serde_json::from_str(printed).with_context(|| format!("`{name}` printed no JSON"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
SeaBIOS (version 1.16)\r
[    0.1] early words of the kernel\r
@@ begin kernel\r
6.1.0-56-cloud-amd64\r
@@ errors kernel\r
@@ end kernel 0\r
between the sections\r
@@ begin check\r
{\r
  \"findings\": []\r
}\r
@@ errors check\r
@@ end check 0\r
@@ begin tc/l4/load\r
{\"ok\": 3}\r
@@ errors tc/l4/load\r
first\r
evenkeel: 1 of 4 requests failed\r
@@ end tc/l4/load 1\r
@@ begin tc/stop\r
half a li";

    fn said(result: Result<impl std::fmt::Debug>) -> String {
        format!("{:#}", result.expect_err("an error"))
    }

    #[test]
    fn sections_are_found_among_what_firmware_and_kernel_print() {
        let console = Console::parse(LOG);
        assert_eq!(console.output("kernel").ok(), Some("6.1.0-56-cloud-amd64"));
        let findings = console.json("check").ok().map(|it| it["findings"].clone());
        assert_eq!(findings, Some(serde_json::json!([])));
        assert_eq!(console.last(), Some("tc/stop"));
    }

    #[test]
    fn a_command_that_failed_says_why() {
        let said = said(Console::parse(LOG).json("tc/l4/load"));
        assert!(said.contains("status 1: evenkeel: 1 of 4"), "{said}");
    }

    #[test]
    fn what_never_ended_and_what_never_began_are_told_apart() {
        let console = Console::parse(LOG);
        assert!(said(console.output("tc/stop")).contains("never ended"));
        let missing = said(console.output("end"));
        assert!(missing.contains("never came to `end`"), "{missing}");
        assert!(missing.contains("`tc/stop`"), "{missing}");
        assert!(said(Console::parse("").output("end")).contains("did not start"));
    }

    #[test]
    fn garbled_markers_end_nothing() {
        for garbled in [
            "@@ end a",
            "@@ end a x",
            "@@ end b 0",
            "@@ end  a 0",
            "@@ errors b",
        ] {
            let console = Console::parse(&format!("@@ begin a\n{garbled}\n"));
            assert!(
                said(console.output("a")).contains("never ended"),
                "{garbled}"
            );
        }
        assert_eq!(Console::parse("@@ end a 0\n@@\n@@ \n"), Console::default());
    }

    #[test]
    fn a_section_that_is_cut_off_leaves_the_next_one_whole() {
        let console = Console::parse("@@ begin a\nx\n@@ begin b\ny\n@@ end b 0\n");
        assert!(console.output("a").is_err());
        assert_eq!(console.output("b").ok(), Some("y"));
    }
}
