//! A connection against a peer that sends what the test says, frame by frame.

use h2::Reason;
use h2::frame::{self, Frame, Pseudo};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::task::{JoinHandle, LocalSet};

mod peer;
mod windows;

use peer::Peer;

use super::*;
use crate::load::RESPONSE_SIZE_HEADER;
use crate::load::driver::record::Failure;

/// What became of a request whose answer is read to its end.
type Outcome = JoinHandle<Result<Vec<u8>, Trouble>>;

fn get(mux: &Rc<Mux>) -> Outcome {
    let mux = Rc::clone(mux);
    tokio::task::spawn_local(async move {
        let mut stream = mux.open(true, None).await?;
        stream.head().await?;
        let mut body = Vec::new();
        while let Some(piece) = stream.piece().await {
            body.extend_from_slice(&piece?);
        }
        Ok(body)
    })
}

fn class(outcome: Result<Vec<u8>, Trouble>) -> (bool, Failure) {
    match outcome.unwrap_err() {
        Trouble::NotProcessed(failed) => (true, failed.class),
        Trouble::Failed(failed) => (false, failed.class),
    }
}

fn local(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    LocalSet::new().block_on(&runtime, test);
}

#[test]
fn every_request_has_the_same_head_whatever_table_the_peer_keeps() {
    local(async {
        for size in [None, Some(0), Some(100), Some(4096), Some(65536)] {
            for long in [10, 3000, 40_000] {
                let mut settings = frame::Settings::default();
                settings.set_header_table_size(size);
                let mut request = http::Request::post("http://host:8080/path?query")
                    .body(())
                    .unwrap();
                let value = HeaderValue::from_str(&"v".repeat(long)).unwrap();
                request.headers_mut().insert("first", value.clone());
                request.headers_mut().insert("second", value);
                let (mux, mut peer) = Peer::meet_with(settings, &request).await;
                peer.0.set_max_recv_header_list_size(1 << 20);
                for _ in 0..3 {
                    let outcome = get(&mux);
                    let Frame::Headers(head) = peer.hear().await else {
                        panic!("a request was expected");
                    };
                    let id = head.stream_id();
                    assert!(head.is_end_stream());
                    let (pseudo, fields) = head.into_parts();
                    assert_eq!(pseudo.method, Some(http::Method::POST));
                    assert_eq!(pseudo.scheme.as_deref(), Some("http"));
                    assert_eq!(pseudo.authority.as_deref(), Some("host:8080"));
                    assert_eq!(pseudo.path.as_deref(), Some("/path?query"));
                    assert_eq!(&fields, request.headers(), "{size:?} {long}");
                    peer.answer(id, &[], true).await;
                    assert_eq!(outcome.await.unwrap().unwrap(), b"");
                }
            }
        }
    });
}

#[test]
fn a_request_asks_for_its_own_size_of_answer_behind_the_head_that_all_share() {
    local(async {
        let (mux, mut peer) = Peer::meet(frame::Settings::default()).await;
        for size in [None, Some(0), Some(70_000), None] {
            let mut stream = mux.open(true, size).await.unwrap();
            let Frame::Headers(head) = peer.hear().await else {
                panic!("a request was expected");
            };
            let id = head.stream_id();
            let (_, fields) = head.into_parts();
            let asked = fields
                .get(RESPONSE_SIZE_HEADER)
                .map(|size| size.to_str().unwrap());
            assert_eq!(
                asked.map(str::to_owned),
                size.map(|size: u64| size.to_string())
            );
            assert_eq!(fields["evenkeel-name"], "value");
            peer.answer(id, &[], true).await;
            stream.head().await.unwrap();
        }
    });
}

#[test]
fn an_answer_to_head_has_the_length_of_a_body_that_does_not_come() {
    local(async {
        let request = http::Request::head("http://host/").body(()).unwrap();
        let (mux, mut peer) = Peer::meet_with(frame::Settings::default(), &request).await;
        let outcome = get(&mux);
        let id = peer.opened().await;
        peer.answer(id, &[("content-length", "3")], true).await;
        assert_eq!(outcome.await.unwrap().unwrap(), b"");
    });
}

#[test]
fn no_more_streams_are_open_than_the_peer_takes() {
    local(async {
        let mut settings = frame::Settings::default();
        settings.set_max_concurrent_streams(Some(2));
        let (mux, mut peer) = Peer::meet(settings).await;
        let outcomes: Vec<Outcome> = (0..5).map(|_| get(&mux)).collect();
        let (first, second) = (peer.opened().await, peer.opened().await);
        // A PING comes back before anything else: nothing else was sent.
        peer.say(frame::Ping::new([7; 8])).await;
        assert!(matches!(peer.hear().await, Frame::Ping(ping) if ping.is_ack()));
        peer.answer(second, &[], true).await;
        let third = peer.opened().await;
        let mut more = frame::Settings::default();
        more.set_max_concurrent_streams(Some(4));
        peer.say(more).await;
        assert!(matches!(peer.hear().await, Frame::Settings(_)));
        let rest = [peer.opened().await, peer.opened().await];
        for id in [first, third, rest[0], rest[1]] {
            peer.answer(id, &[], true).await;
        }
        for outcome in outcomes {
            assert!(outcome.await.unwrap().is_ok());
        }
    });
}

#[test]
fn what_the_peer_did_not_process_is_told_apart_from_what_failed() {
    local(async {
        let (mux, mut peer) = Peer::meet(frame::Settings::default()).await;
        let outcomes: Vec<Outcome> = (0..4).map(|_| get(&mux)).collect();
        let mut ids = Vec::new();
        for _ in &outcomes {
            ids.push(peer.opened().await);
        }
        peer.say(frame::Reset::new(ids[0], Reason::REFUSED_STREAM))
            .await;
        peer.say(frame::Reset::new(ids[1], Reason::INTERNAL_ERROR))
            .await;
        peer.say(frame::GoAway::new(ids[2], Reason::NO_ERROR)).await;
        peer.answer(ids[2], &[], true).await;
        let mut seen = Vec::new();
        for outcome in outcomes {
            seen.push(outcome.await.unwrap());
        }
        let last = seen.split_off(3);
        assert!(seen.pop().unwrap().is_ok(), "below the last stream");
        let seen: Vec<_> = seen.into_iter().chain(last).map(class).collect();
        assert_eq!(
            seen,
            [
                (true, Failure::Refused),
                (false, Failure::Reset),
                (true, Failure::Refused)
            ]
        );
        assert!(!mux.takes_more());
        assert_eq!(class(get(&mux).await.unwrap()), (true, Failure::Refused));
        // The last stream is over: the connection is closed in order.
        assert!(matches!(peer.hear().await, Frame::GoAway(_)));
        assert!(peer.next().await.is_none());
    });
}

#[test]
fn malformed_answers_fail_their_stream_only() {
    local(async {
        let (mux, mut peer) = Peer::meet(frame::Settings::default()).await;
        for case in 0..5 {
            let outcome = get(&mux);
            let id = peer.opened().await;
            match case {
                0 => peer.data(id, b"before the head", false).await,
                1 => peer.answer(id, &[("content-length", "3")], true).await,
                2 => {
                    peer.answer(id, &[("content-length", "3")], false).await;
                    peer.data(id, b"four", false).await;
                }
                3 => {
                    peer.answer(id, &[], false).await;
                    peer.answer(id, &[], true).await;
                }
                _ => {
                    peer.say(frame::Headers::trailers(id, HeaderMap::new()))
                        .await;
                }
            }
            assert_eq!(
                class(outcome.await.unwrap()),
                (false, Failure::Protocol),
                "{case}"
            );
            assert!(matches!(peer.hear().await, Frame::Reset(reset) if reset.stream_id() == id));
        }
        let good = get(&mux);
        let id = peer.opened().await;
        peer.say(frame::Headers::new(
            id,
            Pseudo::response(StatusCode::CONTINUE),
            HeaderMap::new(),
        ))
        .await;
        peer.answer(id, &[("content-length", "4")], false).await;
        peer.data(id, b"go", false).await;
        peer.data(id, b"od", true).await;
        assert_eq!(good.await.unwrap().unwrap(), b"good");
    });
}

#[test]
fn a_peer_that_breaks_the_protocol_is_told_so() {
    local(async {
        for case in 0..4 {
            let (mux, mut peer) = Peer::meet(frame::Settings::default()).await;
            let outcome = get(&mux);
            peer.opened().await;
            let mut held = None;
            match case {
                0 => peer.answer(StreamId::from(2), &[], true).await,
                1 => peer.answer(StreamId::from(99), &[], true).await,
                2 => {
                    peer.say(frame::WindowUpdate::new(StreamId::ZERO, LARGEST_WINDOW))
                        .await;
                }
                _ => {
                    // One byte more than the window, on a stream of which nothing is taken.
                    held = Some(mux.open(true, None).await.unwrap());
                    let id = peer.opened().await;
                    peer.answer(id, &[], false).await;
                    for _ in 0..64 {
                        peer.data(id, &[0; 16 * 1024], false).await;
                    }
                    peer.data(id, &[0], false).await;
                }
            }
            assert_eq!(
                class(outcome.await.unwrap()),
                (false, Failure::Protocol),
                "{case}"
            );
            assert!(matches!(peer.hear().await, Frame::GoAway(_)), "{case}");
            assert!(!mux.takes_more());
            drop(held);
        }
    });
}

#[test]
fn a_connection_that_breaks_fails_what_was_in_flight() {
    local(async {
        let (mux, mut peer) = Peer::meet(frame::Settings::default()).await;
        let outcome = get(&mux);
        peer.opened().await;
        drop(peer);
        assert_eq!(
            class(outcome.await.unwrap()),
            (false, Failure::ConnectionLost)
        );
        assert!(!mux.takes_more());
    });
}

#[test]
fn a_request_that_could_not_be_sent_was_not_processed() {
    local(async {
        let mut settings = frame::Settings::default();
        settings.set_max_concurrent_streams(Some(1));
        let (mux, mut peer) = Peer::meet(settings).await;
        let (sent, in_line) = (get(&mux), get(&mux));
        peer.opened().await;
        drop(peer);
        let lost = Failure::ConnectionLost;
        assert_eq!(class(sent.await.unwrap()), (false, lost));
        assert_eq!(class(in_line.await.unwrap()), (true, lost));
        assert_eq!(class(get(&mux).await.unwrap()), (true, lost));
    });
}

#[test]
fn what_is_given_up_is_cancelled_and_makes_room() {
    local(async {
        let mut settings = frame::Settings::default();
        settings.set_max_concurrent_streams(Some(1));
        let (mux, mut peer) = Peer::meet(settings).await;
        let first = get(&mux);
        let id = peer.opened().await;
        // One who gave up while in line does not hold up who comes after.
        let (second, third) = (get(&mux), get(&mux));
        tokio::task::yield_now().await;
        second.abort();
        first.abort();
        assert!(matches!(
            peer.hear().await,
            Frame::Reset(reset) if reset.stream_id() == id && reset.reason() == Reason::CANCEL
        ));
        let id = peer.opened().await;
        // What still comes for the first one bothers nobody.
        peer.data(StreamId::from(1), b"late", true).await;
        peer.answer(id, &[], true).await;
        assert!(third.await.unwrap().is_ok());
        drop(mux);
        assert!(matches!(peer.hear().await, Frame::GoAway(_)));
        assert!(peer.next().await.is_none());
    });
}
