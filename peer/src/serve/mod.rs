//! `bench-peer serve`.

mod quic;
mod tcp;

use std::{net::SocketAddr, path::PathBuf};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// The longest answer.
const MOST: usize = 16 << 20;

/// Arguments of `bench-peer serve`.
#[derive(clap::Args)]
pub struct Args {
    /// Address to serve on: TCP for HTTP/1.1 and HTTP/2, UDP for HTTP/3.
    #[arg(long)]
    listen: SocketAddr,
    /// Where to write the certificate that HTTP/3 clients must trust.
    #[arg(long)]
    certificate: PathBuf,
    /// Name of this server, in the `evenkeel-backend` header of every answer.
    #[arg(long, default_value = "peer")]
    name: http::HeaderValue,
}

/// What every answer is made of.
#[derive(Clone)]
struct Answers {
    name: http::HeaderValue,
    filler: Bytes,
}

impl Answers {
    /// The head and the body of the answer to `path`.
    fn to(&self, path: &str) -> (http::response::Parts, Bytes) {
        let wanted: Option<usize> = path.trim_start_matches('/').parse().ok();
        let mut answer = http::Response::new(());
        answer
            .headers_mut()
            .insert("evenkeel-backend", self.name.clone());
        let Some(length) = wanted.filter(|length| *length <= MOST) else {
            *answer.status_mut() = http::StatusCode::NOT_FOUND;
            return (answer.into_parts().0, Bytes::new());
        };
        answer.headers_mut().insert("content-length", length.into());
        (answer.into_parts().0, self.filler.slice(..length))
    }
}

pub async fn run(args: &Args) -> Result<()> {
    let answers = Answers {
        name: args.name.clone(),
        filler: Bytes::from(vec![b'.'; MOST]),
    };
    let tcp = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("listen on {}", args.listen))?;
    // Port 0 is any for TCP; UDP takes the same.
    let listen = tcp.local_addr()?;
    let quic = quinn::Endpoint::server(crate::tls::server(&args.certificate)?, listen)?;
    let mut stop = signal(SignalKind::terminate())?;
    eprintln!("listening on {listen}");
    tokio::select! {
        _ = stop.recv() => Ok(()),
        ended = tcp::serve(tcp, answers.clone()) => ended,
        () = quic::serve(quic, answers) => Ok(()),
    }
}
