//! Does evenkeel work on this kernel? What must hold, from what the guest printed:
//!
//! 1. it is the kernel that was meant, and the guest came to its end;
//! 2. every check of `evenkeel check` is ok, and the tc hook is tcx where the kernel has that (6.6, e420bed02507), else
//!    clsact;
//! 3. on either hook, in both modes: no request failed, and the kernel counted as many streams for every backend, and
//!    for the service, as the client got answers from it;
//! 4. the daemon ended as it should;
//! 5. `evenkeel observe` saw as many streams as the client opened.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use serde_json::Value;

use super::{console::Console, version::Kernel};

/// Backends of the guest, by address.
const BACKENDS: [(&str, &str); 2] = [("10.9.1.2:50051", "b1"), ("10.9.2.2:50051", "b2")];
/// The hooks that the guest tries, in this order.
const HOOKS: [&str; 2] = ["tc", "xdp"];

/// What one kernel came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Verdict {
    /// As `uname -r` prints it.
    pub(super) kernel: String,
    /// Whether all of the above holds.
    pub(super) passed: bool,
    /// Checks of `evenkeel check` that are ok, and all of them.
    pub(super) checks: (usize, usize),
    /// By hook and mode.
    pub(super) passes: Vec<Pass>,
    /// Streams that the client opened, and those that `evenkeel observe` saw.
    pub(super) observed: Option<(u64, u64)>,
    /// What does not hold, in words.
    pub(super) objections: Vec<String>,
    /// How long the guest ran.
    pub(super) seconds: f64,
    /// The serial log.
    pub(super) log: String,
}

/// The same requests on one hook.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct Pass {
    /// `tc` or `xdp`.
    pub(super) hook: &'static str,
    /// How the programs are attached: `tcx`, `clsact`, `native`.
    pub(super) attached: String,
    /// In mode `l4`; absent where there is nothing to compare.
    pub(super) l4: Option<Counted>,
    /// In mode `l7`.
    pub(super) l7: Option<Counted>,
}

/// Two counts of the same requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Counted {
    /// Requests that failed.
    pub(super) failed: u64,
    /// Answers by backend, as the client got them.
    pub(super) client: BTreeMap<String, u64>,
    /// Streams by backend, as the kernel counted them.
    pub(super) kernel: BTreeMap<String, u64>,
    /// Streams of the service, as the kernel counted them.
    pub(super) service: u64,
}

/// The kernel's counters at one time; they only grow.
#[derive(Default)]
struct Counters {
    backends: BTreeMap<String, u64>,
    service: u64,
}

/// Judges what `console` shows; `ending` is why the guest ended otherwise than by itself.
pub(super) fn judge(kernel: &Kernel, console: &Console, ending: Option<String>) -> Verdict {
    let mut objections: Vec<String> = ending.into_iter().collect();
    let mut note = |what: &str, outcome: Result<()>| {
        if let Err(error) = outcome {
            objections.push(format!("{what}: {error:#}"));
        }
    };
    note("guest", guest(kernel, console));
    let mut checks = (0, 0);
    if !console.ended_before("check") {
        note("check", count_checks(kernel, console, &mut checks));
    }
    let mut passes = Vec::new();
    for hook in HOOKS {
        let mut pass = Pass {
            hook,
            attached: String::new(),
            l4: None,
            l7: None,
        };
        if !console.ended_before(&format!("{hook}/start")) {
            note(hook, compare(console, &mut pass));
            // A daemon that never was is attached nowhere, and need not be told to stop.
            if console.output(&format!("{hook}/start")).is_ok() {
                note(hook, attached(kernel, console, &mut pass));
                note(hook, console.output(&format!("{hook}/stop")).map(drop));
            }
        }
        passes.push(pass);
    }
    let mut observed = None;
    if !console.ended_before("observe/start") {
        note("observe", observe(console, &mut observed));
    }
    Verdict {
        kernel: kernel.release.clone(),
        passed: objections.is_empty(),
        checks,
        passes,
        observed,
        objections,
        seconds: 0.0,
        log: String::new(),
    }
}

fn guest(kernel: &Kernel, console: &Console) -> Result<()> {
    let release = console.output("kernel")?;
    ensure!(release == kernel.release, "Linux {release} booted");
    for section in ["modules", "network", "b1", "b2", "end"] {
        console.output(section)?;
    }
    Ok(())
}

/// tcx came with Linux 6.6 (e420bed02507).
fn has_tcx(kernel: &Kernel) -> bool {
    kernel.at_least(6, 6)
}

fn count_checks(kernel: &Kernel, console: &Console, checks: &mut (usize, usize)) -> Result<()> {
    let report = console.json_of_any("check")?;
    let findings = report["findings"].as_array().context("no findings")?;
    let ok = |finding: &&Value| finding["status"] == "ok";
    *checks = (findings.iter().filter(ok).count(), findings.len());
    ensure!(!findings.is_empty(), "nothing was checked");
    let wrong: Vec<String> = findings
        .iter()
        .filter(|finding| !ok(finding))
        .map(|finding| format!("{}: {}", text(finding, "name"), text(finding, "found")))
        .collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    console.output("check")?;
    let tcx = findings.iter().find(|it| it["name"] == "tcx");
    let found = tcx.map(|it| text(it, "found")).context("tcx not tried")?;
    ensure!(
        (found == "works") == has_tcx(kernel),
        "tcx {found}, where it came with Linux 6.6"
    );
    Ok(())
}

/// The counts of both modes, one after the other: what was counted before is no part of what is counted now.
fn compare(console: &Console, pass: &mut Pass) -> Result<()> {
    let hook = pass.hook;
    if let Err(error) = console.output(&format!("{hook}/start")) {
        // The daemon's last words say more than that it does not answer.
        let log = console.output(&format!("{hook}/log")).unwrap_or_default();
        let last = log.lines().last().unwrap_or("nothing");
        return Err(error.context(format!("the daemon did not start; it said: {last}")));
    }
    let mut before = Counters::default();
    for (mode, place) in [("l4", &mut pass.l4), ("l7", &mut pass.l7)] {
        console.output(&format!("{hook}/{mode}/mode"))?;
        let now = Counters::read(console, hook, mode)?;
        let load = console.json(&format!("{hook}/{mode}/load"))?;
        let counted = Counted {
            failed: number(&load, "failed")?,
            client: serde_json::from_value(load["per_backend"].clone())
                .context("no answers by backend")?,
            kernel: now.since(&before),
            service: now.service.saturating_sub(before.service),
        };
        let objection = counted.objection();
        *place = Some(counted);
        ensure!(
            objection.is_none(),
            "{mode}: {}",
            objection.unwrap_or_default()
        );
        before = now;
    }
    Ok(())
}

fn attached(kernel: &Kernel, console: &Console, pass: &mut Pass) -> Result<()> {
    let status = console.json(&format!("{}/status", pass.hook))?;
    let attachments = status["attachments"].as_array().context("no attachments")?;
    let mut modes: Vec<&str> = attachments
        .iter()
        .filter(|it| text(it, "hook").split(' ').next() == Some(pass.hook))
        .map(|it| text(it, "mode"))
        .collect();
    modes.sort_unstable();
    modes.dedup();
    pass.attached = modes.join(", ");
    let expected = match pass.hook {
        "xdp" => "native",
        _ if has_tcx(kernel) => "tcx",
        _ => "clsact",
    };
    ensure!(
        pass.attached == expected,
        "attached as `{}`, where it should be {expected}",
        pass.attached
    );
    Ok(())
}

fn observe(console: &Console, observed: &mut Option<(u64, u64)>) -> Result<()> {
    console.output("observe/start")?;
    let load = console.json("observe/load")?;
    console.output("observe/stop")?;
    let report = console.json("observe/report")?;
    let groups = report["groups"].as_array().context("no groups")?;
    let seen = groups
        .iter()
        .map(|group| number(group, "streams"))
        .sum::<Result<u64>>()?;
    let opened = number(&load, "streams")?;
    *observed = Some((opened, seen));
    ensure!(seen == opened, "saw {seen} of {opened} streams");
    Ok(())
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_default()
}

fn number(value: &Value, key: &str) -> Result<u64> {
    value[key]
        .as_u64()
        .with_context(|| format!("no number `{key}`"))
}

// === impl Counters ===

impl Counters {
    /// What was read after the requests in `mode`, if they were in that mode.
    fn read(console: &Console, hook: &str, mode: &str) -> Result<Self> {
        let mut counters = Self::default();
        let backends = console.json(&format!("{hook}/{mode}/backends"))?;
        for backend in backends["backends"].as_array().context("no backends")? {
            let address = text(backend, "address");
            let known = BACKENDS.iter().find(|(it, _)| *it == address);
            let name = known.map_or(address, |(_, name)| name);
            let streams = number(backend, "streams")?;
            counters.backends.insert(name.to_owned(), streams);
        }
        let services = console.json(&format!("{hook}/{mode}/services"))?;
        let service = &services["services"][0];
        ensure!(
            service["mode"] == mode,
            "the service was not in mode {mode}"
        );
        counters.service = number(&service["counters"], "streams")?;
        Ok(counters)
    }

    /// What came since `before`, without backends that got nothing: clients do not list those.
    fn since(&self, before: &Self) -> BTreeMap<String, u64> {
        let grown = |(name, now): (&String, &u64)| {
            let before = before.backends.get(name).copied().unwrap_or(0);
            (name.clone(), now.saturating_sub(before))
        };
        let grown = self.backends.iter().map(grown);
        grown.filter(|(_, streams)| *streams > 0).collect()
    }
}

// === impl Counted ===

impl Counted {
    /// Answers that the client got.
    pub(super) fn answers(&self) -> u64 {
        self.client.values().sum()
    }

    /// Streams that the kernel counted.
    pub(super) fn streams(&self) -> u64 {
        self.kernel.values().sum()
    }

    /// What is wrong with the counts, if anything.
    fn objection(&self) -> Option<String> {
        if self.failed > 0 {
            Some(format!("{} requests failed", self.failed))
        } else if self.answers() == 0 {
            Some("nothing was answered".to_owned())
        } else if self.client != self.kernel {
            Some(format!(
                "the kernel counted {:?} where the client got {:?}",
                self.kernel, self.client
            ))
        } else if self.service != self.answers() {
            Some(format!(
                "the service counted {} of {} streams",
                self.service,
                self.answers()
            ))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests;
