//! Accuracy at scale: ten thousand connections, and packets of 64 KiB as the kernel makes and merges them.

use anyhow::{Result, ensure};
use evenkeel_tests::{Offloads, Setup, Stage};
use xtask::shell;

#[test]
fn ten_thousand_connections_count_exactly() -> Result<()> {
    let stage = Setup::backends(4).start()?;
    let mut h2load = stage.client("prlimit");
    h2load.args([
        "--nofile=12000:",
        "h2load",
        "-c",
        "10000",
        "-m",
        "2",
        "-n",
        "50000",
    ]);
    let printed = shell::capture(h2load.arg(stage.url()))?;
    ensure!(printed.contains(" 50000 succeeded"), "{printed}");
    let counts = stage.counts()?;
    counts.agree_on(50_000)?;
    let flows: u64 = counts.flows_opened.values().sum();
    ensure!(flows == 10_000, "{flows} flows: {counts:?}");
    Ok(())
}

/// Requests of 100 KB: most packets hold no frame header, and with GSO a packet holds up to 64 KiB of them.
fn large_requests_count_exactly(stage: &Stage) -> Result<()> {
    let load = [
        "-c",
        "8",
        "-m",
        "4",
        "-n",
        "2000",
        "--grpc",
        "unary",
        "--payload",
        "100000",
    ];
    stage.load(&load)?.all_ok()?;
    stage.counts()?.agree_on(2000)
}

#[test]
fn large_requests_count_exactly_with_and_without_gso_and_gro() -> Result<()> {
    for offloads in [
        Offloads::All,
        Offloads::NoChecksums,
        Offloads::None,
        Offloads::Merged,
    ] {
        let mut setup = Setup::backends(2);
        setup.spec.offloads = offloads;
        large_requests_count_exactly(&setup.start()?)?;
    }
    for offloads in [Offloads::NoChecksums, Offloads::None] {
        let mut setup = Setup::backends(2).hook("xdp");
        setup.spec.offloads = offloads;
        large_requests_count_exactly(&setup.start()?)?;
    }
    Ok(())
}
