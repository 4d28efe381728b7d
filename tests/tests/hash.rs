//! What decides the backend of a flow: changed in a running daemon, seen in the flows, and explained.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};
use evenkeel_tests::{Setup, Stage, eventually};

/// The backends of the flows that are in the table, each held against what `explain` says of it.
fn backends_of_flows(stage: &Stage) -> Result<BTreeSet<String>> {
    let listed = stage.json(&["flows"])?;
    let mut backends = BTreeSet::new();
    for flow in listed["flows"].as_array().context("flows")? {
        let (client, backend) = (flow["client"].as_str(), flow["backend"].as_str());
        let (client, backend) = client.zip(backend).context("a flow")?;
        let said = stage.json(&["explain", client, "echo"])?;
        ensure!(said["destination"] == backend, "{said} of {flow}");
        backends.insert(backend.to_owned());
    }
    Ok(backends)
}

/// Connects 16 times, and gives the backends that the client met.
fn met(stage: &Stage) -> Result<usize> {
    let load = stage.load(&["-c", "16", "-n", "160"])?.all_ok()?;
    Ok(load.per_backend.len())
}

#[test]
fn a_reload_to_source_ip_brings_new_flows_of_a_client_to_one_backend() -> Result<()> {
    for hook in ["tc", "xdp"] {
        let mut stage = Setup::backends(4).hook(hook).start()?;
        ensure!(met(&stage)? > 1, "16 flows by 5-tuple went to one backend");
        ensure!(backends_of_flows(&stage)?.len() > 1);
        let file = stage.daemon()?.config().to_owned();
        let text = fs::read_to_string(&file)?;
        fs::write(&file, text.replace("\"5-tuple\"", "\"source-ip\""))?;
        stage.hang_up()?;
        let services = || stage.json(&["services"]);
        eventually("the new hash", services, |now| {
            now["services"][0]["hash"] == "source-ip"
        })?;
        ensure!(stage.cli(&["services"])?.contains("source-ip"));
        ensure!(met(&stage)? == 1, "{hook}: one address, several backends");
        let client = stage.lab.client_address(&stage.setup.spec);
        let mut told = BTreeSet::new();
        for port in 1..20 {
            let said = stage.json(&["explain", &format!("{client}:{port}"), "echo"])?;
            told.insert(said["destination"].to_string());
            ensure!(said["why"].to_string().contains("source-ip"), "{said}");
        }
        ensure!(told.len() == 1, "{told:?}");
        ensure!(stage.load(&["-n", "10"])?.per_backend.keys().all(|name| {
            // Backend bN has address 10.77.N.2.
            let number = name.trim_start_matches('b');
            told.iter()
                .all(|told| told.contains(&format!(".{number}.2:")))
        }));
    }
    Ok(())
}
