//! The demo as its users run it: it passes, alone and beside another, is gone after Ctrl-C, and stays where it was asked
//! to stay. Needs root and the release binary of evenkeel (`cargo xtask build`).

use std::{
    fs,
    os::unix::{fs::MetadataExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use nix::{
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};
use serde_json::Value;
use xtask::shell;

/// How long something may take to become true; nothing waits that long when all is well.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running `cargo xtask demo --no-build --json`, and the lab that it makes. Interrupted where a test gives up.
struct Demo {
    child: Option<Child>,
    pid: Pid,
    /// What all namespaces, and the directory, of its first lab are called after.
    id: String,
}

impl Demo {
    /// In a process group of its own, as a shell would start it.
    fn start(arguments: &[&str]) -> Result<Self> {
        let mut demo = Command::new(env!("CARGO_BIN_EXE_xtask"));
        demo.args(["demo", "--no-build", "--json"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let child = demo.spawn()?;
        Ok(Self {
            pid: Pid::from_raw(i32::try_from(child.id())?),
            id: format!("ek{}x0", child.id()),
            child: Some(child),
        })
    }

    fn lab(&self) -> Finished {
        Finished {
            id: self.id.clone(),
        }
    }

    fn finish(mut self) -> Result<(Finished, Output)> {
        let child = self.child.take().context("it has been waited for")?;
        Ok((self.lab(), child.wait_with_output()?))
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // Gone already is as good.
            let _ = kill(self.pid, Signal::SIGINT);
            let _ = child.wait();
        }
    }
}

/// What may be left of a demo.
struct Finished {
    id: String,
}

impl Finished {
    fn directory(&self) -> PathBuf {
        Path::new("/run/evenkeel-lab").join(&self.id)
    }

    fn namespace(&self, role: &str) -> PathBuf {
        Path::new("/run/netns").join(format!("{}-{role}", self.id))
    }

    /// Namespaces of the lab that have a name, and with it all links in them: a veth goes with its namespace.
    fn namespaces(&self) -> Result<Vec<String>> {
        let entries = fs::read_dir("/run/netns")?.flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        Ok(names.filter(|name| name.starts_with(&self.id)).collect())
    }

    /// Fails unless namespaces with their links, the mount with the pins, files, and processes are all gone.
    fn left_nothing(&self) -> Result<()> {
        let namespaces = self.namespaces()?;
        ensure!(namespaces.is_empty(), "left behind: {namespaces:?}");
        ensure!(!self.directory().exists(), "files were left behind");
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        ensure!(!mounts.contains(&self.id), "pins were left behind");
        let processes = processes(|process| writes_to(process, &self.id));
        ensure!(processes.is_empty(), "left behind: {processes:?}");
        Ok(())
    }
}

/// Command lines of the processes of which `has` is true.
fn processes(has: impl Fn(&Path) -> bool) -> Vec<String> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter(|process| has(&process.path()))
        .filter_map(|process| fs::read(process.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .collect()
}

/// Whether `process` is in one of the network namespaces of these `inodes`.
fn lives_in(process: &Path, inodes: &[u64]) -> bool {
    fs::metadata(process.join("ns/net")).is_ok_and(|it| inodes.contains(&it.ino()))
}

/// Whether `process` writes to a file of lab `id`, as daemon and backends do, removed or not.
fn writes_to(process: &Path, id: &str) -> bool {
    let log = fs::read_link(process.join("fd/2"));
    log.is_ok_and(|log| log.to_string_lossy().contains(id))
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) -> Result<()> {
    let begun = Instant::now();
    while !holds() {
        ensure!(begun.elapsed() < PATIENCE, "not in {PATIENCE:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// The report of a demo that passed.
fn passed(output: &Output) -> Result<Value> {
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {errors}", output.status);
    let report: Value = serde_json::from_slice(&output.stdout)
        .with_context(|| format!("no JSON document alone on standard output; {errors}"))?;
    ensure!(report["passed"] == true, "{report}");
    Ok(report)
}

/// Scene 1 is 8,000 RPCs at l4, then 8,000 at l7, counted by three parties.
fn three_counts_agree(report: &Value) -> Result<()> {
    ensure!(report["scenes"].as_array().map(Vec::len) == Some(1));
    let phases = report["scenes"][0]["phases"].as_array().context("phases")?;
    let modes: Vec<_> = phases.iter().map(|phase| &phase["mode"]).collect();
    ensure!(modes == ["l4", "l7"], "{modes:?}");
    for phase in phases {
        let counted = &phase["counted"];
        for party in ["kernel", "backends", "client"] {
            ensure!(counted[party]["total"] == 8000, "{party}: {phase}");
            ensure!(counted[party] == counted["client"], "{party}: {phase}");
        }
        ensure!(phase["failed"] == 0, "{phase}");
    }
    Ok(())
}

#[test]
fn two_demos_at_once_both_pass_with_three_equal_counts_and_leave_nothing() -> Result<()> {
    let demos = [
        Demo::start(&["--scene", "1"])?,
        Demo::start(&["--scene", "1"])?,
    ];
    for demo in demos {
        let (finished, output) = demo.finish()?;
        three_counts_agree(&passed(&output)?)?;
        finished.left_nothing()?;
    }
    Ok(())
}

/// A terminal sends SIGINT to all that runs in its foreground, `kill -INT` to one process.
#[test]
fn an_interrupted_demo_leaves_no_namespace_link_process_or_pin() -> Result<()> {
    for at_a_terminal in [false, true] {
        let demo = Demo::start(&["--scene", "4"])?;
        let lab = demo.lab();
        let inode = |role: &str| fs::metadata(lab.namespace(role)).map_or(0, |it| it.ino());
        // The driver sends for nine seconds: this is the middle.
        eventually("traffic runs", || {
            let client = [inode("client")];
            let inside = processes(|process| lives_in(process, &client));
            inside.iter().any(|line| line.contains(" load "))
        })?;
        let pins = lab.directory().join("bpf/evenkeel");
        ensure!(fs::read_dir(&pins)?.count() > 0, "nothing is pinned");
        let inodes = ["client", "balancer", "backend1", "backend4"].map(inode);
        // Daemon, driver and backends.
        let inside = || processes(|process| lives_in(process, &inodes));
        ensure!(inside().len() >= 4, "{:?}", inside());

        if at_a_terminal {
            killpg(demo.pid, Signal::SIGINT)?;
        } else {
            kill(demo.pid, Signal::SIGINT)?;
        }
        let (finished, output) = demo.finish()?;
        let errors = String::from_utf8_lossy(&output.stderr);
        // 128 + SIGINT, as shells have it.
        ensure!(output.status.code() == Some(130), "{errors}");
        finished.left_nothing()?;
        ensure!(inside().is_empty(), "left behind: {:?}", inside());
    }
    Ok(())
}

#[test]
fn a_kept_demo_serves_until_it_is_cleaned_away() -> Result<()> {
    let (lab, output) = Demo::start(&["--scene", "1", "--keep"])?.finish()?;
    passed(&output)?;
    let told = String::from_utf8_lossy(&output.stderr);
    let clean = ["lab", "clean", &lab.id];
    for wanted in ["nsenter --net=", &clean.join(" "), " pinning"] {
        ensure!(told.contains(wanted), "nothing of {wanted}: {told}");
    }
    // Every service that it tells of, not only that of the scene played.
    let services: Vec<&str> = told
        .split_whitespace()
        .filter(|word| word.starts_with("10.79."))
        .collect();
    ensure!(services.len() == 5, "{told}");
    for service in services {
        let mut curl = Command::new("nsenter");
        curl.arg(format!("--net={}", lab.namespace("client").display()))
            .args(["curl", "--silent", "--show-error", "--fail"])
            .args(["--max-time", "10", &format!("http://{service}/")]);
        shell::capture(&mut curl)?;
    }
    shell::capture(Command::new(env!("CARGO_BIN_EXE_xtask")).args(clean))?;
    lab.left_nothing()
}
