//! Start, signals, end.
//!
//! Signals are listened to from the first moment: one that comes while the data path is being loaded stops the daemon as soon
//! as it can take everything off again.
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
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tracing_subscriber::EnvFilter;

use super::checks;
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
    let signals = runtime.block_on(async { Signals::new() })?;
    let listener = runtime.block_on(async { listen(&config) })?;
    let state = start(config)?;
    let socket = state.config.daemon.socket.clone();
    let interfaces = state.config.interfaces.iter();
    let attached: Vec<String> = interfaces.map(|interface| interface.name.clone()).collect();
    let (handle, ended) = Handle::spawn(state).context("cannot start the state's thread")?;
    let result = runtime.block_on(serve(
        listener,
        handle,
        ended,
        signals,
        options.keep_datapath,
    ));
    // Gone already if the directory is.
    let _ = std::fs::remove_file(socket);
    if result? == Stopped::CutShort {
        bail!(
            "told a second time to stop: streams under way are cut off, and the data path stays attached to {}, where `evenkeel run` takes it over",
            attached.join(", ")
        );
    }
    Ok(())
}

/// The signals that the daemon acts on.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

/// How it came to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stopped {
    Clean,
    /// A second signal came before it was done.
    CutShort,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
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
    signals: Signals,
    keep_datapath: bool,
) -> anyhow::Result<Stopped> {
    let Signals {
        mut hangup,
        mut terminate,
        mut interrupt,
    } = signals;
    let serving = tokio::spawn(server::serve(
        listener,
        Arc::new(Routes::new(handle.clone())),
    ));
    // Ends with the state.
    tokio::spawn(checks::run(handle.clone()));
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
        stopped = handle.stop(keep_datapath, GRACE) => {
            stopped.context("the data path cannot be taken off")?;
            Ok(Stopped::Clean)
        }
        _ = terminate.recv() => Ok(Stopped::CutShort),
        _ = interrupt.recv() => Ok(Stopped::CutShort),
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
