//! `evenkeel.toml`: serde types, and validation with file and line in every error.
