//! Running other programs: a failure names the command line and what it printed, and whatever takes longer than a
//! second shows that it lives.

use std::{
    ffi::OsStr,
    fmt::Write as _,
    io::{Read as _, Write as _},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::term::Progress;

/// Lines of a failed command's output that are worth showing; compilers print the cause last.
const SHOWN_LINES: usize = 60;

/// The command line of `command`, with the variables set for it, so that it can be pasted into a shell.
#[must_use]
pub fn describe(command: &Command) -> String {
    let mut line = String::new();
    if let Some(directory) = command.get_current_dir() {
        let _ = write!(line, "cd {} && ", quote(directory.as_os_str()));
    }
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            let _ = write!(line, "{}={} ", name.to_string_lossy(), quote(value));
        }
    }
    line.push_str(&quote(command.get_program()));
    for argument in command.get_args() {
        let _ = write!(line, " {}", quote(argument));
    }
    line
}

fn quote(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// Runs `command` with our standard output and error: for programs that show their own progress.
pub fn run(command: &mut Command) -> Result<()> {
    let status = command
        .stdin(Stdio::null())
        .status()
        .with_context(|| format!("cannot run: {}", describe(command)))?;
    if !status.success() {
        bail!("{status}: {}", describe(command));
    }
    Ok(())
}

/// Runs `command` and returns its standard output.
pub fn capture(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run: {}", describe(command)))?;
    if !output.status.success() {
        let mut printed = output.stdout;
        printed.extend(output.stderr);
        bail!(failure(command, output.status, &printed));
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("output is not UTF-8: {}", describe(command)))
}

/// Runs `command` with `input` on its standard input.
pub fn feed(command: &mut Command, input: &str) -> Result<()> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run: {}", describe(command)))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input exits with a failure, which says more than a broken pipe.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        let mut printed = output.stdout;
        printed.extend(output.stderr);
        bail!(
            "{}\ninput was:\n{input}",
            failure(command, output.status, &printed)
        );
    }
    Ok(())
}

/// Runs `command` behind one line of progress called `title`; its output is shown only if it fails.
pub fn quietly(title: &str, command: &mut Command) -> Result<()> {
    let progress = Progress::start(title);
    let (mut reader, writer) = std::io::pipe()?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone()?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("cannot run: {}", describe(command)))?;
    // Until our copies of the pipe's write end are gone, reading it would never end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut printed = Vec::new();
    reader.read_to_end(&mut printed)?;
    let status = child.wait()?;
    if status.success() {
        progress.done();
        Ok(())
    } else {
        progress.failed();
        bail!(failure(command, status, &printed))
    }
}

fn failure(command: &Command, status: std::process::ExitStatus, printed: &[u8]) -> String {
    let printed = String::from_utf8_lossy(printed);
    let lines: Vec<&str> = printed.trim_end().lines().collect();
    let shown = lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n");
    if shown.is_empty() {
        format!("{status}: {}", describe(command))
    } else {
        format!("{status}: {}\n{shown}", describe(command))
    }
}

/// Takes away what cargo and rustup told *this* process about the outer build, so that an inner cargo of another
/// toolchain starts afresh. What says where to download from and where things are kept stays.
pub fn forget_outer_build(command: &mut Command) -> &mut Command {
    const KEPT: [&str; 6] = [
        "CARGO_HOME",
        "CARGO_HTTP_",
        "CARGO_NET_",
        "CARGO_REGISTR",
        "RUSTUP_HOME",
        "RUSTUP_",
    ];
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let outer = text.starts_with("CARGO") || text.starts_with("RUST");
        let kept = KEPT.iter().any(|prefix| text.starts_with(prefix));
        if (outer && !kept) || text == "RUSTUP_TOOLCHAIN" {
            command.env_remove(name);
        }
    }
    command
}
