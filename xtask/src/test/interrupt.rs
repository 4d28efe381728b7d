//! Runs the tests so that Ctrl-C does not end us before them: they cannot clean up after themselves, we can.

use std::{
    process::{Command, Stdio},
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::shell;

/// How long the runner has to end by itself. A terminal gives Ctrl-C to it as well, and labs go within seconds; SIGTERM
/// came to us alone.
const GRACE: Duration = Duration::from_secs(10);
/// How often to look.
const GLANCE: Duration = Duration::from_millis(50);

static HAPPENED: AtomicBool = AtomicBool::new(false);

/// Whether somebody wanted the tests to end.
pub(super) fn happened() -> bool {
    HAPPENED.load(Ordering::Relaxed)
}

/// Runs `command` with our standard output and error until it ends, also after Ctrl-C.
pub(super) fn run(command: &mut Command) -> Result<()> {
    static HANDLER: Once = Once::new();
    HANDLER.call_once(|| {
        // Where there is a handler already, leftovers stay until the next run.
        let _ = ctrlc::set_handler(|| HAPPENED.store(true, Ordering::Relaxed));
    });
    let mut child = command
        .stdin(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot run: {}", shell::describe(command)))?;
    let mut since = None;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if happened() && since.get_or_insert_with(Instant::now).elapsed() > GRACE {
            // To a runner that ends already, a second signal says not to wait for anyone.
            let _ = kill_process(Pid::from_child(&child), Signal::TERM);
            since = Some(Instant::now());
        }
        thread::sleep(GLANCE);
    };
    if !status.success() {
        bail!("{status}: {}", shell::describe(command));
    }
    Ok(())
}
