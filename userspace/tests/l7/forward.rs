//! Each part of an exchange arrives as it was sent.

use std::future::poll_fn;

use bytes::Bytes;
use evenkeel::l7::Policy;
use h2::Reason;
use http::{HeaderMap, Request, Response, StatusCode};

use crate::support::*;

fn trailers(name: &'static str, value: &'static str) -> HeaderMap {
    let mut map = HeaderMap::new();
    map.insert(name, value.parse().expect("value"));
    map
}

#[tokio::test]
async fn content_and_trailers_arrive_both_ways() {
    within(async {
        let backend = Backend::start(|(request, mut respond)| async move {
            let (head, content) = request.into_parts();
            let (bytes, trailers) = read(content).await.expect("content");
            assert_eq!(head.headers["grpc-timeout"], "100m");
            assert_eq!(trailers.expect("trailers")["checksum"], "1");
            let mut stream = respond
                .send_response(Response::new(()), false)
                .expect("respond");
            stream.send_data(bytes.into(), false).expect("content");
            stream
                .send_trailers(self::trailers("grpc-status", "0"))
                .expect("trailers");
        })
        .await;
        let (_proxy, address) = proxy(&[backend.address]);
        let mut client = client(address).await;
        let mut request = grpc();
        request
            .headers_mut()
            .insert("grpc-timeout", "100m".parse().expect("value"));
        let (response, mut stream) = send(&mut client, request, false).await;
        stream
            .send_data(Bytes::from_static(b"ping"), false)
            .expect("content");
        stream
            .send_trailers(trailers("checksum", "1"))
            .expect("trailers");
        let (bytes, trailers) = read(response.await.expect("response").into_body())
            .await
            .expect("content");
        assert_eq!(bytes, b"ping");
        assert_eq!(trailers.expect("trailers")["grpc-status"], "0");
    })
    .await;
}

#[tokio::test]
async fn a_trailers_only_response_stays_one() {
    within(async {
        let backend = Backend::start(|(_, mut respond)| async move {
            let response = Response::builder()
                .header("grpc-status", "7")
                .body(())
                .expect("response");
            respond.send_response(response, true).expect("respond");
        })
        .await;
        let (_proxy, address) = proxy(&[backend.address]);
        let response = fetch(&mut client(address).await, grpc())
            .await
            .expect("response");
        assert_eq!(response.headers()["grpc-status"], "7");
        assert!(
            response.body().is_end_stream(),
            "END_STREAM is on the only header block"
        );
    })
    .await;
}

#[tokio::test]
async fn interim_responses_arrive_before_the_response() {
    within(async {
        let backend = Backend::start(|(_, mut respond)| async move {
            for link in ["</a>", "</b>"] {
                let hints = Response::builder()
                    .status(StatusCode::EARLY_HINTS)
                    .header("link", link)
                    .body(())
                    .expect("response");
                respond.send_informational(hints).expect("interim");
            }
            respond
                .send_response(Response::new(()), true)
                .expect("respond");
        })
        .await;
        let (_proxy, address) = proxy(&[backend.address]);
        let (mut response, _) = send(&mut client(address).await, get("/"), true).await;
        let mut links = Vec::new();
        while let Some(interim) = poll_fn(|cx| response.poll_informational(cx)).await {
            links.push(interim.expect("interim").headers()["link"].clone());
        }
        assert_eq!(links, ["</a>", "</b>"]);
        assert_eq!(response.await.expect("response").status(), StatusCode::OK);
    })
    .await;
}

#[tokio::test]
async fn a_client_cancel_reaches_the_backend_with_its_code() {
    within(async {
        let (told, mut reasons) = tokio::sync::mpsc::unbounded_channel();
        let backend = Backend::start(move |(request, mut respond)| {
            let told = told.clone();
            async move {
                let answer = request.uri().path() == "/answered";
                let reason = if answer {
                    let mut stream = respond
                        .send_response(Response::new(()), false)
                        .expect("respond");
                    poll_fn(|cx| stream.poll_reset(cx)).await
                } else {
                    poll_fn(|cx| respond.poll_reset(cx)).await
                };
                told.send(reason.expect("reason")).expect("tell");
            }
        })
        .await;
        let (proxy, address) = proxy(&[backend.address]);
        let mut client = client(address).await;
        for (path, reason) in [("/", Reason::CANCEL), ("/answered", Reason::INTERNAL_ERROR)] {
            let (response, mut stream) = send(&mut client, get(path), false).await;
            let answered = (path == "/answered").then_some(response);
            if let Some(response) = answered {
                response.await.expect("response");
            } else {
                until(|| backend.streams() > 0).await;
            }
            stream.send_reset(reason);
            assert_eq!(reasons.recv().await, Some(reason));
        }
        until(|| proxy.stats().services[0].backends[0].streams_reset == 2).await;
    })
    .await;
}

#[tokio::test]
async fn a_backend_reset_reaches_the_client_with_its_code() {
    within(async {
        let backend = Backend::start(|(request, mut respond)| async move {
            let reason: u32 = request.uri().path()[1..].parse().expect("code");
            respond.send_reset(reason.into());
        })
        .await;
        let (_proxy, address) = proxy(&[backend.address]);
        let mut client = client(address).await;
        for reason in [
            Reason::CANCEL,
            Reason::INTERNAL_ERROR,
            Reason::ENHANCE_YOUR_CALM,
            0x99.into(),
        ] {
            let path = format!("/{}", u32::from(reason));
            let error = fetch(&mut client, get(&path)).await.expect_err("reset");
            assert!(error.is_reset());
            assert_eq!(error.reason(), Some(reason));
        }
        assert_eq!(backend.streams(), 4, "a reset is not retried");
    })
    .await;
}

#[tokio::test]
async fn content_before_a_reset_is_not_lost() {
    within(async {
        let backend = Backend::start(|(_, mut respond)| async move {
            let mut stream = respond
                .send_response(Response::new(()), false)
                .expect("respond");
            stream
                .send_data(Bytes::from_static(b"before"), false)
                .expect("content");
            // The content must leave first: a reset overtakes what waits in the backend's own queue.
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            stream.send_reset(Reason::INTERNAL_ERROR);
        })
        .await;
        let (_proxy, address) = proxy(&[backend.address]);
        let response = fetch(&mut client(address).await, get("/"))
            .await
            .expect("response");
        let mut content = response.into_body();
        assert_eq!(
            content.data().await.expect("content").expect("content"),
            "before"
        );
        let error = content.data().await.expect("end").expect_err("reset");
        assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR));
    })
    .await;
}

#[tokio::test]
async fn an_early_response_ends_the_upload_without_an_error() {
    within(async {
        let backend = Backend::start(|(_, mut respond)| async move {
            let mut stream = respond
                .send_response(Response::new(()), false)
                .expect("respond");
            stream
                .send_data(Bytes::from_static(b"enough"), true)
                .expect("content");
        })
        .await;
        let (_proxy, address) = proxy(&[backend.address]);
        let (response, mut stream) = send(&mut client(address).await, grpc(), false).await;
        let (bytes, _) = read(response.await.expect("response").into_body())
            .await
            .expect("content");
        assert_eq!(bytes, b"enough");
        let reason = poll_fn(|cx| stream.poll_reset(cx)).await.expect("reset");
        assert_eq!(reason, Reason::NO_ERROR);
    })
    .await;
}

#[tokio::test]
async fn a_request_without_authority_is_forwarded() {
    within(async {
        let backend = Backend::named("a").await;
        let (_proxy, address) = proxy(&[backend.address]);
        let mut request = Request::get("/")
            .version(http::Version::HTTP_11)
            .body(())
            .expect("request");
        request
            .headers_mut()
            .insert("host", "test".parse().expect("value"));
        let response = fetch(&mut client(address).await, request)
            .await
            .expect("response");
        assert_eq!(response.status(), StatusCode::OK);
    })
    .await;
}

#[tokio::test]
async fn streams_of_one_connection_are_spread_evenly() {
    within(async {
        for policy in [Policy::RoundRobin, Policy::LeastRequest] {
            let mut backends = Vec::new();
            for name in ["a", "b", "c", "d"] {
                backends.push(Backend::named(name).await);
            }
            let addresses: Vec<_> = backends.iter().map(|backend| backend.address).collect();
            let (_proxy, address) = proxy_with(one_worker(), policy, &addresses);
            let mut client = client(address).await;
            for _ in 0..400 {
                fetch(&mut client, get("/")).await.expect("response");
            }
            let streams: Vec<_> = backends.iter().map(Backend::streams).collect();
            assert_eq!(streams, [100, 100, 100, 100], "{policy}");
            assert!(backends.iter().all(|backend| backend.connections() == 1));
        }
    })
    .await;
}

#[tokio::test]
async fn a_draining_backend_gets_no_new_streams() {
    within(async {
        let (a, b) = (Backend::named("a").await, Backend::named("b").await);
        let (proxy, address) = proxy(&[a.address, b.address]);
        let mut client = client(address).await;
        fetch(&mut client, get("/")).await.expect("response");
        fetch(&mut client, get("/")).await.expect("response");
        let mut spec = service(address, Policy::RoundRobin, &[a.address, b.address]);
        spec.backends[0].draining = true;
        proxy.update(vec![spec]);
        for _ in 0..10 {
            fetch(&mut client, get("/")).await.expect("response");
        }
        assert_eq!((a.streams(), b.streams()), (1, 11));
    })
    .await;
}
