//! Accuracy, segment by segment: clients that decide themselves where TCP segments end, in which order they leave and
//! which leave twice. What they sent is the truth; kernel and backends must both have counted it.

use anyhow::{Result, ensure};
use evenkeel_tests::Setup;

/// One case of `clients/segments.py`, at both hooks and with both ways of forwarding.
fn exact(case: &str, seed: u32) -> Result<()> {
    for hook in ["tc", "xdp"] {
        for setup in [Setup::backends(2), Setup::backends(2).dnat()] {
            let stage = setup.hook(hook).start()?;
            let truth = stage.segments(case, seed)?;
            ensure!(truth.segments > truth.connections, "{truth:?}");
            truth.is_counted_by(&stage.counts()?)?;
        }
    }
    Ok(())
}

#[test]
fn segments_cut_at_every_offset_count_exactly() -> Result<()> {
    exact("every_offset", 1)
}

#[test]
fn segments_of_every_length_from_one_byte_on_count_exactly() -> Result<()> {
    exact("every_length", 1)
}

#[test]
fn what_is_sent_again_with_other_ends_counts_once() -> Result<()> {
    exact("retransmitted", 2)
}

#[test]
fn requests_that_arrive_out_of_order_count_exactly() -> Result<()> {
    exact("reordered", 3)
}

#[test]
fn uploads_that_arrive_out_of_order_count_exactly() -> Result<()> {
    exact("reordered_bulk", 4)
}
