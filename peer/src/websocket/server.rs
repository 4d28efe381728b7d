//! `bench-peer sessions`.

use std::{cell::RefCell, collections::HashSet, net::SocketAddr, rc::Rc, time::Duration};

use anyhow::{Context as _, Result};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinSet, LocalSet};
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

/// How long clients may take to answer a close.
const GRACE: Duration = Duration::from_secs(1);

/// Arguments of `bench-peer sessions`.
#[derive(clap::Args)]
pub struct Args {
    /// Address to serve on.
    #[arg(long)]
    listen: SocketAddr,
    /// Name of this server.
    #[arg(long)]
    name: String,
}

type Known = Rc<RefCell<HashSet<String>>>;

pub async fn run(args: &Args) -> Result<()> {
    LocalSet::new().run_until(serve(args)).await
}

async fn serve(args: &Args) -> Result<()> {
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("listen on {}", args.listen))?;
    eprintln!("listening on {}", listener.local_addr()?);
    let (leave, leaving) = watch::channel(false);
    let known = Known::default();
    let mut connections = JoinSet::new();
    let mut stop = signal(SignalKind::terminate())?;
    loop {
        tokio::select! {
            _ = stop.recv() => break,
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                let session = session(stream, args.name.clone(), Rc::clone(&known), leaving.clone());
                connections.spawn_local(session);
            }
            // So that those that ended do not pile up.
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    leave.send_replace(true);
    let all = async { while connections.join_next().await.is_some() {} };
    // Whoever does not answer loses his connection when we end.
    let _ = tokio::time::timeout(GRACE, all).await;
    Ok(())
}

async fn session(
    stream: TcpStream,
    name: String,
    known: Known,
    mut leaving: watch::Receiver<bool>,
) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut number = String::new();
    #[expect(
        clippy::result_large_err,
        reason = "the callback's type is tungstenite's"
    )]
    let note = |request: &Request, response: Response| {
        number = request.uri().path().to_owned();
        Ok(response)
    };
    let mut socket = accept_hdr_async(stream, note).await?;
    let word = if known.borrow_mut().insert(number) {
        "new"
    } else {
        "found"
    };
    socket.send(Message::text(format!("{word} {name}"))).await?;
    loop {
        tokio::select! {
            _ = leaving.wait_for(|leaving| *leaving) => {
                let going_away = CloseFrame { code: CloseCode::Away, reason: "draining".into() };
                return Ok(socket.close(Some(going_away)).await?);
            }
            message = socket.next() => match message {
                Some(message) => {
                    let message = message?;
                    if message.is_text() || message.is_binary() {
                        socket.send(message).await?;
                    }
                }
                None => return Ok(()),
            }
        }
    }
}
