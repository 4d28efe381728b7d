//! Accuracy under loss: packets dropped at random between client and balancer, in both directions.

use anyhow::{Result, ensure};
use evenkeel_tests::{Loss, Offloads, Setup, h2load};

/// Requests of a segment each, of which one packet in `one_in` is lost.
fn exact_with_loss(one_in: u32) -> Result<()> {
    let mut setup = Setup::backends(2);
    setup.spec.loss = Some(Loss::OneIn(one_in));
    // One packet dropped must be one segment lost.
    setup.spec.offloads = Offloads::None;
    let stage = setup.start()?;
    let requests = h2load(&stage, 10, 100, 30_000)?;
    let lost = stage.lab.lost()?;
    ensure!(lost >= 10, "only {lost} packets were lost");
    stage.counts()?.agree_on(requests)
}

#[test]
fn with_two_percent_loss_every_stream_is_counted_once() -> Result<()> {
    exact_with_loss(50)
}

#[test]
fn with_five_percent_loss_every_stream_is_counted_once() -> Result<()> {
    exact_with_loss(20)
}
