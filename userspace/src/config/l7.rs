//! `[l7]`: the proxy's own type says which keys there are; here is how large each may be.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::reader::{Kind, Reader, Section};
use super::values;
use crate::l7::Limits;

/// The proxy's limits, its defaults where the file says nothing.
pub(super) fn limits<'a>(reader: &mut Reader<'a>, root: &Section<'a>) -> Limits {
    let defaults = Limits::default();
    let Some(section) = reader.table(root, "l7") else {
        return defaults;
    };
    let mut values = fields(&defaults);
    let keys: Vec<String> = values.keys().cloned().collect();
    let known: Vec<&str> = keys.iter().map(String::as_str).collect();
    reader.only(&section, &known);
    for key in known {
        let range = range(key);
        let kind = Kind {
            allowed: &format!("an integer from {} to {}", range.start(), range.end()),
            read: &values::integer(range),
        };
        if let Some(found) = reader.optional(&section, key, &kind) {
            values.insert(key.to_owned(), found.value.into());
        }
    }
    // Every value is in its key's range, and every range in its field's type: a test holds that.
    serde_json::from_value(values.into()).unwrap_or(defaults)
}

fn fields(limits: &Limits) -> Map<String, Value> {
    match serde_json::to_value(limits) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// What a key may be. The ends of windows and frames are those of RFC 9113, sections 6.5.2 and 6.9.1.
fn range(key: &str) -> RangeInclusive<u64> {
    match key {
        "workers" => 0..=1024,
        "retries" => 0..=16,
        "replay_bytes" | "header_table" => 0..=16_777_216,
        "max_header_list" => 1024..=16_777_216,
        "max_frame" => 16_384..=16_777_215,
        "connection_window" | "upstream_connection_window" => 65_535..=2_147_483_647,
        "stream_window" | "upstream_stream_window" => 1024..=2_147_483_647,
        // 0: never.
        "stream_idle_timeout_ms" => 0..=86_400_000,
        key if key.ends_with("_ms") => 1..=86_400_000,
        _ => 1..=1_000_000,
    }
}

#[cfg(test)]
mod tests {
    use super::{fields, range};
    use crate::l7::Limits;

    #[test]
    fn every_default_is_allowed_and_everything_allowed_fits() {
        let defaults = fields(&Limits::default());
        assert!(!defaults.is_empty());
        for (key, value) in &defaults {
            let range = range(key);
            assert!(
                value.as_u64().is_some_and(|value| range.contains(&value)),
                "{key}"
            );
            for end in [range.start(), range.end()] {
                let mut changed = defaults.clone();
                changed.insert(key.clone(), (*end).into());
                let read = serde_json::from_value::<Limits>(changed.into());
                assert!(read.is_ok(), "{key} = {end}");
            }
        }
    }
}
