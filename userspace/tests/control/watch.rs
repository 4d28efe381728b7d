//! Commands that go on until they are interrupted.

use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};

use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::fake::Daemon;

/// What `evenkeel ARGUMENTS` writes to `output` until its second page, as read from the other end; a page has so many tables.
fn two_pages(
    daemon: &Daemon,
    arguments: &[&str],
    tables: usize,
    output: impl Into<Stdio>,
    mut read: impl Read,
) -> String {
    let mut watch = Command::new(env!("CARGO_BIN_EXE_evenkeel"))
        .arg("--socket")
        .arg(daemon.socket())
        .args(arguments)
        .stdout(output)
        .spawn()
        .expect("the command runs");
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    // Every table names the column once.
    while text.matches("BACKEND").count() < 2 * tables {
        let length = read.read(&mut buffer).expect("it is read");
        assert!(length > 0, "{arguments:?} ended after {text}");
        text.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
    watch.kill().expect("it runs until interrupted");
    watch.wait().expect("it ends");
    text
}

#[test]
fn a_watch_clears_the_page_on_a_terminal_and_only_there_whatever_the_colours() {
    const CLEAR: &str = "\x1b[2J";
    let daemon = Daemon::start("watch");
    // All flows are in one table, and the two services in one each.
    for (command, tables) in [
        (&["flows", "--watch"][..], 1),
        (&["pinning", "--watch", "--for=10ms"], 2),
    ] {
        let arguments = [command, &["--color=always"]].concat();
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let piped = two_pages(&daemon, &arguments, tables, writer, reader);
        assert!(!piped.contains(CLEAR), "{piped:?}");

        let arguments = [command, &["--color=never"]].concat();
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
        grantpt(&ours)
            .and_then(|()| unlockpt(&ours))
            .expect("its other end");
        let name = ptsname(&ours, Vec::new()).expect("its name");
        let theirs = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty());
        let theirs = File::from(theirs.expect("the other end"));
        let shown = two_pages(&daemon, &arguments, tables, theirs, File::from(ours));
        assert!(shown.matches(CLEAR).count() >= 2, "{shown:?}");
    }
}
