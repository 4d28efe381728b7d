//! `[service.health]`: whether the backends of a service are checked, and how.

use std::time::Duration;

use super::reader::{Kind, Reader, Section};
use super::values;
use crate::health::Settings;

/// Results in a row that may be asked for.
const ROW: u32 = 100;

/// How the backends of `service` are checked; `None` where they are not.
pub(super) fn health<'a>(reader: &mut Reader<'a>, service: &Section<'a>) -> Option<Settings> {
    let section = reader.table(service, "health")?;
    reader.only(&section, &["interval", "timeout", "fall", "rise"]);
    let mut settings = Settings::default();
    let interval = Kind {
        allowed: "a duration from \"100ms\" to \"1h\", such as \"2s\"",
        read: &values::duration(Duration::from_millis(100)..=Duration::from_secs(3600)),
    };
    if let Some(found) = reader.optional(&section, "interval", &interval) {
        settings.interval = found.value;
        settings.timeout = settings.timeout.min(found.value);
    }
    let longest = settings.interval;
    let timeout = Kind {
        allowed: &format!(
            "a duration from \"10ms\" to \"{}ms\", the interval",
            longest.as_millis()
        ),
        read: &values::duration(Duration::from_millis(10)..=longest),
    };
    if let Some(found) = reader.optional(&section, "timeout", &timeout) {
        settings.timeout = found.value;
    }
    let row = Kind {
        allowed: &format!("an integer from 1 to {ROW}"),
        read: &values::integer(1..=u64::from(ROW)),
    };
    for (key, field) in [("fall", &mut settings.fall), ("rise", &mut settings.rise)] {
        if let Some(found) = reader.optional(&section, key, &row) {
            *field = u32::try_from(found.value).unwrap_or(*field);
        }
    }
    Some(settings)
}
