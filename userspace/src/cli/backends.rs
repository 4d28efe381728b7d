//! `evenkeel backends`: list, add, drain, undrain, weight, remove.

use clap::Subcommand;
use hyper::Method;

use super::Global;
use super::output::{Paint, Side, Table, print, print_json};
use super::units::{bytes, count, seconds};
use crate::api::client::encode;
use crate::api::types::{BackendPatch, BackendRequest, BackendState, Backends, Check, Done};

/// Arguments of `evenkeel backends`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    /// Only backends of this service.
    #[arg(long, value_name = "SERVICE")]
    service: Option<String>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List backends with their state and counters.
    ///
    /// STATE is active, draining (keeps what it has, takes nothing new), or down: it fails its checks, or at l7 the proxy
    /// cannot connect to it; it gets nothing new until that changes, unless all fail their checks. At l4 only checks find that out ([service.health] in the
    /// configuration): without them a dead backend must be drained or removed. CHECK says since when checks find it up or
    /// down, and why the last one failed.
    List {
        /// Only backends of this service.
        service: Option<String>,
    },
    /// Add a backend to a service; survives a restart.
    Add {
        /// Name or address of the service.
        service: String,
        /// IP:PORT of the backend.
        backend: String,
        /// Share of new flows and streams relative to the other backends.
        #[arg(long, value_parser = clap::value_parser!(u32))]
        weight: Option<u32>,
    },
    /// Send a backend nothing new; what it has stays.
    Drain {
        /// Name or address of the service.
        service: String,
        /// IP:PORT of the backend.
        backend: String,
    },
    /// End a drain.
    Undrain {
        /// Name or address of the service.
        service: String,
        /// IP:PORT of the backend.
        backend: String,
    },
    /// Set a backend's weight: 0 (takes nothing new) to 1000.
    Weight {
        /// Name or address of the service.
        service: String,
        /// IP:PORT of the backend.
        backend: String,
        /// The weight.
        weight: u32,
    },
    /// Drain a backend, then remove it once nothing is open on it (after a minute at the latest).
    Remove {
        /// Name or address of the service.
        service: String,
        /// IP:PORT of the backend.
        backend: String,
        /// Do not drain first.
        #[arg(long)]
        now: bool,
    },
}

pub(super) fn run(args: &Args, global: &Global) -> anyhow::Result<()> {
    let Some(action) = &args.action else {
        return list(args.service.as_deref(), global);
    };
    let patch = |service: &str, backend: &str, patch: BackendPatch| {
        change(global, Method::PATCH, &one(service, backend), &patch)
    };
    match action {
        Action::List { service } => list(service.as_deref(), global),
        Action::Add {
            service,
            backend,
            weight,
        } => {
            let request = BackendRequest {
                address: backend.clone(),
                weight: *weight,
            };
            let path = format!("/v1/services/{}/backends", encode(service));
            change(global, Method::POST, &path, &request)
        }
        Action::Drain { service, backend } => patch(
            service,
            backend,
            BackendPatch {
                draining: Some(true),
                weight: None,
            },
        ),
        Action::Undrain { service, backend } => patch(
            service,
            backend,
            BackendPatch {
                draining: Some(false),
                weight: None,
            },
        ),
        Action::Weight {
            service,
            backend,
            weight,
        } => patch(
            service,
            backend,
            BackendPatch {
                weight: Some(*weight),
                draining: None,
            },
        ),
        Action::Remove {
            service,
            backend,
            now,
        } => {
            let path = format!("{}?now={now}", one(service, backend));
            change(global, Method::DELETE, &path, &())
        }
    }
}

fn one(service: &str, backend: &str) -> String {
    format!(
        "/v1/services/{}/backends/{}",
        encode(service),
        encode(backend)
    )
}

/// Sends a change and prints what the daemon did.
pub(super) fn change(
    global: &Global,
    method: Method,
    path: &str,
    body: &impl serde::Serialize,
) -> anyhow::Result<()> {
    let done: Done = global.client()?.send(method, path, body)?;
    if global.json {
        print_json(&done)
    } else {
        print(&done.done)
    }
}

fn list(service: Option<&str>, global: &Global) -> anyhow::Result<()> {
    let path = match service {
        Some(service) => format!("/v1/backends?service={}", encode(service)),
        None => "/v1/backends".to_owned(),
    };
    let backends: Backends = global.client()?.get(&path)?;
    if global.json {
        return print_json(&backends);
    }
    let paint = Paint {
        on: global.coloured(),
    };
    let mut columns = vec![
        ("SERVICE", Side::Left),
        ("BACKEND", Side::Left),
        ("STATE", Side::Left),
        ("WEIGHT", Side::Right),
        ("FLOWS OPEN", Side::Right),
        ("FLOWS", Side::Right),
        ("STREAMS", Side::Right),
        ("PACKETS", Side::Right),
        ("BYTES", Side::Right),
    ];
    let checked = backends.backends.iter().any(|b| b.check.is_some());
    columns.extend(checked.then_some(("CHECK", Side::Left)));
    let mut table = Table::new(&columns);
    for backend in backends.backends {
        let state = match backend.state {
            BackendState::Active => paint.good(backend.state.name()),
            BackendState::Draining => paint.warn(backend.state.name()),
            BackendState::Down => paint.bad(backend.state.name()),
        };
        let check = checked.then(|| backend.check.as_ref().map_or_else(String::new, told));
        let mut cells = vec![
            backend.service,
            backend.address.to_string(),
            state,
            backend.weight.to_string(),
            count(backend.flows),
            count(backend.counters.flows_opened),
            count(backend.streams),
            count(backend.packets),
            bytes(backend.bytes),
        ];
        cells.extend(check);
        table.row(cells);
    }
    print(&table.render("", paint))
}

/// What a check says, in a few words.
fn told(check: &Check) -> String {
    let Check {
        up,
        for_seconds,
        failure,
    } = check;
    let found = match up {
        None => return "not yet".to_owned(),
        Some(true) => "up",
        Some(false) => "down",
    };
    let why = failure
        .as_ref()
        .map_or_else(String::new, |why| format!(": {why}"));
    format!("{found} for {}{why}", seconds(*for_seconds))
}
