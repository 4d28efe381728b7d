//! Routes of the control API: requests to closures on the state.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::{Method, StatusCode, Uri};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::handle::{Gone, Handle};
use super::report::FlowQuery;
use super::state::ChangeError;
use crate::api::client::decode;
use crate::api::server::{Answer, Answering, Control};
use crate::api::types::{BackendPatch, BackendRequest, Done, FLOW_STATES, ModeRequest};
use crate::config::parse_duration;

/// The longest interval that a request may wait for.
const MAX_INTERVAL: Duration = Duration::from_secs(3600);

const PATHS: [&str; 9] = [
    "/v1/status",
    "/v1/services",
    "/v1/backends",
    "/v1/flows",
    "/v1/pinning",
    "/v1/explain",
    "/v1/services/NAME/mode",
    "/v1/services/NAME/backends[/IP:PORT]",
    "/v1/reload",
];

/// Answers requests from the state.
#[derive(Clone)]
pub struct Routes {
    handle: Handle,
}

impl Routes {
    /// Routes to the state behind `handle`.
    #[must_use]
    pub fn new(handle: Handle) -> Self {
        Self { handle }
    }
}

impl Control for Routes {
    fn answer(&self, method: Method, uri: Uri, body: Bytes) -> Answering {
        let handle = self.handle.clone();
        Box::pin(async move {
            let routed = route(&handle, &method, &uri, &body).await;
            routed.unwrap_or_else(|failed| failed)
        })
    }
}

/// An answer either way; `Err` is an early one.
type Routed = Result<Answer, Answer>;

async fn route(handle: &Handle, method: &Method, uri: &Uri, body: &Bytes) -> Routed {
    let path: Option<Vec<String>> = uri.path().split('/').skip(1).map(decode).collect();
    let path = path.ok_or_else(|| wrong("the path is not correctly percent-encoded"))?;
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    let query = Query::parse(uri)?;
    match path.as_slice() {
        [
            "v1",
            report @ ("status" | "services" | "backends" | "flows" | "pinning" | "explain"),
        ] => {
            only(method, &Method::GET)?;
            reading(handle, report, query).await
        }
        ["v1", "services", name, "mode"] => {
            only(method, &Method::PUT)?;
            query.end()?;
            let (name, request) = ((*name).to_owned(), json::<ModeRequest>(body)?);
            change(handle, move |state| {
                state.set_mode(&name, request, Instant::now())
            })
            .await
        }
        ["v1", "services", name, "backends"] => {
            only(method, &Method::POST)?;
            query.end()?;
            let (name, request) = ((*name).to_owned(), json::<BackendRequest>(body)?);
            change(handle, move |state| state.add_backend(&name, &request)).await
        }
        ["v1", "services", name, "backends", address] => {
            backend(handle, method, name, address, query, body).await
        }
        ["v1", "reload"] => {
            only(method, &Method::POST)?;
            query.end()?;
            change(handle, super::State::reload).await
        }
        _ => Err(Answer::unknown(
            StatusCode::NOT_FOUND,
            format!("there is no {}", uri.path()),
            PATHS.map(str::to_owned).to_vec(),
        )),
    }
}

async fn reading(handle: &Handle, report: &str, mut query: Query) -> Routed {
    match report {
        "status" => {
            query.end()?;
            read(handle, |state| state.status(Instant::now())).await
        }
        "services" => {
            query.end()?;
            read(handle, |state| state.list_services(Instant::now())).await
        }
        "backends" => {
            let service = query.take("service");
            query.end()?;
            read(handle, move |state| {
                state.list_backends(service.as_deref(), Instant::now())
            })
            .await
        }
        "flows" => {
            let wanted = FlowQuery {
                service: query.take("service"),
                client: query.take("client"),
                backend: query.take("backend"),
                state: query.one_of("state", &FLOW_STATES)?,
                top: query.parsed("top", "a number")?,
            };
            query.end()?;
            read(handle, move |state| state.list_flows(&wanted)).await
        }
        "pinning" => pinning(handle, query).await,
        _ => explain(handle, query).await,
    }
}

async fn explain(handle: &Handle, mut query: Query) -> Routed {
    let client: Option<SocketAddr> = query.parsed("client", "an IP:PORT")?;
    let service = query.take("service");
    query.end()?;
    let (Some(client), Some(service)) = (client, service) else {
        return Err(wrong("`client` and `service` are needed"));
    };
    read(handle, move |state| state.explain(client, &service)).await
}

fn only(method: &Method, allowed: &Method) -> Result<(), Answer> {
    if method == allowed {
        Ok(())
    } else {
        Err(not_allowed(method))
    }
}

async fn backend(
    handle: &Handle,
    method: &Method,
    name: &str,
    address: &str,
    mut query: Query,
    body: &Bytes,
) -> Routed {
    let (name, address) = (name.to_owned(), address.to_owned());
    match *method {
        Method::PATCH => {
            query.end()?;
            let patch = json::<BackendPatch>(body)?;
            change(handle, move |state| {
                state.patch_backend(&name, &address, patch)
            })
            .await
        }
        Method::DELETE => {
            let at_once = query.parsed("now", "true or false")?.unwrap_or(false);
            query.end()?;
            change(handle, move |state| {
                state.remove_backend(&name, &address, at_once, Instant::now())
            })
            .await
        }
        _ => Err(not_allowed(method)),
    }
}

async fn pinning(handle: &Handle, mut query: Query) -> Routed {
    let service = query.take("service");
    let interval = query.take("for");
    query.end()?;
    let Some(text) = interval else {
        return read(handle, move |state| state.pinning(service.as_deref(), None)).await;
    };
    let Some(interval) = parse_duration(&text).filter(|interval| *interval <= MAX_INTERVAL) else {
        return Err(wrong("`for` is a duration up to \"1h\", such as \"5s\""));
    };
    // An unknown service is refused before the wait, not after it.
    let known = service.clone();
    let before = handle.call(move |state| {
        known
            .as_deref()
            .map(|name| state.service(name).map(|_| ()))
            .transpose()?;
        state.observe()
    });
    let before = before
        .await
        .map_err(gone)?
        .map_err(|error| refused(&error))?;
    tokio::time::sleep(interval).await;
    read(handle, move |state| {
        state.pinning(service.as_deref(), Some(&before))
    })
    .await
}

async fn read<T: Serialize + Send + 'static>(
    handle: &Handle,
    work: impl FnOnce(&mut super::State) -> Result<T, ChangeError> + Send + 'static,
) -> Routed {
    match handle.call(work).await.map_err(gone)? {
        Ok(value) => Ok(Answer::ok(&value)),
        Err(error) => Err(refused(&error)),
    }
}

async fn change(
    handle: &Handle,
    work: impl FnOnce(&mut super::State) -> Result<String, ChangeError> + Send + 'static,
) -> Routed {
    read(handle, |state| work(state).map(|done| Done { done })).await
}

fn json<T: DeserializeOwned>(body: &Bytes) -> Result<T, Answer> {
    serde_json::from_slice(body)
        .map_err(|error| wrong(&format!("the body is not as it should be: {error}")))
}

fn wrong(why: &str) -> Answer {
    Answer::problem(StatusCode::BAD_REQUEST, why)
}

fn not_allowed(method: &Method) -> Answer {
    Answer::problem(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{method} is not for this path"),
    )
}

fn gone(gone: Gone) -> Answer {
    Answer::problem(StatusCode::SERVICE_UNAVAILABLE, gone.to_string())
}

fn refused(error: &ChangeError) -> Answer {
    let sentence = error.to_string();
    match error {
        ChangeError::Unknown { known, .. } => {
            Answer::unknown(StatusCode::NOT_FOUND, sentence, known.clone())
        }
        ChangeError::Wrong(_) => Answer::problem(StatusCode::BAD_REQUEST, sentence),
        ChangeError::NotNow(_) => Answer::problem(StatusCode::CONFLICT, sentence),
        ChangeError::Plane(_) => Answer::problem(StatusCode::INTERNAL_SERVER_ERROR, sentence),
    }
}

/// The query of a request; what nobody took is unknown.
struct Query(HashMap<String, String>);

impl Query {
    fn parse(uri: &Uri) -> Result<Self, Answer> {
        let pairs = uri
            .query()
            .unwrap_or("")
            .split('&')
            .filter(|pair| !pair.is_empty());
        let decoded: Option<HashMap<String, String>> = pairs
            .map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                Some((decode(key)?, decode(value)?))
            })
            .collect();
        decoded
            .map(Self)
            .ok_or_else(|| wrong("the query is not correctly percent-encoded"))
    }

    fn take(&mut self, key: &str) -> Option<String> {
        self.0.remove(key)
    }

    fn parsed<T: std::str::FromStr>(&mut self, key: &str, kind: &str) -> Result<Option<T>, Answer> {
        let Some(text) = self.take(key) else {
            return Ok(None);
        };
        text.parse()
            .map(Some)
            .map_err(|_| wrong(&format!("`{key}` is {text:?}; allowed: {kind}")))
    }

    fn one_of(&mut self, key: &str, allowed: &[&str]) -> Result<Option<String>, Answer> {
        match self.take(key) {
            Some(text) if !allowed.contains(&text.as_str()) => Err(wrong(&format!(
                "`{key}` is {text:?}; allowed: {}",
                allowed.join(", ")
            ))),
            text => Ok(text),
        }
    }

    fn end(&self) -> Result<(), Answer> {
        match self.0.keys().min() {
            None => Ok(()),
            Some(key) => Err(wrong(&format!("the query `{key}` is unknown here"))),
        }
    }
}
