//! The cookies of one client, kept as a browser keeps those of a host: what a balancer sets so as to know a session
//! again comes back to it. Expiry is not looked at; runs are short.

use std::collections::BTreeMap;

use http::{
    HeaderMap, HeaderValue,
    header::{COOKIE, SET_COOKIE},
};

/// By name.
#[derive(Debug, Default)]
pub struct Cookies(BTreeMap<String, String>);

impl Cookies {
    /// Keeps those that an answer with `headers` sets (RFC 6265, 5.2: name and value end at the first semicolon).
    pub fn keep(&mut self, headers: &HeaderMap) {
        for set in headers.get_all(SET_COOKIE) {
            let pair = set.to_str().ok().and_then(|text| text.split(';').next());
            if let Some((name, value)) = pair.and_then(|pair| pair.split_once('=')) {
                self.0
                    .insert(name.trim().to_owned(), value.trim().to_owned());
            }
        }
    }

    /// Gives all of them to a request with `headers`.
    pub fn give(&self, headers: &mut HeaderMap) {
        let pairs: Vec<String> = self
            .0
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        // What came in a header goes into one.
        if !pairs.is_empty()
            && let Ok(value) = HeaderValue::try_from(pairs.join("; "))
        {
            headers.insert(COOKIE, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_set_last_comes_back_without_its_attributes() {
        let mut cookies = Cookies::default();
        let mut request = HeaderMap::new();
        cookies.give(&mut request);
        assert!(request.is_empty());
        let mut answer = HeaderMap::new();
        for set in ["backend=b1; Path=/; HttpOnly", "other=x", "nonsense"] {
            answer.append(SET_COOKIE, HeaderValue::from_static(set));
        }
        cookies.keep(&answer);
        answer.clear();
        answer.append(SET_COOKIE, HeaderValue::from_static("backend=b2"));
        cookies.keep(&answer);
        cookies.give(&mut request);
        assert_eq!(request[COOKIE], "backend=b2; other=x");
    }
}
