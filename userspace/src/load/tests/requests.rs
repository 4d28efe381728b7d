//! What a request says, as a backend reads it that is not ours.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method, Request, Response};

use super::*;

/// A plan for one request with a method, a field and a payload of its own.
fn own(address: SocketAddr, kind: Kind) -> Plan {
    let mut plan = plan(address, kind, &[1], Budget::Requests(1));
    plan.url = format!("http://{address}/shop.Cart/Add").parse().unwrap();
    plan.headers = vec!["x-tenant: seven".parse().unwrap()];
    plan.content = Some(Bytes::from_static(b"hello"));
    plan
}

/// The request that an HTTP/2 backend gets, which it answers with these bytes and a good `grpc-status`.
async fn serve(listener: TcpListener, answer: &'static [u8]) -> Request<Vec<u8>> {
    let (socket, _) = listener.accept().await.unwrap();
    let mut connection = h2::server::handshake(socket).await.unwrap();
    let (request, mut respond) = connection.accept().await.unwrap().unwrap();
    tokio::task::spawn_local(async move { while connection.accept().await.is_some() {} });
    let (head, mut body) = request.into_parts();
    let mut got = Vec::new();
    while let Some(piece) = body.data().await {
        got.extend_from_slice(&piece.unwrap());
    }
    let mut out = respond.send_response(Response::new(()), false).unwrap();
    out.send_data(Bytes::from_static(answer), false).unwrap();
    let status = (
        HeaderName::from_static("grpc-status"),
        HeaderValue::from_static("0"),
    );
    out.send_trailers(HeaderMap::from_iter([status])).unwrap();
    Request::from_parts(head, got)
}

#[test]
fn a_plain_request_is_what_was_asked_for() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut plan = own(listener.local_addr().unwrap(), Kind::Http2);
        plan.method = Some(Method::PUT);
        let served = tokio::task::spawn_local(serve(listener, b"anything"));
        assert_eq!(run(&plan).await.ok, 1);
        let request = served.await.unwrap();
        assert_eq!(request.method(), Method::PUT);
        assert_eq!(request.uri().path(), "/shop.Cart/Add");
        assert_eq!(request.headers()["x-tenant"], "seven");
        assert_eq!(request.body(), b"hello");
    });
}

#[test]
fn any_unary_method_can_be_called_and_answers_what_it_likes() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let plan = own(listener.local_addr().unwrap(), Kind::GrpcUnary);
        let served = tokio::task::spawn_local(serve(listener, b"\0\0\0\0\x02ok"));
        let report = run(&plan).await;
        assert_eq!(report.ok, 1, "{:?}", report.causes);
        let request = served.await.unwrap();
        assert_eq!(request.uri().path(), "/shop.Cart/Add");
        assert_eq!(request.headers()[CONTENT_TYPE], "application/grpc");
        assert_eq!(request.headers()["x-tenant"], "seven");
        assert_eq!(request.body(), b"\0\0\0\0\x05hello");
    });
}

#[test]
fn a_request_over_http1_is_what_was_asked_for() {
    local(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let kind = Kind::Http1 { keep_alive: true };
        let mut plan = own(listener.local_addr().unwrap(), kind);
        plan.method = Some(Method::PUT);
        let served = tokio::task::spawn_local(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut request = String::new();
            while !request.ends_with("hello") {
                let mut buffer = [0; 1024];
                let length = socket.read(&mut buffer).await.unwrap();
                assert!(length > 0, "{request}");
                request.push_str(std::str::from_utf8(&buffer[..length]).unwrap());
            }
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            socket.write_all(answer).await.unwrap();
            request
        });
        assert_eq!(run(&plan).await.ok, 1);
        let request = served.await.unwrap();
        assert!(
            request.starts_with("PUT /shop.Cart/Add HTTP/1.1\r\n"),
            "{request}"
        );
        assert!(request.contains("\r\nx-tenant: seven\r\n"), "{request}");
        assert!(request.contains("\r\ncontent-length: 5\r\n"), "{request}");
    });
}

#[test]
fn head_is_answered_without_a_body_over_both_protocols() {
    local(async {
        for kind in [Kind::Http2, Kind::Http1 { keep_alive: true }] {
            let backend = Backend::start("b", Duration::ZERO).await;
            let mut plan = plan(backend.address, kind, &[1], Budget::Requests(3));
            plan.method = Some(Method::HEAD);
            plan.payload = 0.into();
            let report = run(&plan).await;
            assert_eq!(report.ok, 3, "{kind:?}: {:?}", report.causes);
        }
    });
}
