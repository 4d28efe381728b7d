//! A clean stop leaves nothing: no program, no pin, no namespace; and two labs do not meet.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use evenkeel_tests::{Process, Setup, Stage};
use xtask::lab::Signal;
use xtask::{shell, workspace};

fn files_below(directory: &Path) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files_below(&path)?);
        } else if path.extension().is_none_or(|it| it != "debug") {
            // The kernel itself puts progs.debug and maps.debug into a new bpffs.
            found.push(path.display().to_string());
        }
    }
    Ok(found)
}

/// What `ip` tells of programs at the balancer's interfaces.
fn attached(stage: &Stage) -> Result<String> {
    let mut ip = Command::new("ip");
    ip.args([
        "-n",
        stage.lab.balancer().name(),
        "-details",
        "link",
        "show",
    ]);
    shell::capture(&mut ip)
}

#[test]
fn a_clean_stop_detaches_everything_and_removes_every_pin() -> Result<()> {
    for hook in ["tc", "xdp"] {
        let mut stage = Setup::backends(2).hook(hook).start()?;
        ensure!(
            !files_below(&stage.lab.bpffs())?.is_empty(),
            "nothing is pinned while it runs"
        );
        ensure!(
            attached(&stage)?.contains("prog/xdp") == (hook == "xdp"),
            "{}",
            attached(&stage)?
        );
        stage.load(&["-n", "100"])?.all_ok()?;
        let socket = stage.daemon()?.socket().to_owned();
        stage.stop_daemon()?;
        let pins = files_below(&stage.lab.bpffs())?;
        ensure!(pins.is_empty(), "{hook}: left behind: {pins:?}");
        ensure!(
            !attached(&stage)?.contains("prog/xdp"),
            "{}",
            attached(&stage)?
        );
        ensure!(!socket.exists(), "the control socket was left behind");
        // And it starts again from nothing.
        stage.start_daemon()?;
        stage.load(&["-n", "100"])?.all_ok()?;
    }
    Ok(())
}

#[test]
fn a_daemon_that_is_stopped_while_it_starts_leaves_nothing() -> Result<()> {
    let mut stage = Setup::backends(2).hook("xdp").start()?;
    let config = stage.daemon()?.config().to_owned();
    stage.stop_daemon()?;
    // Spread over a start: it parses, loads, attaches, answers. Whichever of it a signal meets, the same must hold.
    for delay in [0, 20, 80, 200, 400, 800] {
        let mut run = stage.lab.balancer().command(workspace::evenkeel()?);
        run.arg("run").arg("--config").arg(&config);
        let mut process = Process::start(&stage.lab, "stopped", &mut run)?;
        thread::sleep(Duration::from_millis(delay));
        process.signal(Signal::SIGTERM)?;
        let status = process.wait()?;
        // Before it has asked for the signal the kernel ends it.
        ensure!(
            status.success() || status.signal() == Some(Signal::SIGTERM as i32),
            "after {delay} ms it ended with {status}: {}",
            process.log()?
        );
        let pins = files_below(&stage.lab.bpffs())?;
        ensure!(pins.is_empty(), "after {delay} ms, left behind: {pins:?}");
        let links = attached(&stage)?;
        ensure!(!links.contains("prog/xdp"), "after {delay} ms: {links}");
    }
    // And it starts from what is left.
    stage.start_daemon()?;
    stage.load(&["-n", "100"])?.all_ok()?;
    Ok(())
}

#[test]
fn a_lab_takes_its_namespaces_with_it() -> Result<()> {
    let stage = Setup::backends(2).start()?;
    let (id, directory) = (stage.lab.id().to_owned(), stage.lab.directory().to_owned());
    drop(stage);
    let namespaces = shell::capture(Command::new("ip").args(["netns", "list"]))?;
    ensure!(!namespaces.contains(&format!("{id}-")), "{namespaces}");
    ensure!(
        !directory.exists(),
        "{} is still there",
        directory.display()
    );
    Ok(())
}

#[test]
fn two_labs_at_once_do_not_meet() -> Result<()> {
    let counts = thread::scope(|scope| {
        let lab = |requests: &'static str| {
            scope.spawn(move || -> Result<_> {
                let stage = Setup::backends(2).start()?;
                let load = stage
                    .load(&["-c", "4", "-m", "4", "-n", requests])?
                    .all_ok()?;
                stage.counts()?.agree_on(load.ok)?;
                Ok(load.ok)
            })
        };
        [lab("3000"), lab("2000")].map(|running| {
            running
                .join()
                .map_err(|_| anyhow::anyhow!("a lab panicked"))?
        })
    });
    let [first, second] = counts;
    ensure!((first?, second?) == (3000, 2000));
    Ok(())
}
