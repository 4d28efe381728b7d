//! HTTP/3.

use anyhow::Result;
use bytes::Bytes;
use h3::server::RequestStream;
use quinn::{Endpoint, Incoming};

use super::Answers;

pub(super) async fn serve(endpoint: Endpoint, answers: Answers) {
    while let Some(incoming) = endpoint.accept().await {
        let answers = answers.clone();
        tokio::spawn(async move {
            // A client that goes away in the middle is no business of the server's.
            let _ = connection(incoming, answers).await;
        });
    }
}

async fn connection(incoming: Incoming, answers: Answers) -> Result<()> {
    let connection = h3_quinn::Connection::new(incoming.await?);
    let mut connection = h3::server::Connection::<_, Bytes>::new(connection).await?;
    while let Some(resolver) = connection.accept().await? {
        let answers = answers.clone();
        tokio::spawn(async move {
            let (request, stream) = resolver.resolve_request().await?;
            answer(request.uri().path(), stream, &answers).await
        });
    }
    Ok(())
}

async fn answer<S>(path: &str, mut stream: RequestStream<S, Bytes>, answers: &Answers) -> Result<()>
where
    S: h3::quic::BidiStream<Bytes>,
{
    let (head, body) = answers.to(path);
    stream
        .send_response(http::Response::from_parts(head, ()))
        .await?;
    stream.send_data(body).await?;
    stream.finish().await?;
    Ok(())
}
