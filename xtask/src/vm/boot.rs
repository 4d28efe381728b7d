//! Booting: qemu with an emulated processor, which every machine can do and every kernel takes. (With KVM, kernels as
//! distributions package them hang in nested virtual machines.)

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::{console::Console, version::Kernel};
use crate::{shell, term::Progress};

/// `timeout`'s exit status for a command that took too long; see timeout(1).
const TIMED_OUT: i32 = 124;
/// How often the log is looked at for what the guest does.
const GLANCE: Duration = Duration::from_millis(500);
/// What the kernel is told: print here, say nothing but the last words of a panic, and end the machine after it.
const COMMAND_LINE: &str = "console=ttyS0 loglevel=1 panic=-1 mitigations=off";
/// Memory of the guest in MiB: flow tables of the default size take some 400.
const MEMORY: &str = "2048";

/// Boots `kernel` with `initramfs` and returns when the guest has ended; its serial console is in `log`.
pub(super) fn run(
    kernel: &Kernel,
    unpacked: &Path,
    initramfs: &Path,
    log: &Path,
    timeout: Duration,
) -> Result<()> {
    let mut qemu = command(&image(unpacked)?, initramfs, log, timeout);
    let progress = Progress::start(&format!("Linux {}", kernel.release));
    let errors = log.with_extension("qemu");
    let mut child = qemu
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&errors)?)
        .spawn()
        .with_context(|| format!("cannot run: {}", shell::describe(&qemu)))?;
    let status = loop {
        if let Some(status) = ended(&mut child)? {
            break status;
        }
        if let Some(doing) = read(log)?.last() {
            progress.note(doing);
        }
        thread::sleep(GLANCE);
    };
    let said = fs::read_to_string(&errors)?;
    fs::remove_file(&errors)?;
    if status == Some(TIMED_OUT) {
        progress.failed();
        bail!("it took longer than {} s (--timeout)", timeout.as_secs());
    }
    if status != Some(0) {
        progress.failed();
        bail!("{}: {}", shell::describe(&qemu), said.trim_end());
    }
    progress.done();
    Ok(())
}

/// What the guest printed so far.
pub(super) fn read(log: &Path) -> Result<Console> {
    match fs::read(log) {
        Ok(bytes) => Ok(Console::parse(&String::from_utf8_lossy(&bytes))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Console::default()),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", log.display())),
    }
}

fn ended(child: &mut Child) -> Result<Option<Option<i32>>> {
    Ok(child.try_wait()?.map(|status| status.code()))
}

/// `timeout` ends the guest even if we are killed; in the foreground, so that Ctrl-C reaches it as well.
fn command(image: &Path, initramfs: &Path, log: &Path, timeout: Duration) -> Command {
    let mut command = Command::new("timeout");
    command
        .args(["--foreground", "--kill-after=5"])
        .arg(timeout.as_secs().max(1).to_string())
        .arg("qemu-system-x86_64")
        .args(["-machine", "q35", "-accel", "tcg", "-cpu", "max"])
        .args(["-smp", "2", "-m", MEMORY])
        .args(["-nodefaults", "-no-user-config", "-display", "none"])
        .arg("-no-reboot")
        .arg("-serial")
        .arg(format!("file:{}", log.display()))
        .arg("-kernel")
        .arg(image)
        .arg("-initrd")
        .arg(initramfs)
        .args(["-append", COMMAND_LINE]);
    command
}

fn image(unpacked: &Path) -> Result<PathBuf> {
    let boot = unpacked.join("boot");
    let mut images = Vec::new();
    for entry in fs::read_dir(&boot).with_context(|| format!("no {}", boot.display()))? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with("vmlinuz-") {
            images.push(entry.path());
        }
    }
    ensure!(images.len() == 1, "not one kernel in {}", boot.display());
    Ok(images.remove(0))
}
