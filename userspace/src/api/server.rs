//! The control socket: who may connect, how many, how much they may say.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::net::UnixListener;
use tokio::sync::Semaphore;

use super::types::Problem;

/// Connections served at once; more wait in the socket's backlog.
const MAX_CONNECTIONS: usize = 64;
/// The largest body: far above any request that makes sense, far below what would hurt.
const MAX_BODY: usize = 64 * 1024;
/// How long a client may take to send its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take to send its request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Why the control socket cannot be opened.
#[derive(Debug, Error)]
pub enum SocketError {
    /// A daemon answers there.
    #[error("another evenkeel already listens on {}: stop it, or set another `daemon.socket`", .0.display())]
    InUse(PathBuf),
    /// Something that is no socket is in the way.
    #[error("{} exists and is not a socket: remove it, or set another `daemon.socket`", .0.display())]
    NotASocket(PathBuf),
    /// The system refused.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// An answer of the API, before it is put on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// JSON text.
    pub body: String,
}

impl Answer {
    /// 200 with `value`.
    #[must_use]
    pub fn ok(value: &impl serde::Serialize) -> Self {
        match serde_json::to_string(value) {
            Ok(body) => Self {
                status: StatusCode::OK,
                body,
            },
            Err(error) => Self::problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
        }
    }

    /// A failure in one sentence.
    #[must_use]
    pub fn problem(status: StatusCode, error: impl Into<String>) -> Self {
        Self::unknown(status, error, Vec::new())
    }

    /// A failure that lists what there is.
    #[must_use]
    pub fn unknown(status: StatusCode, error: impl Into<String>, known: Vec<String>) -> Self {
        let problem = Problem {
            error: error.into(),
            known,
        };
        let body = serde_json::to_string(&problem);
        Self {
            status,
            body: body.unwrap_or_else(|_| "{\"error\":\"unprintable\"}".to_owned()),
        }
    }
}

/// A future of an [`Answer`].
pub type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

/// Who answers requests.
pub trait Control: Send + Sync + 'static {
    /// Answers one request, whose body was read within bounds.
    fn answer(&self, method: Method, uri: Uri, body: Bytes) -> Answering;
}

/// Opens the control socket for root and, if given, a group. A socket that a dead daemon left behind is replaced.
///
/// # Errors
/// Another daemon listens there, something else is in the way, or the system refuses.
pub fn listen(path: &Path, group: Option<u32>) -> Result<UnixListener, SocketError> {
    let failed = |action: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source| SocketError::Io {
            action,
            path,
            source,
        }
    };
    let directory = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(directory).map_err(failed("create", directory))?;
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(SocketError::NotASocket(path.to_owned()));
        }
        Ok(_) if StdUnixStream::connect(path).is_ok() => {
            return Err(SocketError::InUse(path.to_owned()));
        }
        _ => {}
    }
    // Bound in a directory that nobody else can enter and moved once its mode is right: at its final name the socket
    // is never open to more than it should be.
    let private = directory.join(format!(".evenkeel-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&private);
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(&private)
        .map_err(failed("create", &private))?;
    let opened = open_private(&private.join("s"), path, group);
    let _ = std::fs::remove_dir_all(&private);
    opened.map_err(failed("open the control socket", path))
}

fn open_private(private: &Path, path: &Path, group: Option<u32>) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(private)?;
    let mode = if group.is_some() { 0o660 } else { 0o600 };
    std::fs::set_permissions(private, PermissionsExt::from_mode(mode))?;
    if group.is_some() {
        chown(private, None, group)?;
    }
    std::fs::rename(private, path)?;
    Ok(listener)
}

/// Serves until the future is dropped.
pub async fn serve(listener: UnixListener, control: Arc<dyn Control>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Out of file descriptors, mostly: waiting is what helps.
                tracing::warn!(%error, "the control socket cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let control = Arc::clone(&control);
        tokio::spawn(async move {
            let service = service_fn(move |request| handle(request, Arc::clone(&control)));
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(MAX_BODY)
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a control connection ended early");
            }
            drop(permit);
        });
    }
}

async fn handle(
    request: Request<Incoming>,
    control: Arc<dyn Control>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let read = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await;
    let answer = match read {
        Ok(Ok(body)) => control.answer(head.method, head.uri, body.to_bytes()).await,
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Answer::problem(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is larger than {MAX_BODY} bytes"),
        ),
        Ok(Err(_)) => Answer::problem(StatusCode::BAD_REQUEST, "the body is cut short"),
        Err(_) => Answer::problem(
            StatusCode::REQUEST_TIMEOUT,
            "the body did not arrive in time",
        ),
    };
    let mut body = answer.body;
    // So that curl's output ends in a line break.
    body.push('\n');
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = answer.status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}
