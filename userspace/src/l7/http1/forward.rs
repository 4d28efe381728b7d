//! One HTTP/1.1 request, from the client to the end of the backend's response.

use std::rc::Rc;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use tokio::time::Instant;

use super::body::{Outcome, Reply, Upload};
use super::{Client, headers, idle, tunnel};
use crate::l7::detect::Protocol;
use crate::l7::respond::Failure;
use crate::l7::upstream::Pool;
use crate::l7::worker::View;

/// Why a backend did not answer.
enum Unanswered {
    /// It has not seen the request, which is still ours.
    Unsent(Box<Request<Upload>>),
    /// It may have seen it.
    Lost,
}

/// Forwards a request; failures become answers.
pub async fn forward(client: Rc<Client>, request: Request<Incoming>) -> Response<Reply> {
    // hyper takes only `chunked` off, and the field must go: what is below would arrive without its label.
    if headers::has_unknown_coding(request.headers()) {
        return own(Failure::UnknownCoding);
    }
    let Some(view) = client.view() else {
        return own(Failure::NoService);
    };
    if let Some(at) = client.activity.first_look() {
        client.registered.handle.look_at(at);
    }
    let answered = to_backends(&client, &view, request);
    match client.activity.until_expired(answered).await {
        Some(Ok(response)) => response,
        Some(Err(failure)) => own(failure),
        None => own(Failure::TimedOut),
    }
}

async fn to_backends(
    client: &Rc<Client>,
    view: &View,
    mut request: Request<Incoming>,
) -> Result<Response<Reply>, Failure> {
    headers::strip_h2c(request.headers_mut());
    let upgrade = headers::has_upgrade(request.headers());
    let downstream = upgrade.then(|| hyper::upgrade::on(&mut request));
    headers::strip_request(request.headers_mut(), upgrade);
    *request.version_mut() = Version::HTTP_11;
    let mut tried = Vec::new();
    let mut search_ends = None;
    loop {
        let searched_enough = search_ends.is_some_and(|end| Instant::now() >= end);
        let chosen = client.worker.choose(view, Protocol::Http1, &tried);
        let Some((position, in_flight)) = chosen.filter(|_| !searched_enough) else {
            view.counters().no_backend.add(1);
            return Err(Failure::NoBackend);
        };
        let pool = &view.pools[position];
        let activity = client.activity.clone();
        let mut outcome = Outcome::new(pool.clone(), in_flight, client.opened(), activity);
        match send(client, pool, request).await {
            // As with a request's.
            Ok(response) if headers::has_unknown_coding(response.headers()) => {
                outcome.failed();
                return Err(Failure::UnknownAnswer);
            }
            Ok(response) => return Ok(reply(client, response, downstream, outcome)),
            Err(Unanswered::Unsent(unsent)) => {
                outcome.elsewhere();
                tried.push(position);
                search_ends
                    .get_or_insert_with(|| Instant::now() + client.worker.limits.search_time());
                request = unsent.map(|upload| upload.content);
            }
            Err(Unanswered::Lost) => {
                outcome.failed();
                return Err(Failure::UpstreamLost);
            }
        }
    }
}

/// Sends on a kept connection while there is one, else on a new one.
async fn send(
    client: &Client,
    pool: &Rc<Pool>,
    request: Request<Incoming>,
) -> Result<Response<Incoming>, Unanswered> {
    let mut request = request.map(|content| Upload {
        content,
        pool: pool.clone(),
        activity: client.activity.clone(),
    });
    loop {
        let kept = pool.http1.take();
        let fresh = kept.is_none();
        let mut sender = match kept {
            Some(sender) => sender,
            None => match idle::connect(pool).await {
                Ok(sender) => sender,
                Err(error) => {
                    pool.reconnect(&error);
                    return Err(Unanswered::Unsent(Box::new(request)));
                }
            },
        };
        match sender.try_send_request(request).await {
            Ok(response) => {
                pool.answered_http1();
                idle::keep_when_ready(pool.clone(), sender);
                return Ok(response);
            }
            Err(mut error) => match error.take_message() {
                Some(unsent) if fresh => return Err(Unanswered::Unsent(Box::new(unsent))),
                Some(unsent) => request = unsent,
                None => return Err(Unanswered::Lost),
            },
        }
    }
}

fn reply(
    client: &Rc<Client>,
    mut response: Response<Incoming>,
    downstream: Option<OnUpgrade>,
    mut outcome: Outcome,
) -> Response<Reply> {
    let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    let upstream = switches.then(|| hyper::upgrade::on(&mut response));
    headers::strip(response.headers_mut(), switches);
    if let (Some(downstream), Some(upstream)) = (downstream, upstream) {
        tunnel::start(client.clone(), downstream, upstream, outcome);
        return response.map(|_| Reply::Own(None));
    }
    if http_body::Body::is_end_stream(response.body()) {
        outcome.ok();
    }
    response.map(|content| Reply::Backend { content, outcome })
}

fn own(failure: Failure) -> Response<Reply> {
    let text = Bytes::from(format!("evenkeel: {failure}\n"));
    failure.response(false).map(|()| Reply::Own(Some(text)))
}
