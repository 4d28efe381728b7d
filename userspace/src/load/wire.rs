//! Sending on an HTTP/2 stream, shared by the echo backend and the driver.

use bytes::Bytes;
use h2::{Reason, SendStream};

/// Sends `piece` as the peer's windows allow, never queueing more inside `h2` than the peer will take.
pub(super) async fn send(
    out: &mut SendStream<Bytes>,
    mut piece: Bytes,
    end: bool,
) -> Result<(), h2::Error> {
    while !piece.is_empty() {
        out.reserve_capacity(piece.len());
        if out.capacity() == 0 {
            match std::future::poll_fn(|cx| out.poll_capacity(cx)).await {
                Some(granted) => granted?,
                None => return Err(Reason::CANCEL.into()),
            };
        }
        let part = piece.split_to(piece.len().min(out.capacity()));
        let last = end && piece.is_empty();
        if !part.is_empty() || last {
            out.send_data(part, last)?;
        }
    }
    Ok(())
}
