//! Stream-level forwarding: listener, protocol detection, HTTP/2 and HTTP/1.1, upstream pools, limits.
