//! The control API: HTTP and JSON on a Unix socket; the CLI is its first client.
