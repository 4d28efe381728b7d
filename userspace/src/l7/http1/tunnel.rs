//! After an Upgrade: bytes, both ways, until one side closes.

use std::rc::Rc;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::Client;
use super::body::Outcome;

/// Connects the two sides once both have changed protocol. `client` keeps the connection in the worker's books.
pub fn start(client: Rc<Client>, downstream: OnUpgrade, upstream: OnUpgrade, mut outcome: Outcome) {
    tokio::task::spawn_local(async move {
        let (Ok(downstream), Ok(upstream)) = tokio::join!(downstream, upstream) else {
            outcome.failed();
            return;
        };
        let (mut downstream, mut upstream) = (TokioIo::new(downstream), TokioIo::new(upstream));
        tokio::select! {
            // Either end may break: that is how tunnels end, too.
            _ = tokio::io::copy_bidirectional(&mut downstream, &mut upstream) => {}
            () = client.told_to_close() => {}
        }
        outcome.ok();
    });
}
