//! Loss, retransmission and reordering on the client's link: the kernel still counts every stream once.

use anyhow::{Result, ensure};
use evenkeel_tests::{Loss, Offloads, Setup, h2load};

fn lossy(loss: Loss) -> Setup {
    let mut setup = Setup::backends(2);
    setup.spec.loss = Some(loss);
    // One packet dropped must be one segment lost.
    setup.spec.offloads = Offloads::None;
    setup
}

#[test]
fn with_one_percent_loss_every_stream_is_counted_once() -> Result<()> {
    for setup in [lossy(Loss::OneIn(100)), lossy(Loss::EveryNth(100)).dnat()] {
        let stage = setup.start()?;
        let requests = h2load(&stage, 10, 100, 30_000)?;
        ensure!(
            stage.lab.lost()? >= 10,
            "only {} packets were lost",
            stage.lab.lost()?
        );
        stage.counts()?.agree_on(requests)?;
    }
    Ok(())
}

#[test]
fn with_loss_and_large_requests_every_stream_is_counted_once() -> Result<()> {
    // 20 KB a request: most segments hold no frame header, so that a lost one must be found again in the middle.
    let stage = lossy(Loss::EveryNth(100)).start()?;
    let load = [
        "-c",
        "4",
        "-m",
        "10",
        "-n",
        "1000",
        "--grpc",
        "unary",
        "--payload",
        "20000",
        "--timeout",
        "60s",
    ];
    stage.load(&load)?.all_ok()?;
    ensure!(
        stage.lab.lost()? >= 10,
        "only {} packets were lost",
        stage.lab.lost()?
    );
    stage.counts()?.agree_on(1000)
}
