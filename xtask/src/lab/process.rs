//! A program that runs in a lab until it is told to stop; what it prints is kept in a file of the lab.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    time::{ClockId, clock_getcpuclockid},
    unistd::Pid,
};

use super::Lab;

/// How long something may take to become true before that is a failure; when all is well nothing waits that long.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a program may take to end before it is killed.
const GRACE: Duration = Duration::from_secs(30);

/// A running program; stopped with SIGTERM when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    output: PathBuf,
    errors: PathBuf,
    left: bool,
}

impl Process {
    /// Starts `command`; its output goes to NAME.out and NAME.log in the lab's directory.
    pub fn start(lab: &Lab, name: &str, command: &mut Command) -> Result<Self> {
        let output = lab.directory().join(format!("{name}.out"));
        let errors = lab.directory().join(format!("{name}.log"));
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(&errors)?;
        command
            .stdin(Stdio::null())
            .stdout(fs::File::create(&output)?)
            .stderr(log);
        let child = lab.spawn(command)?;
        Ok(Self {
            name: name.to_owned(),
            child,
            output,
            errors,
            left: false,
        })
    }

    /// Starts a server, and waits until it has said on standard error that it is listening; what one of the same name
    /// said before does not count.
    pub fn serve(lab: &Lab, name: &str, command: &mut Command) -> Result<Self> {
        let log = lab.directory().join(format!("{name}.log"));
        let before = fs::metadata(&log).map_or(0, |log| log.len());
        let before = usize::try_from(before)?;
        let mut server = Self::start(lab, name, command)?;
        server.wait_until("it listened", || {
            let said = fs::read(&log).unwrap_or_default();
            let said = String::from_utf8_lossy(said.get(before..).unwrap_or_default());
            said.contains("listening")
        })?;
        Ok(server)
    }

    /// Its process id; `nsenter` becomes the program, so this is the program's own.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// CPU seconds that all its threads spent so far, those that ended included.
    pub fn cpu_seconds(&self) -> Result<f64> {
        let pid = i32::try_from(self.child.id()).context("process id")?;
        let spent = clock_getcpuclockid(Pid::from_raw(pid)).and_then(ClockId::now);
        let spent = spent.with_context(|| format!("{} is gone", self.name))?;
        Ok(Duration::from(spent).as_secs_f64())
    }

    /// What it printed on standard output so far.
    pub fn output(&self) -> Result<String> {
        fs::read_to_string(&self.output).context("reading a program's output")
    }

    /// What it printed on standard error so far.
    pub fn log(&self) -> Result<String> {
        fs::read_to_string(&self.errors).context("reading a program's log")
    }

    /// The file of [`Process::log`].
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.errors
    }

    /// Waits until `ready` says so; fails as soon as the program has ended.
    pub fn wait_until(&mut self, what: &str, mut ready: impl FnMut() -> bool) -> Result<()> {
        let begun = Instant::now();
        while !ready() {
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "{} ended ({status}) before {what}:\n{}",
                    self.name,
                    self.log()?
                );
            }
            if begun.elapsed() > PATIENCE {
                bail!(
                    "{}: no {what} within {PATIENCE:?}:\n{}",
                    self.name,
                    self.log()?
                );
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Sends `signal`.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).context("process id")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// Lets it run on after this value is dropped.
    pub fn leave(&mut self) {
        self.left = true;
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Waits for the end, however long it takes.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        Ok(self.child.wait()?)
    }

    /// Asks it to end and waits for that; SIGKILL if it does not.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait()? {
            return Ok(status);
        }
        self.signal(Signal::SIGTERM)?;
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if begun.elapsed() > GRACE {
                self.child.kill()?;
                return Ok(self.child.wait()?);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.left {
            // Whatever keeps it from ending, the lab's removal tries again with more force.
            let _ = self.stop();
        }
    }
}
