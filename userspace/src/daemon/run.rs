//! Start, signals, end.
//!
//! Order of the start: everything that can be wrong without touching the host first (configuration, privileges,
//! another daemon on the socket), then the data path, then the proxy, then the services. So a start that fails leaves
//! the host as it was, and a proxy that is handed a connection knows its service.

use std::io::IsTerminal;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;

use super::control::Routes;
use super::handle::Handle;
use super::kernel::{self, Kernel};
use super::state::State;
use crate::api::server;
use crate::config::{self, Config};
use crate::datapath::{Datapath, DatapathError, capabilities};
use crate::l7::Proxy;
use crate::open_files;

/// How long streams may take to end when the daemon stops.
const GRACE: Duration = Duration::from_secs(10);

/// How to run the daemon.
#[derive(Clone, Debug)]
pub struct Options {
    /// The configuration file.
    pub config: PathBuf,
    /// On a clean stop leave the data path attached.
    pub keep_datapath: bool,
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// The configuration or this host is not as it must be.
pub fn run(options: &Options) -> anyhow::Result<()> {
    log_to_stderr();
    let config = Config::load(&options.config)?;
    if !capabilities::sufficient() {
        return Err(DatapathError::NotPermitted.into());
    }
    config::host::check(&config)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start an event loop")?;
    let listener = runtime.block_on(async { listen(&config) })?;
    let state = start(config)?;
    let socket = state.config.daemon.socket.clone();
    let (handle, ended) = Handle::spawn(state).context("cannot start the state's thread")?;
    let result = runtime.block_on(serve(listener, handle, ended, options.keep_datapath));
    // Gone already if the directory is.
    let _ = std::fs::remove_file(socket);
    result
}

fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("EVENKEEL_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // Fails only where something logs already.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .try_init();
}

fn listen(config: &Config) -> anyhow::Result<UnixListener> {
    let group = match &config.daemon.socket_group {
        None => None,
        Some(name) => Some(
            config::host::group_id(Path::new("/etc/group"), name)
                .with_context(|| format!("there is no group {name:?}"))?,
        ),
    };
    Ok(server::listen(&config.daemon.socket, group)?)
}

/// Opens the data path, starts the proxy, installs the services.
fn start(config: Config) -> anyhow::Result<State> {
    let (datapath, adopted) = Datapath::open(&kernel::options(&config))?;
    match start_on(&datapath, &config) {
        Ok((proxy, listener)) => {
            let kernel = Kernel::new(datapath, &config, listener);
            let adopted = adopted.adopted;
            let state = State::start(
                config,
                Box::new(kernel),
                Box::new(proxy),
                adopted,
                Instant::now(),
            );
            state.context("the services cannot be installed")
        }
        Err(error) => {
            if !adopted.adopted {
                // The first error is the one to tell.
                let _ = datapath.detach();
            }
            Err(error)
        }
    }
}

fn start_on(datapath: &Datapath, config: &Config) -> anyhow::Result<(Proxy, OwnedFd)> {
    for attachment in datapath.attachments() {
        tracing::info!(
            interface = attachment.interface,
            hook = attachment.hook,
            mode = attachment.mode,
            program = attachment.program,
            "attached"
        );
    }
    // Before the first thread starts: threads inherit what this one has.
    capabilities::drop_after_load()?;
    // The proxy needs one for every connection.
    open_files::raise();
    // Never connected to by this address: `sk_lookup` hands it the connections of services.
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let proxy = Proxy::start(config.l7.clone(), &[anywhere])?;
    let listeners = proxy.listener_fds();
    let listener = listeners
        .first()
        .context("the proxy has no listening socket")?
        .try_clone_to_owned()?;
    Ok((proxy, listener))
}

/// Serves the control socket until a signal says to stop.
async fn serve(
    listener: UnixListener,
    handle: Handle,
    mut ended: oneshot::Receiver<()>,
    keep_datapath: bool,
) -> anyhow::Result<()> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let serving = tokio::spawn(server::serve(
        listener,
        Arc::new(Routes::new(handle.clone())),
    ));
    notify_ready();
    tracing::info!("ready");
    loop {
        tokio::select! {
            _ = hangup.recv() => reload(&handle).await,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = &mut ended => bail!("the state's thread has ended: this is a defect of evenkeel"),
        }
    }
    tracing::info!(keep_datapath, "stopping");
    serving.abort();
    tokio::select! {
        stopped = handle.stop(keep_datapath, GRACE) => stopped.context("the data path cannot be taken off"),
        _ = terminate.recv() => bail!("told a second time to stop: streams under way are cut off"),
        _ = interrupt.recv() => bail!("told a second time to stop: streams under way are cut off"),
    }
}

async fn reload(handle: &Handle) {
    match handle.call(State::reload).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => tracing::error!("reload failed, nothing has changed: {error}"),
        Err(gone) => tracing::error!("reload failed: {gone}"),
    }
}

/// Tells systemd that the daemon is ready (`Type=notify`, sd_notify(3)).
fn notify_ready() {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    let sent = std::os::unix::net::UnixDatagram::unbound()
        .and_then(|socket| socket.send_to(b"READY=1", &path));
    if let Err(error) = sent {
        tracing::debug!(%error, "systemd cannot be told");
    }
}
