//! Asking evenkeel what it can do, so that a scenario measures it from the day it can: a table that says `not yet` fills
//! itself, by the code that measures everything else in it.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{lab::Lab, shell, workspace};

/// Whether `evenkeel check` takes `config` without a word about `key`. What else is wrong with it is a mistake of ours,
/// and an error.
pub(super) fn accepts(lab: &Lab, name: &str, config: &str, key: &str) -> Result<bool> {
    let file = lab.directory().join(format!("probe-{name}.toml"));
    fs::write(&file, config)?;
    // Without privileges it does not try hooks, which takes seconds and says nothing of the configuration.
    let mut check = lab.balancer().command("setpriv");
    check
        .args(["--bounding-set=-all", "--inh-caps=-all"])
        .arg(workspace::evenkeel()?)
        .args(["--json", "check", "--config"])
        .arg(&file);
    // It fails where there are mistakes, and tells them all the same.
    let output = check.output()?;
    verdict(&output.stdout, key).with_context(|| {
        let errors = String::from_utf8_lossy(&output.stderr);
        format!("{}: {errors}", shell::describe(&check))
    })
}

fn verdict(report: &[u8], key: &str) -> Result<bool> {
    let report: Value = serde_json::from_slice(report).context("no JSON")?;
    let mistakes = report["mistakes"].as_array().context("no mistakes")?;
    let (about, others): (Vec<&Value>, Vec<&Value>) =
        mistakes.iter().partition(|mistake| mistake["key"] == key);
    ensure!(others.is_empty(), "{others:?}");
    Ok(about.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_about_the_key_is_a_no_and_about_another_an_error() {
        let ask = |report: &str| verdict(report.as_bytes(), "service.hash");
        assert_eq!(ask(r#"{"mistakes":[]}"#).ok(), Some(true));
        let no = r#"{"mistakes":[{"key":"service.hash"}]}"#;
        assert_eq!(ask(no).ok(), Some(false));
        let ours = r#"{"mistakes":[{"key":"service.hash"},{"key":"interface.name"}]}"#;
        for unknown in [ours, r#"{"findings":[]}"#, "evenkeel: no such file"] {
            assert!(ask(unknown).is_err(), "{unknown}");
        }
    }
}
