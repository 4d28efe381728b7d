//! One connection with one request after the other, of which nothing is planned or recorded.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use http::Request;

use super::dial::{Connect as _, Tcp};
use super::mux::{Mux, Template};
use super::rpc::Trouble;
use crate::load::arrival::Clock;

/// An HTTP/2 connection.
pub(in crate::load) struct Single(Mux);

impl Single {
    /// One to `address`; within a [`tokio::task::LocalSet`], in which its task runs.
    pub(in crate::load) async fn connect(address: SocketAddr) -> io::Result<Self> {
        let head = Request::get(format!("http://{address}/")).body(());
        let template = Template::new(&head.map_err(io::Error::other)?);
        let socket = Tcp::new(&[], Clock::Kernel).connect(address).await?;
        let (mux, pump) = Mux::new(socket, Rc::new(template));
        tokio::task::spawn_local(pump);
        mux.met().await.map_err(lost)?;
        Ok(Self(mux))
    }

    /// Sends a request, and reads the answer.
    pub(in crate::load) async fn request(&self) -> io::Result<()> {
        let mut stream = self.0.open(true, None).await.map_err(lost)?;
        stream.head().await.map_err(lost)?;
        while let Some(piece) = stream.piece().await {
            piece.map_err(lost)?;
        }
        Ok(())
    }
}

fn lost(trouble: Trouble) -> io::Error {
    io::Error::other(trouble.failed().cause)
}
