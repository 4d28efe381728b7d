//! The head of the requests of a plan: what it is whichever protocol carries it.
//!
//! A field that was asked for takes the place of one that we would send. Refused is what no request may say of itself:
//! pseudo-header fields and the authority, which are made from the URL, fields of the connection (RFC 9113, section
//! 8.2.2), and the length, which is that of the payload.

use std::str::FromStr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING,
    UPGRADE, USER_AGENT,
};
use http::{Method, Request, Uri};

use super::plan::{Kind, Plan};
use crate::load::RESPONSE_SIZE_HEADER;

/// Who asks (RFC 9110, section 10.1.5), so that servers' logs tell these requests from others.
const AGENT: &str = concat!("evenkeel/", env!("CARGO_PKG_VERSION"));

/// A field of every request, as on the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: HeaderName,
    /// Its value.
    pub value: HeaderValue,
}

/// A field that no request can have.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum FieldError {
    /// Not a field at all.
    #[error("expected NAME:VALUE")]
    Malformed,
    /// One that begins with a colon.
    #[error("pseudo-header fields are made from the URL and --method")]
    Pseudo,
    /// One that says how a connection is used.
    #[error("`{0}` is of a connection and not of a request (RFC 9113, section 8.2.2)")]
    OfConnection(HeaderName),
    /// `te` that asks for more than trailers.
    #[error("`te` can only be `trailers` (RFC 9113, section 8.2.2)")]
    Te,
    /// The authority.
    #[error("`host` is that of the URL; --to says whom to connect to")]
    Host,
    /// The length of the payload.
    #[error("`content-length` is that of the payload, see --payload")]
    Length,
    /// What asks an echo backend for a size.
    #[error("`{RESPONSE_SIZE_HEADER}` is what --response-size sends")]
    ResponseSize,
}

// === impl Field ===

impl FromStr for Field {
    type Err = FieldError;

    fn from_str(text: &str) -> Result<Self, FieldError> {
        if text.starts_with(':') {
            return Err(FieldError::Pseudo);
        }
        let (name, value) = text.split_once(':').ok_or(FieldError::Malformed)?;
        let name: HeaderName = name.parse().map_err(|_| FieldError::Malformed)?;
        let value: HeaderValue = value.trim().parse().map_err(|_| FieldError::Malformed)?;
        let of_connection = [CONNECTION, TRANSFER_ENCODING, UPGRADE];
        match name.as_str() {
            "keep-alive" | "proxy-connection" => Err(FieldError::OfConnection(name)),
            _ if of_connection.contains(&name) => Err(FieldError::OfConnection(name)),
            _ if name == TE && value != "trailers" => Err(FieldError::Te),
            _ if name == HOST => Err(FieldError::Host),
            _ if name == CONTENT_LENGTH => Err(FieldError::Length),
            RESPONSE_SIZE_HEADER => Err(FieldError::ResponseSize),
            _ => Ok(Self { name, value }),
        }
    }
}

/// The head of a request for `uri`, with fields of ours that are not asked for otherwise.
pub(super) fn head(
    plan: &Plan,
    uri: Uri,
    ours: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
) -> Result<Request<()>, http::Error> {
    let grpc = matches!(plan.kind, Kind::GrpcUnary | Kind::GrpcStream { .. });
    let usual = if grpc || plan.has_payload() {
        Method::POST
    } else {
        Method::GET
    };
    let method = plan.method.clone().unwrap_or(usual);
    let mut head = Request::builder().method(method).uri(uri).body(())?;
    let mut fields = HeaderMap::new();
    for Field { name, value } in &plan.headers {
        fields.append(name.clone(), value.clone());
    }
    let agent = (USER_AGENT, HeaderValue::from_static(AGENT));
    for (name, value) in ours.into_iter().chain([agent]) {
        fields.entry(name).or_insert(value);
    }
    *head.headers_mut() = fields;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use http::header::CONTENT_TYPE;

    use super::super::plan::Budget;
    use super::super::plan::tests::plan;
    use super::*;

    fn read(text: &str) -> Result<Field, FieldError> {
        text.parse()
    }

    #[test]
    fn what_no_request_may_say_is_refused() {
        assert_eq!(read(":path: /"), Err(FieldError::Pseudo));
        assert_eq!(read("no colon"), Err(FieldError::Malformed));
        assert_eq!(read("a b: c"), Err(FieldError::Malformed));
        assert_eq!(read("a: line\nbreak"), Err(FieldError::Malformed));
        for name in [
            "Connection",
            "Keep-Alive",
            "Proxy-Connection",
            "Transfer-Encoding",
            "Upgrade",
        ] {
            let refused = read(&format!("{name}: x"));
            assert!(
                matches!(refused, Err(FieldError::OfConnection(_))),
                "{name}"
            );
        }
        assert_eq!(read("TE: gzip"), Err(FieldError::Te));
        assert!(read("te: trailers").is_ok());
        assert_eq!(read("Host: other"), Err(FieldError::Host));
        assert_eq!(read("Content-Length: 1"), Err(FieldError::Length));
        let size = format!("{RESPONSE_SIZE_HEADER}: 1");
        assert_eq!(read(&size), Err(FieldError::ResponseSize));
    }

    #[test]
    fn fields_that_were_asked_for_replace_ours_and_may_repeat() {
        let mut plan = plan(&[1], Budget::Requests(1));
        let asked = ["x-tenant: a", "x-tenant: b", "Content-Type: text/plain"];
        plan.headers = asked.map(|text| read(text).unwrap()).to_vec();
        plan.method = Some(Method::PUT);
        let ours = [
            (CONTENT_TYPE, HeaderValue::from_static("ours")),
            (TE, HeaderValue::from_static("trailers")),
        ];
        let head = head(&plan, plan.url.clone(), ours).unwrap();
        let all =
            |name: &str| -> Vec<&HeaderValue> { head.headers().get_all(name).iter().collect() };
        assert_eq!(head.method(), Method::PUT);
        assert_eq!(all("x-tenant"), ["a", "b"]);
        assert_eq!(all("content-type"), ["text/plain"]);
        assert_eq!(all("te"), ["trailers"]);
        assert_eq!(all("user-agent"), [AGENT]);
    }
}
