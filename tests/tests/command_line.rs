//! The command line when something is wrong: one sentence that helps, and nothing changed.

use std::fs;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use evenkeel_tests::{PORT, SERVICE, Setup, Stage};
use xtask::workspace;

/// What `evenkeel ARGUMENTS` says on standard error when it fails.
fn refusal(stage: &mut Stage, arguments: &[&str]) -> Result<String> {
    let output = stage.daemon()?.command(arguments).output()?;
    refused(&output, &arguments.join(" "))
}

fn refused(output: &Output, what: &str) -> Result<String> {
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    ensure!(
        !output.status.success(),
        "`{what}` was accepted: {}",
        String::from_utf8_lossy(&output.stdout)
    );
    ensure!(
        !said.is_empty() && !said.contains("panicked"),
        "`{what}` said: {said}"
    );
    Ok(said)
}

#[test]
fn an_unknown_service_or_backend_is_answered_with_the_known_ones() -> Result<()> {
    let mut stage = Setup::backends(2).start()?;
    let second = stage.lab.backend_address(1, PORT)?.to_string();
    for arguments in [
        &["mode", "nosuch", "l7"][..],
        &["pinning", "nosuch"],
        &["explain", "10.77.0.2:4000", "nosuch"],
        &["backends", "drain", "nosuch", &second],
    ] {
        let said = refusal(&mut stage, arguments)?;
        ensure!(
            said.contains("nosuch") && said.contains(SERVICE),
            "{arguments:?}: {said}"
        );
    }
    let said = refusal(&mut stage, &["backends", "drain", SERVICE, "10.77.9.9:1"])?;
    ensure!(
        said.contains("10.77.9.9:1") && said.contains(&second),
        "{said}"
    );
    refusal(&mut stage, &["mode", SERVICE, "l5"])?;
    refusal(&mut stage, &["backends", "add", SERVICE, "not-an-address"])?;
    refusal(&mut stage, &["backends", "add", SERVICE, &second])?;
    stage.load(&["-c", "4", "-n", "100"])?.all_ok()?;
    Ok(())
}

#[test]
fn a_failed_reload_says_where_and_keeps_what_runs() -> Result<()> {
    let mut stage = Setup::backends(2).start()?;
    let file = stage.daemon()?.config().to_owned();
    let good = fs::read_to_string(&file)?;
    let services = stage.json(&["services"])?;
    for (wrong, named) in [
        (good.replace("mode = \"l4\"", "mode = \"l5\""), "mode"),
        (
            good.replace(&format!(":{PORT}\"\nmode"), ":0\"\nmode"),
            "address",
        ),
        (good.replace("weight = 1", "wait = 1"), "wait"),
        (
            format!("{good}\n[[interface]]\nname = \"nosuch0\"\n"),
            "nosuch0",
        ),
        ("[[service".to_owned(), "1"),
    ] {
        ensure!(wrong != good, "the test changed nothing");
        fs::write(&file, &wrong)?;
        let said = refusal(&mut stage, &["reload"])?;
        ensure!(
            said.contains("evenkeel.toml") && said.contains(named),
            "{named}: {said}"
        );
        stage.load(&["-c", "4", "-n", "50"])?.all_ok()?;
        let now = stage.json(&["services"])?;
        ensure!(
            now["services"][0]["mode"] == services["services"][0]["mode"],
            "{now}"
        );
    }
    // The running daemon takes a file that is right again.
    fs::write(&file, good.replace("mode = \"l4\"", "mode = \"l7\""))?;
    stage.cli(&["reload"])?;
    ensure!(stage.json(&["services"])?["services"][0]["mode"] == "l7");
    stage.load(&["-c", "4", "-n", "50"])?.all_ok()?;
    Ok(())
}

#[test]
fn sighup_reloads_too_and_a_wrong_file_does_not_end_the_daemon() -> Result<()> {
    let mut stage = Setup::backends(1).start()?;
    let file = stage.daemon()?.config().to_owned();
    let good = fs::read_to_string(&file)?;
    fs::write(&file, "[[service")?;
    stage.hang_up()?;
    evenkeel_tests::eventually(
        "a complaint in the log",
        || stage.daemon()?.process().log(),
        |log| log.contains("evenkeel.toml"),
    )?;
    stage.load(&["-n", "50"])?.all_ok()?;
    fs::write(&file, good.replace("mode = \"l4\"", "mode = \"l7\""))?;
    stage.hang_up()?;
    let services = || stage.json(&["services"]);
    evenkeel_tests::eventually("the new mode", services, |now| {
        now["services"][0]["mode"] == "l7"
    })?;
    stage.load(&["-n", "50"])?.all_ok()?;
    Ok(())
}

#[test]
fn without_root_there_is_one_sentence() -> Result<()> {
    let directory = std::env::temp_dir().join(format!("evenkeel-nobody-{}", std::process::id()));
    fs::create_dir_all(&directory)?;
    let (binary, config) = (directory.join("evenkeel"), directory.join("evenkeel.toml"));
    // The target directory may be closed to others; they get a copy.
    fs::copy(workspace::evenkeel()?, &binary).context("the release binary")?;
    let text = "[[interface]]\nname = \"lo\"\n[[service]]\nname = \"a\"\naddress = \"127.0.0.2:80\"\n\
                [[service.backend]]\naddress = \"127.0.0.3:80\"\n";
    fs::write(&config, text)?;
    let run = |arguments: &[&str]| {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
            .arg(&binary);
        command.args(arguments).output()
    };
    let config = config.display().to_string();
    let started = run(&["run", "--config", &config])?;
    let asked = run(&["--socket", "/run/evenkeel-nobody.sock", "status"])?;
    fs::remove_dir_all(&directory)?;
    let said = refused(&started, "run")?;
    ensure!(said.lines().count() == 1 && said.contains("root"), "{said}");
    let said = refused(&asked, "status")?;
    ensure!(
        said.lines().count() == 1 && said.contains("/run/evenkeel-nobody.sock"),
        "{said}"
    );
    Ok(())
}

#[test]
fn explain_names_the_backend_that_the_flow_then_takes() -> Result<()> {
    let stage = Setup::backends(3).start()?;
    for port in [40_001, 40_002, 40_003, 40_004] {
        let client = format!("{}:{port}", stage.lab.client_address(&stage.setup.spec));
        let told = stage.json(&["explain", &client, SERVICE])?;
        ensure!(told["existing"] == false, "{told}");
        let mut curl = stage.client("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--max-time",
            "10",
            "--local-port",
            &port.to_string(),
            &stage.url(),
        ]);
        let answer: serde_json::Value = serde_json::from_str(&xtask::shell::capture(&mut curl)?)?;
        let number = told["destination"]
            .as_str()
            .and_then(|it| it.split('.').nth(2))
            .unwrap_or_default()
            .to_owned();
        ensure!(answer["backend"] == format!("b{number}"), "{told} {answer}");
    }
    Ok(())
}

#[test]
fn the_control_socket_answers_curl() -> Result<()> {
    let mut stage = Setup::backends(1).start()?;
    let socket = stage.daemon()?.socket().display().to_string();
    let mut curl = Command::new("curl");
    curl.args([
        "--silent",
        "--show-error",
        "--max-time",
        "10",
        "--unix-socket",
        &socket,
        "http://evenkeel/v1/status",
    ]);
    let status: serde_json::Value = serde_json::from_str(&xtask::shell::capture(&mut curl)?)?;
    ensure!(
        status["attachments"]
            .as_array()
            .is_some_and(|it| !it.is_empty()),
        "{status}"
    );
    Ok(())
}
