//! Nothing of a lab outlives its run: removal on drop, on Ctrl-C, and later where the run was killed.
//!
//! A lab is ours to remove only if its directory names the process that made it and that process is gone. A process
//! id alone proves nothing, it may have been given out again; together with the start time it does.

use std::{
    fmt::Display,
    fs,
    io::{self, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    process::{Child, Command},
    sync::{Mutex, MutexGuard, Once, PoisonError},
};

use anyhow::{Context as _, Result};
use rustix::process::Pid;

use super::{
    HOME,
    namespace::NAMES,
    packets,
    stop::{Running, stop},
};
use crate::shell;

/// Exit code after Ctrl-C: 128 + SIGINT, as shells have it.
const INTERRUPTED: i32 = 130;

/// A lab of this process.
struct Ours {
    id: String,
    /// What was started for it, less most of what has ended since.
    started: Vec<Running>,
}

/// Labs of this process that exist and are not kept.
static LABS: Mutex<Vec<Ours>> = Mutex::new(Vec::new());
/// Held while a lab is made or removed and while a program is started for it, so that Ctrl-C never meets half a lab.
static CHANGING: Mutex<()> = Mutex::new(());

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn changing() -> MutexGuard<'static, ()> {
    lock(&CHANGING)
}

/// Makes the lab's directory with the proof of ownership in it, and sees to it that Ctrl-C removes the lab.
pub(super) fn register(id: &str) -> Result<()> {
    static HANDLER: Once = Once::new();
    HANDLER.call_once(|| {
        // A program that has its own handler keeps it; then only `clean` helps after a Ctrl-C.
        let _ = ctrlc::set_handler(|| {
            let _changing = changing();
            say("\ninterrupted: removing the lab");
            for lab in lock(&LABS).drain(..) {
                take_away(&lab.id, lab.started);
            }
            std::process::exit(INTERRUPTED);
        });
    });
    let directory = Path::new(HOME).join(id);
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let pid = std::process::id();
    let started = start_time(pid).context("cannot read our own start time from /proc")?;
    fs::write(owner(id), format!("{pid} {started}"))?;
    lock(&LABS).push(Ours {
        id: id.to_owned(),
        started: Vec::new(),
    });
    Ok(())
}

/// Starts a program for the lab; it ends with the lab at the latest.
pub(super) fn spawn(id: &str, command: &mut Command) -> Result<Child> {
    let _changing = changing();
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot run: {}", shell::describe(command)))?;
    if let Some(lab) = lock(&LABS).iter_mut().find(|lab| lab.id == id) {
        match Running::new(Pid::from_child(&child)) {
            Ok(process) => {
                lab.started.retain(|process| !process.has_ended());
                lab.started.push(process);
            }
            Err(error) => {
                child.kill()?;
                child.wait()?;
                return Err(error).context("cannot keep an eye on a program");
            }
        }
    }
    Ok(child)
}

/// Takes the lab out of the care of this process.
pub(super) fn keep(id: &str) -> Result<()> {
    let _ = take_out(id);
    fs::write(owner(id), "kept")?;
    Ok(())
}

/// Removes a lab of this process.
pub(super) fn remove(id: &str) {
    let _changing = changing();
    let started = take_out(id).map(|lab| lab.started);
    take_away(id, started.unwrap_or_default());
}

fn take_out(id: &str) -> Option<Ours> {
    let mut labs = lock(&LABS);
    let index = labs.iter().position(|lab| lab.id == id)?;
    Some(labs.swap_remove(index))
}

/// Which leftovers [`clean`] removes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leftovers {
    /// Labs whose process is gone.
    Abandoned,
    /// Those, and the ones that were kept on purpose.
    AlsoKept,
}

/// Removes labs that nobody looks after any more, of those `named` where any is; returns the names of what went.
pub fn clean(which: Leftovers, named: &[String]) -> Result<Vec<String>> {
    let mut removed = Vec::new();
    for id in packets::abandoned() {
        if named.is_empty() || named.contains(&id) {
            packets::remove(&id);
            removed.push(id);
        }
    }
    let entries = match fs::read_dir(HOME) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(removed),
        Err(error) => return Err(error).with_context(|| format!("cannot read {HOME}")),
    };
    for entry in entries {
        let id = entry?.file_name().to_string_lossy().into_owned();
        if !named.is_empty() && !named.contains(&id) {
            continue;
        }
        let Ok(owner) = fs::read_to_string(owner(&id)) else {
            continue;
        };
        let ours = match owner.split_once(' ') {
            Some((pid, started)) => pid
                .parse()
                .is_ok_and(|pid: u32| start_time(pid).as_deref() != Some(started)),
            None => owner == "kept" && which == Leftovers::AlsoKept,
        };
        if ours {
            take_away(&id, Vec::new());
            removed.push(id);
        }
    }
    Ok(removed)
}

fn owner(id: &str) -> PathBuf {
    Path::new(HOME).join(id).join("owner")
}

/// When process `pid` began, in clock ticks since boot: field 22 of /proc/PID/stat, see proc(5).
pub(super) fn start_time(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, field 2, may hold spaces and brackets; it ends at the last bracket.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19).map(str::to_owned)
}

/// Processes first, then the namespaces, then mounts and files. Does as much as it can and says what it could not.
pub(super) fn take_away(id: &str, started: Vec<Running>) {
    let namespaces = namespaces(id);
    let inodes: Vec<u64> = namespaces.iter().map(|(_, inode)| *inode).collect();
    stop(started, &inodes);
    for (name, _) in &namespaces {
        complain(shell::capture(
            Command::new("ip").args(["netns", "delete", name]),
        ));
    }
    let directory = Path::new(HOME).join(id);
    let bpffs = directory.join("bpf");
    if is_mount_point(&bpffs) {
        complain(
            shell::capture(Command::new("umount").arg(&bpffs)).or_else(|_| {
                // Somebody looks at it; it goes away with him.
                shell::capture(Command::new("umount").arg("--lazy").arg(&bpffs))
            }),
        );
    }
    if let Err(error) = fs::remove_dir_all(&directory)
        && error.kind() != io::ErrorKind::NotFound
    {
        say(format!("cannot remove {}: {error}", directory.display()));
    }
}

fn complain(outcome: Result<String>) {
    if let Err(error) = outcome {
        say(format!("{error:#}"));
    }
}

/// Tells whoever still listens. `eprintln!` would panic where nobody does, as when Ctrl-C ended the other side of a pipe
/// first, and the lab would stay.
pub(super) fn say(what: impl Display) {
    let _ = writeln!(io::stderr(), "{what}");
}

/// Names and inodes of the namespaces of lab `id`.
fn namespaces(id: &str) -> Vec<(String, u64)> {
    let prefix = format!("{id}-");
    let Ok(entries) = fs::read_dir(NAMES) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let inode = fs::metadata(entry.path()).ok()?.ino();
            name.starts_with(&prefix).then_some((name, inode))
        })
        .collect()
}

fn is_mount_point(path: &Path) -> bool {
    let (Ok(here), Some(Ok(above))) = (fs::metadata(path), path.parent().map(fs::metadata)) else {
        return false;
    };
    here.dev() != above.dev()
}
