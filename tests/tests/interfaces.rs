//! Interfaces that go, and come back under their names.

use anyhow::{Result, ensure};
use evenkeel_tests::{Setup, eventually};

#[test]
fn an_interface_that_is_made_anew_is_balanced_on_again() -> Result<()> {
    for hook in ["tc", "xdp"] {
        let setup = Setup::backends(2).hook(hook);
        let stage = setup.start()?;
        stage.load(&["-n", "100"])?.all_ok()?;
        stage.lab.renew_client_link(&setup.spec)?;
        if hook == "xdp" {
            stage.lab.receive_redirected()?;
        }
        // Until the daemon looks again nobody answers.
        let some = ["-n", "10", "--timeout", "2s"];
        eventually(
            "an answer by the new interface",
            || stage.load(&some),
            |load| load.failed == 0,
        )?;
        let before = stage.counts()?.service;
        stage.load(&["-n", "100"])?.all_ok()?;
        let counts = stage.counts()?;
        ensure!(
            counts.service == before + 100,
            "{hook}: {before} streams, then 100 more: {counts:?}"
        );
    }
    Ok(())
}
