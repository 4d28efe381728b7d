//! Accuracy, frame by frame: what the frame walker meets that real clients send rarely, and what none sends.

use anyhow::{Result, ensure};
use evenkeel_tests::Setup;

/// One case of `clients/frames.py`, whose every request kernel and backends must have counted.
fn exact(case: &str) -> Result<()> {
    let stage = Setup::backends(2).start()?;
    let truth = stage.frames(case)?;
    ensure!(truth.left_out == 0, "{truth:?}");
    truth.is_counted_by(&stage.counts()?)
}

#[test]
fn priority_of_any_stream_opens_none() -> Result<()> {
    exact("priority")
}

#[test]
fn padding_is_not_read_as_frames() -> Result<()> {
    exact("padding")
}

#[test]
fn a_header_block_in_many_frames_is_one_stream() -> Result<()> {
    exact("continuation")
}

#[test]
fn settings_ping_and_window_updates_open_none() -> Result<()> {
    exact("connection_frames")
}

#[test]
fn http2_inside_bodies_is_not_counted() -> Result<()> {
    exact("nested")
}

#[test]
fn ids_that_a_client_leaves_out_count_as_streams() -> Result<()> {
    let stage = Setup::backends(2).start()?;
    let truth = stage.frames("gaps")?;
    ensure!(truth.left_out > 0, "{truth:?}");
    let counts = stage.counts()?;
    let served: u64 = counts.served_streams().values().sum();
    ensure!(served == truth.streams, "{truth:?}: {counts:?}");
    // The price of one comparison per segment instead of a table of ids per flow: exactly the ids left out.
    ensure!(
        counts.service == truth.streams + truth.left_out,
        "{truth:?}: {counts:?}"
    );
    Ok(())
}

#[test]
fn frames_of_unknown_types_open_none() -> Result<()> {
    exact("unknown")
}
