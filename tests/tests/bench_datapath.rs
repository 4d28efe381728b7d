//! The instrument of `cargo xtask bench datapath` measures what it says: it fails by itself where a packet was not
//! forwarded, or a request not counted.

use anyhow::{Context, Result, ensure};
use evenkeel_tests::{Lab, Spec};
use xtask::{shell, workspace};

#[test]
fn every_size_is_measured_with_and_without_counting() -> Result<()> {
    let lab = Lab::new(&Spec {
        backends: 1,
        ..Spec::default()
    })?;
    let backend = lab.backend_address(0, 1)?.ip().to_string();
    lab.balancer().ip(&[&format!(
        "neigh replace {backend} lladdr 02:00:00:00:00:01 dev b1 nud permanent"
    )])?;
    let mut bench = lab.balancer().command(workspace::evenkeel()?);
    bench.args([
        "bench-datapath",
        "--json",
        "--sweeps",
        "--backend",
        &backend,
    ]);
    bench.args(["--packets", "100", "--rounds", "2"]);
    let report: serde_json::Value = serde_json::from_str(&shell::capture(&mut bench)?)?;
    let sizes = |name: &str| -> Result<Vec<u64>> {
        let sweeps = report["sweeps"].as_array().context("sweeps")?;
        let sweep = sweeps.iter().find(|sweep| sweep["name"] == name);
        let points = sweep.with_context(|| format!("no sweep {name}"))?["points"].as_array();
        let points = points.context("points")?;
        for point in points {
            for kind in ["pass", "counted", "uncounted"] {
                let rounds = point[kind].as_array().map_or(0, Vec::len);
                ensure!(rounds == 2, "{rounds} rounds {kind} in {point}");
            }
        }
        Ok(points
            .iter()
            .filter_map(|point| point["size"].as_u64())
            .collect())
    };
    ensure!(sizes("flows")? == [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000]);
    ensure!(sizes("backends")? == [1, 16, 256, 4_096]);
    ensure!(sizes("services")? == [1, 10, 100, 1_000]);
    ensure!(sizes("upload")? == [1]);
    Ok(())
}

#[test]
fn an_object_that_is_not_katrans_is_refused_by_what_it_lacks() -> Result<()> {
    let lab = Lab::new(&Spec {
        backends: 1,
        ..Spec::default()
    })?;
    let backend = lab.backend_address(0, 1)?.ip().to_string();
    let mut bench = lab.balancer().command(workspace::evenkeel()?);
    bench
        .args(["bench-datapath", "--backend", &backend, "--packets", "1"])
        .arg("--katran")
        .arg(workspace::bpf_objects()?.join("evenkeel.bpf.o"));
    let output = bench.output()?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(
        !output.status.success() && error.contains("it has no map vip_map"),
        "seen: {error}"
    );
    Ok(())
}
