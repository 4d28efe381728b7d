//! What a mistake in the configuration looks like to its author.

use std::fmt;

use serde::Serialize;

/// One mistake: where, what was found, what is allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ConfigError {
    /// The file, as it was named on the command line.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
    /// The key, with its tables (`service.backend.weight`); empty where the mistake has none.
    pub key: String,
    /// What the file says.
    pub found: String,
    /// What it may say.
    pub allowed: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            file,
            line,
            key,
            found,
            allowed,
        } = self;
        write!(f, "{file}:{line}: ")?;
        if !key.is_empty() {
            write!(f, "{key}: ")?;
        }
        write!(f, "found {found}; allowed: {allowed}")
    }
}

impl std::error::Error for ConfigError {}

/// All mistakes of one file, in the order of their lines; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    pub(super) fn one(error: ConfigError) -> Self {
        Self(vec![error])
    }

    /// `Err` with the mistakes in order, or `value` where there are none.
    pub(super) fn unless_empty<T>(
        value: Option<T>,
        mut errors: Vec<ConfigError>,
    ) -> Result<T, Self> {
        errors.sort_by_key(|error| error.line);
        match value {
            Some(value) if errors.is_empty() => Ok(value),
            _ => Err(Self(errors)),
        }
    }

    /// The mistakes.
    #[must_use]
    pub fn errors(&self) -> &[ConfigError] {
        &self.0
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, error) in self.0.iter().enumerate() {
            if position > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
