//! `bench-peer`: what the benchmarks measure with where neither evenkeel nor a packaged program will do.
//!
//! * `serve` and `fetch`: the same small requests beside the same download over HTTP/1.1, HTTP/2 and HTTP/3, issued
//!   and timed by the same code, so that only the transport differs;
//! * `sessions` and `hold`: a WebSocket server that keeps what it knows of a session in memory, and clients that come
//!   back when they lose their connection.
//!
//! Every command prints one JSON document on standard output, or one for each line that it reads.

mod fetch;
mod serve;
mod tls;
mod websocket;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "bench-peer")]
struct Arguments {
    #[command(subcommand)]
    command: Commands,
}

#[derive(Subcommand)]
enum Commands {
    /// Serve `/N` with N bytes over HTTP/1.1, HTTP/2 (without TLS) and HTTP/3, until SIGTERM.
    Serve(serve::Args),
    /// Small requests at a fixed rate beside downloads; prints every latency.
    Fetch(fetch::Args),
    /// Serve WebSocket sessions, and say on each connection whether the session is known, until SIGTERM.
    Sessions(websocket::server::Args),
    /// Hold WebSocket sessions, one for each source address; commands on standard input.
    Hold(websocket::clients::Args),
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    // One thread, as the lab gives server and client a processor each.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        match arguments.command {
            Commands::Serve(args) => serve::run(&args).await,
            Commands::Fetch(args) => fetch::run(&args).await,
            Commands::Sessions(args) => websocket::server::run(&args).await,
            Commands::Hold(args) => websocket::clients::run(&args).await,
        }
    })
}
