//! Windows: how much is sent, and how much is taken.

use std::pin::pin;

use super::*;

#[test]
fn no_more_is_sent_than_both_windows_allow() {
    local(async {
        let mut settings = frame::Settings::default();
        settings.set_initial_window_size(Some(10));
        let (mux, mut peer) = Peer::meet(settings).await;
        let sending = Rc::clone(&mux);
        let sent = tokio::task::spawn_local(async move {
            let stream = sending.open(false, None).await?;
            stream
                .sender()
                .send(Bytes::from(vec![1; 70_000]), true)
                .await;
            Ok::<_, Trouble>(())
        });
        let id = peer.opened().await;
        let mut expected = 10;
        let mut left = 70_000;
        for more in [5, 65_000, 10_000] {
            let mut got = 0;
            while got < expected {
                let Frame::Data(data) = peer.hear().await else {
                    panic!("data was expected");
                };
                got += data.payload().len();
            }
            assert_eq!(got, expected);
            left -= got;
            peer.say(frame::Ping::new([7; 8])).await;
            assert!(
                matches!(peer.hear().await, Frame::Ping(_)),
                "and nothing before"
            );
            peer.say(frame::WindowUpdate::new(id, more)).await;
            // The connection's window ends at 65,535, and is opened last.
            expected = (more as usize).min(65_535 - (70_000 - left));
        }
        peer.say(frame::WindowUpdate::new(StreamId::ZERO, 10_000))
            .await;
        let mut ended = false;
        while !ended {
            match peer.hear().await {
                Frame::Data(data) => {
                    left -= data.payload().len();
                    ended = data.is_end_stream();
                }
                other => panic!("data was expected: {other:?}"),
            }
        }
        assert_eq!(left, 0);
        sent.await.unwrap().unwrap();
    });
}

#[test]
fn an_answer_larger_than_the_window_is_taken_whole() {
    local(async {
        let (mux, mut peer) = Peer::meet(frame::Settings::default()).await;
        let outcome = get(&mux);
        let id = peer.opened().await;
        peer.answer(id, &[], false).await;
        let mut window = STREAM_WINDOW as usize;
        static PIECE: [u8; 16_384] = [0; 16_384];
        for _ in 0..200 {
            while window < PIECE.len() {
                let Frame::WindowUpdate(update) = peer.hear().await else {
                    panic!("a window was expected");
                };
                assert_eq!(update.stream_id(), id);
                window += update.size_increment() as usize;
            }
            window -= PIECE.len();
            peer.data(id, &PIECE, false).await;
        }
        peer.data(id, b"", true).await;
        let outcome = pin!(outcome);
        assert_eq!(outcome.await.unwrap().unwrap().len(), 200 * PIECE.len());
    });
}
