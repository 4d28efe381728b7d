//! The `evenkeel` command: daemon and CLI in one binary.

fn main() {}
