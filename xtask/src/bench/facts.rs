//! The host that the figures were taken on: `target/bench/host.json`, and a table in every report.
//!
//! Whatever is known to move figures is in it: kernel, processors, congestion control, what the virtual network cards
//! do by themselves, the JIT and the mitigations, the versions of the peers. What cannot be found out says so.

use std::{fs, path::Path, process::Command, time::SystemTime};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::{host::idle, store};
use crate::{
    lab::{Lab, Spec},
    shell, workspace,
};

/// CPUs that a quiet host may spend on its own.
const QUIET: f64 = 0.05;
/// Programs measured or measured with, and how each is asked for its version.
const PEERS: [(&str, &str); 11] = [
    ("haproxy", "-v"),
    ("nginx", "-v"),
    ("nghttpx", "--version"),
    ("nghttpd", "--version"),
    ("h2load", "--version"),
    ("wrk", "-v"),
    ("nft", "--version"),
    ("iperf3", "--version"),
    ("ip", "-V"),
    ("ethtool", "--version"),
    ("curl", "--version"),
];
/// The offloads that decide how many packets a stream of bytes becomes.
const OFFLOADS: [&str; 5] = [
    "tx-checksumming",
    "tcp-segmentation-offload",
    "generic-segmentation-offload",
    "generic-receive-offload",
    "large-receive-offload",
];

/// What is known of the host.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Facts {
    /// When the run began, UTC.
    pub date: String,
    /// The commit of the checkout, with `+` behind it where files had been changed.
    pub commit: String,
    /// Everything, in the order that it is shown in.
    pub facts: Vec<Fact>,
    /// What makes the figures worth less than they look.
    pub notes: Vec<String>,
}

/// One thing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Fact {
    /// What.
    pub name: String,
    /// How it is here.
    pub value: String,
}

/// What each record keeps of the host, as the next run of another scenario may be on another one: what decides figures
/// first, and the notes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Release of the kernel.
    pub kernel: String,
    /// Model of the processors.
    pub cpu: String,
    /// How many.
    pub cpus: String,
    /// Whether it is virtual.
    pub machine: String,
    /// What makes the figures worth less than they look.
    pub notes: Vec<String>,
}

impl Host {
    /// In words; that it is not known, of records that were stored without it.
    #[must_use]
    pub fn describe(&self) -> String {
        let Self {
            kernel,
            cpu,
            cpus,
            machine,
            notes: _,
        } = self;
        if kernel.is_empty() {
            return "a host that is not known".to_owned();
        }
        format!("{cpus} CPUs ({cpu}, {machine}), Linux {kernel}")
    }
}

impl Facts {
    /// What records keep of it.
    #[must_use]
    pub fn host(&self) -> Host {
        let known = |name: &str| self.get(name).unwrap_or_default().to_owned();
        Host {
            kernel: known("kernel"),
            cpu: known("CPU"),
            cpus: known("CPUs"),
            machine: known("machine"),
            notes: self.notes.clone(),
        }
    }

    /// Looks around. Makes a small lab to ask its links, and watches the host for two seconds.
    pub fn gather(quick: bool) -> Result<Self> {
        let mut facts = Self {
            date: now(),
            commit: commit(),
            ..Self::default()
        };
        facts.add("date", &facts.date.clone());
        facts.add("commit", &facts.commit.clone());
        facts.machine();
        facts.network();
        facts.add(
            "offloads of the lab's links",
            &offloads().unwrap_or_else(unknown),
        );
        facts.add("mitigations", &mitigations());
        facts.add("rustc", &version("rustc", "--version"));
        for (program, flag) in PEERS {
            facts.add(program, &version(program, flag));
        }
        if std::env::var_os("EVENKEEL_BIN").is_some() {
            facts.notes.push(
                "the evenkeel measured was named by EVENKEEL_BIN and need not be the release build of this commit"
                    .to_owned(),
            );
        }
        let busy = idle()?;
        facts.add("CPUs busy before the run", &format!("{busy:.2}"));
        if busy > QUIET {
            facts.notes.push(format!(
                "the host was not idle: other programs kept {busy:.2} CPUs busy before the run began, so times and costs are rough"
            ));
        }
        if quick {
            facts.notes.push(
                "a quick run: fewer points and rounds than a full one, so less sure intervals"
                    .to_owned(),
            );
        }
        Ok(facts)
    }

    /// Stores them.
    pub fn save(&self) -> Result<()> {
        let home = store::home()?;
        fs::create_dir_all(&home)?;
        fs::write(home.join("host.json"), serde_json::to_string_pretty(self)?)?;
        Ok(())
    }

    /// Those of the last run; nothing where there was none.
    pub fn load() -> Result<Self> {
        let path = store::home()?.join("host.json");
        match fs::read_to_string(&path) {
            Ok(text) => serde_json::from_str(&text)
                .with_context(|| format!("cannot make sense of {}", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }

    /// The value of the fact called `name`.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let fact = self.facts.iter().find(|fact| fact.name == name);
        fact.map(|fact| fact.value.as_str())
    }

    fn add(&mut self, name: &str, value: &str) {
        self.facts.push(Fact {
            name: name.to_owned(),
            value: value.to_owned(),
        });
    }

    fn machine(&mut self) {
        self.add("kernel", &read("/proc/sys/kernel/osrelease"));
        let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let field = |name: &str| {
            let line = cpus.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(": "))
                .map(|(_, value)| value)
        };
        self.add("CPU", field("model name").unwrap_or("unknown"));
        let count = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
        self.add("CPUs", &count.to_string());
        // Set by every hypervisor that follows the convention of CPUID leaf 1, ECX bit 31.
        let flags = field("flags").unwrap_or_default();
        let machine = match flags.split(' ').any(|flag| flag == "hypervisor") {
            true => "virtual",
            false => "not known to be virtual",
        };
        self.add("machine", machine);
        self.add("memory", &memory().unwrap_or_else(|| "unknown".to_owned()));
    }

    fn network(&mut self) {
        self.add(
            "congestion control",
            &format!(
                "{} (available: {})",
                read("/proc/sys/net/ipv4/tcp_congestion_control"),
                read("/proc/sys/net/ipv4/tcp_available_congestion_control")
            ),
        );
        // 1 is on, 2 on with a trace; see Documentation/admin-guide/sysctl/net.rst.
        let jit = match read("/proc/sys/net/core/bpf_jit_enable").as_str() {
            "0" => "off".to_owned(),
            "1" => "on".to_owned(),
            other => other.to_owned(),
        };
        self.add("BPF JIT", &jit);
        self.add(
            "BPF JIT hardening",
            &read("/proc/sys/net/core/bpf_jit_harden"),
        );
    }
}

/// The time, UTC, to the second.
#[must_use]
pub fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// The commit of the checkout, with `+` behind it where files have been changed.
#[must_use]
pub fn commit() -> String {
    let git = |arguments: &[&str]| {
        shell::capture(
            Command::new("git")
                .current_dir(workspace::root())
                .args(arguments),
        )
    };
    let Ok(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown (no git checkout)".to_owned();
    };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])
        .is_ok_and(|changes| !changes.trim().is_empty());
    format!("{}{}", commit.trim(), if changed { "+" } else { "" })
}

fn read(path: &str) -> String {
    fs::read_to_string(path)
        .map_or_else(|error| unknown(error.into()), |text| text.trim().to_owned())
}

#[expect(clippy::needless_pass_by_value, reason = "handed to `unwrap_or_else`")]
fn unknown(error: anyhow::Error) -> String {
    format!("unknown ({error:#})")
}

fn memory() -> Option<String> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kib: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(format!("{:.1} GiB", kib / f64::from(1 << 20)))
}

/// What the kernel says of itself where it is not simply unaffected.
fn mitigations() -> String {
    let directory = Path::new("/sys/devices/system/cpu/vulnerabilities");
    let Ok(entries) = fs::read_dir(directory) else {
        return "unknown".to_owned();
    };
    let mut found: Vec<String> = entries
        .flatten()
        .filter_map(|entry| {
            let state = fs::read_to_string(entry.path()).ok()?;
            let name = entry.file_name().to_string_lossy().into_owned();
            (state.trim() != "Not affected").then(|| format!("{name}: {}", state.trim()))
        })
        .collect();
    found.sort();
    if found.is_empty() {
        "none needed".to_owned()
    } else {
        found.join("; ")
    }
}

/// As `ethtool` says of a link made like those of every lab with [`crate::lab::Offloads::All`].
fn offloads() -> Result<String> {
    let lab = Lab::new(&Spec {
        backends: 1,
        ..Spec::default()
    })?;
    let printed = shell::capture(lab.client().command("ethtool").args(["-k", "eth0"]))?;
    let state = |name: &str| {
        printed.lines().find_map(|line| {
            let (found, state) = line.trim().split_once(": ")?;
            (found == name).then(|| format!("{name} {}", state.trim_end_matches(" [fixed]")))
        })
    };
    let found: Vec<String> = OFFLOADS.iter().filter_map(|name| state(name)).collect();
    Ok(format!("veth: {}", found.join(", ")))
}

/// The first line that says something with a digit in it, without the program's web address.
fn version(program: &str, flag: &str) -> String {
    let Some(path) = workspace::which(program) else {
        return "not on this machine".to_owned();
    };
    let Ok(output) = Command::new(path).arg(flag).output() else {
        return "does not run".to_owned();
    };
    // nginx answers on standard error, wrk with a failure.
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed);
    let line = printed
        .lines()
        .find(|line| line.chars().any(|c| c.is_ascii_digit()));
    let words = line.unwrap_or("says no version").split_whitespace();
    let words: Vec<&str> = words.take(8).filter(|word| !word.contains("://")).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there_is_said_to_be_missing() {
        assert_eq!(version("no-such-program-here", "-v"), "not on this machine");
    }

    #[test]
    fn the_time_is_utc_to_the_second() {
        assert!(now().ends_with('Z') && now().len() == "2026-01-01T00:00:00Z".len());
    }
}
