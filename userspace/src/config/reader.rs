//! Walks a TOML document and collects mistakes instead of stopping at the first.

use toml::de::{DeTable, DeValue};

use super::error::ConfigError;

/// A value and the line it stands in.
#[derive(Clone, Copy, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) line: usize,
}

/// A table of the document: where it is and what it may hold.
pub(super) struct Section<'a> {
    table: &'a DeTable<'a>,
    path: String,
    line: usize,
}

/// The document's text (for line numbers) and the mistakes so far.
pub(super) struct Reader<'a> {
    file: &'a str,
    text: &'a str,
    pub(super) errors: Vec<ConfigError>,
}

/// What a key may hold: how it reads to people, and how it is read.
pub(super) struct Kind<'k, T> {
    pub(super) allowed: &'k str,
    /// `Err` carries why the value is wrong, where the value alone does not say it.
    pub(super) read: &'k dyn Fn(&DeValue<'_>) -> Result<T, String>,
}

impl<'a> Section<'a> {
    pub(super) fn root(table: &'a DeTable<'a>) -> Self {
        Self {
            table,
            path: String::new(),
            line: 1,
        }
    }

    /// The key with its tables.
    pub(super) fn key(&self, key: &str) -> String {
        if self.path.is_empty() {
            key.to_owned()
        } else {
            format!("{}.{key}", self.path)
        }
    }

    pub(super) fn line(&self) -> usize {
        self.line
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.table.get(key).is_some()
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (&'a str, &'a DeValue<'a>, usize)> {
        self.table
            .iter()
            .map(|(key, value)| (key.get_ref().as_ref(), value.get_ref(), key.span().start))
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        Self {
            file,
            text,
            errors: Vec::new(),
        }
    }

    /// The line of a byte offset.
    pub(super) fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().iter().take(offset);
        1 + before.filter(|byte| **byte == b'\n').count()
    }

    pub(super) fn wrong(
        &mut self,
        line: usize,
        key: String,
        found: impl Into<String>,
        allowed: impl Into<String>,
    ) {
        self.errors.push(ConfigError {
            file: self.file.to_owned(),
            line,
            key,
            found: found.into(),
            allowed: allowed.into(),
        });
    }

    /// Reports the keys of `section` that are not `known`.
    pub(super) fn only(&mut self, section: &Section<'a>, known: &[&str]) {
        for (key, _, offset) in section.entries() {
            if known.contains(&key) {
                continue;
            }
            let mut allowed = known.join(", ");
            if let Some(near) = nearest(key, known) {
                allowed = format!("{allowed} (did you mean `{near}`?)");
            }
            let line = self.line(offset);
            self.wrong(line, section.key(key), "an unknown key", allowed);
        }
    }

    /// The value of a key that may be absent; `None` also where it is wrong, which is reported.
    pub(super) fn optional<T>(
        &mut self,
        section: &Section<'a>,
        key: &str,
        kind: &Kind<'_, T>,
    ) -> Option<At<T>> {
        let value = section.table.get(key)?;
        let line = self.line(value.span().start);
        match (kind.read)(value.get_ref()) {
            Ok(value) => Some(At { value, line }),
            Err(why) => {
                let mut found = show(value.get_ref());
                if !why.is_empty() {
                    found = format!("{found}, {why}");
                }
                self.wrong(line, section.key(key), found, kind.allowed);
                None
            }
        }
    }

    /// The value of a key that must be there.
    pub(super) fn required<T>(
        &mut self,
        section: &Section<'a>,
        key: &str,
        kind: &Kind<'_, T>,
    ) -> Option<At<T>> {
        if !section.has(key) {
            self.wrong(section.line, section.key(key), "nothing", kind.allowed);
        }
        self.optional(section, key, kind)
    }

    /// A table that may be absent.
    pub(super) fn table(&mut self, parent: &Section<'a>, key: &str) -> Option<Section<'a>> {
        let value = parent.table.get(key)?;
        let line = self.line(value.span().start);
        let path = parent.key(key);
        if let DeValue::Table(table) = value.get_ref() {
            Some(Section { table, path, line })
        } else {
            self.wrong(
                line,
                path.clone(),
                show(value.get_ref()),
                format!("a table, written [{path}]"),
            );
            None
        }
    }

    /// An array of tables, of which at least one must be there. `None` where that is not so, which is reported.
    pub(super) fn tables(&mut self, parent: &Section<'a>, key: &str) -> Option<Vec<Section<'a>>> {
        let path = parent.key(key);
        let allowed = format!("at least one table, written [[{path}]]");
        let Some(value) = parent.table.get(key) else {
            self.wrong(parent.line, path, "nothing", allowed);
            return None;
        };
        let line = self.line(value.span().start);
        let DeValue::Array(items) = value.get_ref() else {
            self.wrong(line, path, show(value.get_ref()), allowed);
            return None;
        };
        if items.is_empty() {
            self.wrong(line, path, "an empty array", allowed);
            return None;
        }
        let mut sections = Vec::new();
        for item in items.iter() {
            let line = self.line(item.span().start);
            if let DeValue::Table(table) = item.get_ref() {
                let path = path.clone();
                sections.push(Section { table, path, line });
            } else {
                self.wrong(line, path.clone(), show(item.get_ref()), allowed.clone());
                return None;
            }
        }
        Some(sections)
    }
}

/// A value as people wrote it, shortened.
pub(super) fn show(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => {
            let mut short: String = text.chars().take(60).collect();
            if short.len() < text.len() {
                short.push_str("...");
            }
            format!("{short:?}")
        }
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// The known key that `key` was probably meant to be: at most two edits away, and less than half of it.
fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    known
        .iter()
        .map(|candidate| (edits(key, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= 2 && distance * 2 < candidate.len())
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().take(64).enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::{edits, nearest};

    #[test]
    fn a_misspelt_key_suggests_the_right_one_and_a_strange_one_none() {
        let known = ["address", "mode", "weight"];
        assert_eq!(nearest("adress", &known), Some("address"));
        assert_eq!(nearest("wieght", &known), Some("weight"));
        assert_eq!(nearest("colour", &known), None);
        assert_eq!(nearest("", &known), None);
        assert_eq!(edits("kitten", "sitting"), 3);
    }
}
