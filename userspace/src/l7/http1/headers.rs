//! Hop-by-hop headers (RFC 9110, section 7.6.1): they speak of one connection, and a proxy has two.
//!
//! An Upgrade is forwarded, since what follows is passed on byte by byte, but for `h2c`: RFC 9113, section 3.1, has no such
//! upgrade any more, and its streams would all be pinned to one backend. A server may ignore an Upgrade (RFC 9110,
//! section 7.8), so the request is answered over HTTP/1.1.

use http::HeaderMap;
use http::header::{CONNECTION, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE};

/// Fields that are always of one connection. `trailer` is not: it describes the content.
const HOP_BY_HOP: [HeaderName; 4] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    // Of an upgrade to `h2c`, and of nothing else (RFC 7540, section 3.2.1).
    HeaderName::from_static("http2-settings"),
    TRANSFER_ENCODING,
];

/// Removes what is not to be forwarded of a request; `upgrade` as for [`strip`].
///
/// Chunked stays chunked: only the field says that there is content at all (RFC 9112, section 6.3), and hyper sends none with
/// GET and HEAD without it. It is written anew, whatever came, and hyper has removed a Content-Length that came with it: no
/// two ways are left to read where the request ends.
pub fn strip_request(headers: &mut HeaderMap, upgrade: bool) {
    let chunked = headers.contains_key(TRANSFER_ENCODING);
    strip(headers, upgrade);
    if chunked {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
}

/// Removes what is not to be forwarded. An Upgrade stays when `upgrade` is true: it is forwarded as ours.
pub fn strip(headers: &mut HeaderMap, upgrade: bool) {
    for name in listed(headers) {
        headers.remove(name);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
    let trailers_wanted = headers
        .get_all(TE)
        .iter()
        .any(|value| tokens(value).any(|token| token.eq_ignore_ascii_case("trailers")));
    headers.remove(TE);
    if trailers_wanted {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    headers.remove(CONNECTION);
    if upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    } else {
        headers.remove(UPGRADE);
    }
}

/// Takes `h2c` out of the protocols that a client offers to change to.
pub fn strip_h2c(headers: &mut HeaderMap) {
    let offers = headers.get_all(UPGRADE).iter().flat_map(tokens);
    let (h2c, others): (Vec<_>, Vec<_>) =
        offers.partition(|token| token.eq_ignore_ascii_case("h2c"));
    if h2c.is_empty() {
        return;
    }
    let others = others.join(", ");
    headers.remove(UPGRADE);
    if !others.is_empty()
        && let Ok(value) = HeaderValue::from_str(&others)
    {
        headers.insert(UPGRADE, value);
    }
}

/// True where the message asks for, or agrees to, another protocol.
pub fn has_upgrade(headers: &HeaderMap) -> bool {
    headers.contains_key(UPGRADE)
        && headers
            .get_all(CONNECTION)
            .iter()
            .any(|value| tokens(value).any(|token| token.eq_ignore_ascii_case("upgrade")))
}

/// True where content has a transfer coding besides one `chunked`. A server that does not understand a coding should answer
/// 501 (RFC 9112, section 6.1); `chunked` twice is not allowed either. hyper looks at the last coding of the last field only.
pub fn has_unknown_coding(headers: &HeaderMap) -> bool {
    let fields = headers.get_all(TRANSFER_ENCODING);
    let mut codings = fields.iter().flat_map(tokens);
    let first = codings.next();
    first.is_some_and(|first| !first.eq_ignore_ascii_case("chunked"))
        || codings.next().is_some()
        || fields.iter().any(|field| field.to_str().is_err())
}

/// The fields that `Connection` names, but for those that [`strip`] decides itself.
fn listed(headers: &HeaderMap) -> Vec<HeaderName> {
    headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(tokens)
        .filter_map(|token| HeaderName::from_bytes(token.as_bytes()).ok())
        .filter(|name| name != UPGRADE && name != TE)
        .collect()
}

fn tokens(value: &HeaderValue) -> impl Iterator<Item = &str> {
    value
        .to_str()
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|token| !token.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn fields_of_the_connection_are_not_forwarded() {
        let mut headers = map(&[
            ("connection", "close, X-Session"),
            ("x-session", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("te", "trailers, deflate"),
            ("upgrade", "h2c"),
            ("accept", "*/*"),
        ]);
        strip(&mut headers, false);
        assert_eq!(headers, map(&[("accept", "*/*"), ("te", "trailers")]));
    }

    #[test]
    fn a_chunked_request_stays_chunked_whatever_connection_names() {
        let mut headers = map(&[
            ("connection", "transfer-encoding"),
            ("transfer-encoding", "Chunked"),
        ]);
        strip_request(&mut headers, false);
        assert_eq!(headers, map(&[("transfer-encoding", "chunked")]));
    }

    #[test]
    fn one_chunked_is_all_of_transfer_codings_that_is_known() {
        for (fields, unknown) in [
            (vec![], false),
            (vec!["chunked"], false),
            (vec![" Chunked ,"], false),
            (vec!["gzip, chunked"], true),
            (vec!["gzip", "chunked"], true),
            (vec!["chunked, chunked"], true),
            (vec!["identity, chunked"], true),
            (vec!["gz\u{ef}p", "chunked"], true),
        ] {
            let mut headers = HeaderMap::new();
            for field in &fields {
                let value = HeaderValue::from_bytes(field.as_bytes()).expect("a value");
                headers.append(TRANSFER_ENCODING, value);
            }
            assert_eq!(has_unknown_coding(&headers), unknown, "{fields:?}");
        }
    }

    #[test]
    fn an_upgrade_is_forwarded_as_ours() {
        let mut headers = map(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
        ]);
        assert!(has_upgrade(&headers));
        strip(&mut headers, true);
        assert_eq!(
            headers,
            map(&[("connection", "upgrade"), ("upgrade", "websocket")])
        );
    }

    #[test]
    fn an_upgrade_to_h2c_is_taken_out_and_others_stay() {
        for (offered, left) in [
            ("h2c", None),
            ("H2C", None),
            ("h2c, websocket", Some("websocket")),
            ("websocket, h2c, other/2", Some("websocket, other/2")),
            ("websocket", Some("websocket")),
        ] {
            let mut headers = map(&[
                ("connection", "Upgrade, HTTP2-Settings"),
                ("http2-settings", "AAMAAABkAAQAAP__"),
                ("upgrade", offered),
            ]);
            strip_h2c(&mut headers);
            let upgrade = has_upgrade(&headers);
            strip(&mut headers, upgrade);
            let expected = match left {
                Some(left) => map(&[("connection", "upgrade"), ("upgrade", left)]),
                None => map(&[]),
            };
            assert_eq!(headers, expected, "{offered}");
        }
    }

    #[test]
    fn an_upgrade_that_connection_does_not_name_is_none() {
        assert!(!has_upgrade(&map(&[("upgrade", "websocket")])));
        assert!(!has_upgrade(&map(&[("connection", "upgrade")])));
    }
}
