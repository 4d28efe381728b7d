//! Streams in which nothing moves, by the same clock.

use std::future::poll_fn;

use h2::Reason;
use h2::client::{ResponseFuture, SendRequest};
use http::StatusCode;

use super::*;

const PATIENCE_MS: u64 = 100_000;
const PATIENCE: Duration = Duration::from_millis(PATIENCE_MS);

/// What a backend sees.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Stream,
    Reset(Reason),
}

/// Lets time pass by the test's clock. What peers say to each other takes time by no clock: so before and after it stands on
/// the system's, as nobody can tell how much would pass on the other.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::sleep(time).await;
    tokio::time::resume();
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

/// A backend that takes what comes, sends the head of each response or not even that, and tells what it sees.
async fn silent(answers: bool) -> (SocketAddr, mpsc::UnboundedReceiver<Seen>) {
    let (told, seen) = mpsc::unbounded_channel();
    let address = backend(move |socket| {
        let told = told.clone();
        async move {
            let mut connection = h2::server::handshake(socket).await.expect("handshake");
            while let Some(Ok((request, respond))) = connection.accept().await {
                let _ = told.send(Seen::Stream);
                spawn_local(take(request.into_body(), respond, answers, told.clone()));
            }
        }
    })
    .await;
    (address, seen)
}

async fn take(
    mut request: h2::RecvStream,
    mut respond: h2::server::SendResponse<Bytes>,
    answers: bool,
    told: mpsc::UnboundedSender<Seen>,
) {
    let reading = async move {
        while let Some(Ok(chunk)) = request.data().await {
            let _ = request.flow_control().release_capacity(chunk.len());
        }
        std::future::pending::<()>().await;
    };
    let reset = async move {
        if !answers {
            return poll_fn(|cx| respond.poll_reset(cx)).await;
        }
        let head = respond.send_response(Response::new(()), false);
        let mut content = head.expect("head");
        poll_fn(|cx| content.poll_reset(cx)).await
    };
    tokio::select! {
        () = reading => {}
        code = reset => {
            let _ = told.send(Seen::Reset(code.expect("connected")));
        }
    }
}

/// A request without content, of a client of gRPC or another.
fn get(client: &mut SendRequest<Bytes>, content_type: &str) -> ResponseFuture {
    let request = Request::get("http://test/")
        .header("content-type", content_type)
        .body(())
        .expect("request");
    client.send_request(request, true).expect("send").0
}

#[tokio::test]
async fn a_stream_that_its_backend_does_not_answer_is_answered_and_counted() {
    on_one_thread(async {
        let (backend, mut seen) = silent(false).await;
        let world = World::with(PATIENCE_MS, backend);
        let (mut client, _connection) = world.http2().await;
        let plain = get(&mut client, "text/plain");
        let grpc = get(&mut client, "application/grpc");
        for _ in 0..2 {
            assert_eq!(seen.recv().await, Some(Seen::Stream));
        }
        tokio::time::pause();
        let plain = plain.await.expect("an answer");
        assert_eq!(plain.status(), StatusCode::GATEWAY_TIMEOUT);
        let grpc = grpc.await.expect("an answer");
        assert_eq!(grpc.status(), StatusCode::OK);
        assert_eq!(grpc.headers()["grpc-status"], "4");
        for _ in 0..2 {
            assert_eq!(seen.recv().await, Some(Seen::Reset(Reason::CANCEL)));
        }
        let stats = &world.stats().backends[0];
        assert_eq!((stats.streams_timed_out, stats.streams_active), (2, 0));
    })
    .await;
}

#[tokio::test]
async fn a_stream_whose_response_stops_is_reset_on_both_sides() {
    on_one_thread(async {
        let (backend, mut seen) = silent(true).await;
        let world = World::with(PATIENCE_MS, backend);
        let (mut client, _connection) = world.http2().await;
        let response = get(&mut client, "text/plain").await.expect("head");
        tokio::time::pause();
        let end = response.into_body().data().await.expect("no end");
        assert_eq!(end.expect_err("reset").reason(), Some(Reason::CANCEL));
        assert_eq!(seen.recv().await, Some(Seen::Stream));
        assert_eq!(seen.recv().await, Some(Seen::Reset(Reason::CANCEL)));
        assert_eq!(world.stats().backends[0].streams_timed_out, 1);
    })
    .await;
}

#[tokio::test]
async fn a_stream_is_not_idle_while_its_request_moves() {
    on_one_thread(async {
        let (backend, _seen) = silent(false).await;
        let world = World::with(PATIENCE_MS, backend);
        let (mut client, _connection) = world.http2().await;
        let request = Request::post("http://test/").body(()).expect("request");
        let (response, mut content) = client.send_request(request, false).expect("send");
        for round in 1..=6 {
            pass(PATIENCE / 2).await;
            let message = Bytes::from_static(b"still here");
            content.send_data(message, false).expect("not reset");
            until(|| world.stats().backends[0].request_bytes == 10 * round).await;
        }
        assert_eq!(world.stats().backends[0].streams_timed_out, 0);
        tokio::time::pause();
        let response = response.await.expect("an answer");
        assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    })
    .await;
}

#[tokio::test]
async fn a_stream_is_not_idle_while_its_response_moves() {
    on_one_thread(async {
        let (go, going) = watch::channel(0);
        let address = backend(move |socket| {
            let going = going.clone();
            async move {
                let mut connection = h2::server::handshake(socket).await.expect("handshake");
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    let mut going = going.clone();
                    spawn_local(async move {
                        let head = respond.send_response(Response::new(()), false);
                        let mut content = head.expect("head");
                        while going.changed().await.is_ok() {
                            let event = Bytes::from_static(b".");
                            content.send_data(event, false).expect("not reset");
                        }
                    });
                }
            }
        })
        .await;
        let world = World::with(PATIENCE_MS, address);
        let (mut client, _connection) = world.http2().await;
        let response = get(&mut client, "text/plain").await.expect("head");
        let mut content = response.into_body();
        for round in 1..=6 {
            pass(PATIENCE / 2).await;
            go.send(round).expect("a stream");
            let event = content.data().await.expect("no end");
            assert_eq!(event.expect("not reset"), ".");
        }
        assert_eq!(world.stats().backends[0].streams_timed_out, 0);
    })
    .await;
}

#[tokio::test]
async fn pings_keep_no_stream() {
    on_one_thread(async {
        let (backend, mut seen) = silent(false).await;
        let world = World::with(PATIENCE_MS, backend);
        let socket = TcpStream::connect(world.address).await.expect("connect");
        let (mut client, mut connection) = h2::client::handshake(socket).await.expect("handshake");
        let mut pings = connection.ping_pong().expect("the first to ask");
        spawn_local(connection);
        let response = get(&mut client, "text/plain");
        assert_eq!(seen.recv().await, Some(Seen::Stream));
        for _ in 0..9 {
            pass(PATIENCE / 8).await;
            pings.ping(h2::Ping::opaque()).await.expect("answered");
        }
        let response = response.await.expect("an answer");
        assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    })
    .await;
}

/// A client whose streams have no window for any content.
async fn without_windows(world: &World) -> SendRequest<Bytes> {
    let socket = TcpStream::connect(world.address).await.expect("connect");
    let mut builder = h2::client::Builder::new();
    let (client, connection) = builder
        .initial_window_size(0)
        .handshake(socket)
        .await
        .expect("handshake");
    spawn_local(connection);
    client
}

#[tokio::test]
async fn a_client_that_opens_no_window_holds_no_stream() {
    on_one_thread(async {
        let world = World::with(PATIENCE_MS, endless_http2().await);
        let mut client = without_windows(&world).await;
        let response = get(&mut client, "text/plain").await.expect("head");
        tokio::time::pause();
        let end = response.into_body().data().await.expect("no end");
        assert_eq!(end.expect_err("reset").reason(), Some(Reason::CANCEL));
        let stats = &world.stats().backends[0];
        assert_eq!((stats.streams_timed_out, stats.streams_active), (1, 0));
    })
    .await;
}

#[tokio::test]
async fn a_client_that_opens_no_window_for_an_answer_holds_no_connection() {
    on_one_thread(async {
        let (backend, release) = held_http2_with(Bytes::from_static(b"all of it")).await;
        release.send(true).expect("release");
        let world = World::with(PATIENCE_MS, backend);
        let mut client = without_windows(&world).await;
        let _response = get(&mut client, "text/plain").await.expect("head");
        until(|| world.stats().backends[0].streams_ok == 1).await;
        pass(IDLE_TIMEOUT + PATIENCE / 2).await;
        assert_eq!(world.stats().connections_active, 1, "asked to go away");
        pass(PATIENCE).await;
        assert_eq!(world.stats().connections_active, 0, "closed");
    })
    .await;
}
