//! A peer that says what a test wants, frame by frame.

use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;
use futures_core::Stream as _;
use h2::Codec;
use h2::frame::{self, Frame, Pseudo, StreamId};
use http::{HeaderMap, HeaderValue, StatusCode};
use tokio::io::{AsyncReadExt as _, DuplexStream};

use super::super::{Mux, Template};

/// The other end of the connection.
pub(super) struct Peer(pub(super) Codec<DuplexStream, Bytes>);

impl Peer {
    /// A connection over which both have said hello.
    pub(super) async fn meet(settings: frame::Settings) -> (Rc<Mux>, Self) {
        let mut request = http::Request::get("http://host:8080/path?query")
            .body(())
            .unwrap();
        let value = HeaderValue::from_static("value");
        request.headers_mut().insert("evenkeel-name", value);
        Self::meet_with(settings, &request).await
    }

    pub(super) async fn meet_with(
        settings: frame::Settings,
        request: &http::Request<()>,
    ) -> (Rc<Mux>, Self) {
        let (near, mut far) = tokio::io::duplex(1 << 20);
        let (mux, pump) = Mux::new(Box::new(near), Rc::new(Template::new(request)));
        tokio::task::spawn_local(pump);
        let mut preface = [0; 24];
        far.read_exact(&mut preface).await.unwrap();
        assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut peer = Self(Codec::new(far));
        if let Some(size) = settings.header_table_size() {
            peer.0.set_recv_header_table_size(size as usize);
        }
        peer.say(settings).await;
        assert!(matches!(peer.hear().await, Frame::Settings(ours) if !ours.is_ack()));
        assert!(matches!(peer.hear().await, Frame::WindowUpdate(_)));
        assert!(matches!(peer.hear().await, Frame::Settings(ours) if ours.is_ack()));
        (Rc::new(mux), peer)
    }

    pub(super) async fn say(&mut self, frame: impl Into<Frame<Bytes>>) {
        poll_fn(|cx| self.0.poll_ready(cx)).await.unwrap();
        self.0.buffer(frame.into()).unwrap();
        poll_fn(|cx| self.0.flush(cx)).await.unwrap();
    }

    pub(super) async fn next(&mut self) -> Option<Frame> {
        let frame = poll_fn(|cx| Pin::new(&mut self.0).poll_next(cx)).await?;
        Some(frame.unwrap())
    }

    pub(super) async fn hear(&mut self) -> Frame {
        self.next().await.expect("a frame")
    }

    /// The number of the stream that is opened next.
    pub(super) async fn opened(&mut self) -> StreamId {
        match self.hear().await {
            Frame::Headers(headers) => headers.stream_id(),
            other => panic!("a request was expected: {other:?}"),
        }
    }

    pub(super) async fn answer(
        &mut self,
        id: StreamId,
        fields: &[(&'static str, &'static str)],
        end: bool,
    ) {
        let fields = fields.iter().map(|(name, value)| {
            let name = http::HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        });
        let pseudo = Pseudo::response(StatusCode::OK);
        let mut head = frame::Headers::new(id, pseudo, HeaderMap::from_iter(fields));
        if end {
            head.set_end_stream();
        }
        self.say(head).await;
    }

    pub(super) async fn data(&mut self, id: StreamId, piece: &'static [u8], end: bool) {
        let mut data = frame::Data::new(id, Bytes::from_static(piece));
        data.set_end_stream(end);
        self.say(data).await;
    }
}
