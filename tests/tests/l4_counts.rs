//! L4: flows are spread over the backends, and the kernel counts every stream inside them, exactly.

use anyhow::{Result, ensure};
use evenkeel_tests::{Counts, Offloads, Setup, Stage, h2load};

/// The run of the issue: 10 connections, 100 concurrent streams each, 100,000 requests.
fn h2load_agrees(setup: &Setup) -> Result<(Stage, Counts)> {
    let stage = setup.start()?;
    let requests = h2load(&stage, 10, 100, 100_000)?;
    let counts = stage.counts()?;
    counts.agree_on(requests)?;
    let flows: u64 = counts.flows_opened.values().sum();
    ensure!(flows == 10, "10 connections are 10 flows: {counts:?}");
    for (name, served) in &counts.served {
        ensure!(
            served.connections == counts.flows_opened[name],
            "{name}: {counts:?}"
        );
    }
    Ok((stage, counts))
}

#[test]
fn l4_nat_spreads_flows_and_counts_streams_exactly() -> Result<()> {
    h2load_agrees(&Setup::backends(2))?;
    Ok(())
}

#[test]
fn l4_dnat_counts_exactly_and_the_backend_sees_the_client() -> Result<()> {
    let (stage, _) = h2load_agrees(&Setup::backends(2).dnat())?;
    let seen = seen_by_backend(&stage)?;
    let client = stage.lab.client_address(&stage.setup.spec).to_string();
    ensure!(
        seen.starts_with(&format!("{client}:")),
        "the backend saw {seen}, the client is {client}"
    );
    Ok(())
}

#[test]
fn with_nat_the_backend_sees_the_balancer() -> Result<()> {
    let stage = Setup::backends(1).start()?;
    let seen = seen_by_backend(&stage)?;
    ensure!(seen.starts_with("10.77.1.1:"), "the backend saw {seen}");
    Ok(())
}

#[test]
fn the_xdp_hook_counts_exactly_with_nat_and_dnat() -> Result<()> {
    for setup in [Setup::backends(2), Setup::backends(2).dnat()] {
        let (stage, _) = h2load_agrees(&setup.hook("xdp"))?;
        let status = stage.json(&["status"])?;
        let attached = status["attachments"].to_string();
        ensure!(
            attached.contains("\"xdp\"") && attached.contains("native"),
            "{attached}"
        );
    }
    Ok(())
}

#[test]
fn counts_are_exact_whatever_the_network_card_does_by_itself() -> Result<()> {
    for offloads in [Offloads::All, Offloads::None, Offloads::Merged] {
        let mut setup = Setup::backends(2);
        setup.spec.offloads = offloads;
        h2load_agrees(&setup)?;
    }
    Ok(())
}

/// The client's address as an echo backend reports it.
fn seen_by_backend(stage: &Stage) -> Result<String> {
    let mut curl = stage.client("curl");
    curl.args(["--silent", "--show-error", "--max-time", "10", &stage.url()]);
    let answer: serde_json::Value = serde_json::from_str(&xtask::shell::capture(&mut curl)?)?;
    Ok(answer["client"].as_str().unwrap_or_default().to_owned())
}
