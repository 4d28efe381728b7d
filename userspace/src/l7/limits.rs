//! Every limit of the L7 path, with its default and where the number comes from.
//!
//! A limit that is not set is an attack: `h2` by itself allows unlimited inbound streams and a 16 MiB header list.
//! So all of them are set, on both sides, and each can be changed in the `[l7]` table of the configuration.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Reset streams that are remembered on an upstream connection, for each stream that it may have: places are taken again
/// as soon as they are free, while `h2` remembers for a second.
const RESETS_REMEMBERED: usize = 4;

/// What `h2` may charge a connection for DATA frames below 256 bytes that nobody has taken: 256 for each, less its payload.
/// Streams take theirs whenever they are polled, also while they cannot send, so what counts is what one socket brings
/// before that. 256 KiB of 10-byte frames, the most that one poll reads, are 6.7 million; this is four such polls.
const LEAST_DATA_FRAME_BUDGET: usize = 32 * 1024 * 1024;

/// The limits of the L7 path. Durations are given in milliseconds so that the type reads the same in every format.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Limits {
    /// Threads, each with its own runtime, listeners and upstream connections; 0: one for each CPU.
    pub workers: usize,
    /// Downstream connections over all workers; further ones are closed as soon as they are accepted.
    pub max_connections: usize,
    /// How long a new connection may take to show which protocol it speaks.
    pub detect_timeout_ms: u64,
    /// A downstream connection without a stream, request or tunnel is asked to go away after this long, and closed
    /// `stream_idle_timeout_ms` later.
    pub idle_timeout_ms: u64,
    /// An HTTP/1.1 connection is closed when no whole request head came for this long.
    pub http1_idle_timeout_ms: u64,
    /// A downstream connection, of either protocol or as a tunnel, is closed when bytes have waited for it this long and it
    /// took none of them. Content of an HTTP/2 stream without a window does not wait: it stays with the backend.
    pub stall_timeout_ms: u64,
    /// A stream of HTTP/2, or a request of HTTP/1.1, is ended when nothing of its request or response could be passed on for
    /// this long: 504, or DEADLINE_EXCEEDED for gRPC, where no response has begun, else RST_STREAM (CANCEL), or the end of the
    /// HTTP/1.1 connection; 0: never. PING and WINDOW_UPDATE move nothing. A service whose streams may be silent for longer,
    /// such as a watch over gRPC or a long poll, needs more, or 0. Tunnels (WebSocket) are not ended: see `stall_timeout_ms`.
    pub stream_idle_timeout_ms: u64,

    /// Streams that one client connection may have open.
    pub max_streams: u32,
    /// Bytes in flight of one request. Small, so that a slow stream holds little memory.
    pub stream_window: u32,
    /// Bytes in flight of all requests of a connection: `max_streams` windows, so that slow streams stall nobody else.
    pub connection_window: u32,
    /// Largest header list (RFC 9113, section 6.5.2), in both directions.
    pub max_header_list: u32,
    /// Largest frame payload that either side may send us.
    pub max_frame: u32,
    /// HPACK table that a peer may make us keep.
    pub header_table: u32,
    /// Streams of a client that we have reset and still remember, for frames that were on their way. Of a backend, which gets
    /// a reset for each stream that its client cancels, there are `RESETS_REMEMBERED` for each place.
    pub max_reset_streams: usize,
    /// Streams that the client opened and reset before we looked at them (CVE-2023-44487).
    pub max_pending_accept_resets: usize,
    /// Streams that we reset because the client broke the protocol on them (CVE-2025-8671), over the life of its connection.
    /// None for a backend: a frame that was on its way when we forgot the stream counts as one, and the connection is shared.
    pub max_local_error_resets: usize,

    /// RST_STREAM frames that a client may send at once; finished streams and time earn new ones.
    pub reset_burst: u32,
    /// RST_STREAM frames earned for each second.
    pub reset_rate: u32,
    /// PING, SETTINGS, PRIORITY and WINDOW_UPDATE frames that a client may send at once; data in either direction
    /// and time earn new ones.
    pub control_burst: u32,
    /// Such frames earned for each second.
    pub control_rate: u32,

    /// How long a backend may take to accept a connection and say its SETTINGS.
    pub connect_timeout_ms: u64,
    /// First pause before another attempt at a backend that refused; doubled up to `backoff_max_ms`.
    pub backoff_min_ms: u64,
    /// Longest such pause.
    pub backoff_max_ms: u64,
    /// Streams on one upstream connection, where the backend allows as many.
    pub upstream_streams: u32,
    /// Upstream connections of one worker to one backend.
    pub upstream_connections: usize,
    /// HTTP/1.1 connections of one worker to one backend that are kept for a next request; further ones are closed.
    pub http1_idle_connections: usize,
    /// Bytes in flight of one response.
    pub upstream_stream_window: u32,
    /// Bytes in flight of all responses of an upstream connection: `upstream_streams` windows.
    pub upstream_connection_window: u32,
    /// An upstream connection without a stream is closed after this long.
    pub upstream_idle_timeout_ms: u64,
    /// PING to a backend on a connection with streams; gRPC servers answer `too_many_pings` below 5 minutes.
    pub keepalive_interval_ms: u64,
    /// An upstream connection is given up when a PING stays unanswered for this long.
    pub keepalive_timeout_ms: u64,
    /// Backends tried for one stream after one that refused it. Backends that cannot be reached have not seen it: of them,
    /// as many more are tried as are found out in `retries` times `connect_timeout_ms`.
    pub retries: u32,
    /// Request bytes kept for a retry; a longer request is not retried once it has begun to be sent.
    pub replay_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            workers: 0,
            max_connections: 65_536,
            detect_timeout_ms: 10_000,
            idle_timeout_ms: 3_600_000,
            http1_idle_timeout_ms: 75_000,
            stall_timeout_ms: 60_000,
            // As Envoy's `stream_idle_timeout`.
            stream_idle_timeout_ms: 300_000,
            max_streams: 128,
            stream_window: 128 * 1024,
            connection_window: 128 * 128 * 1024,
            max_header_list: 64 * 1024,
            max_frame: 16_384,
            header_table: 4_096,
            max_reset_streams: 64,
            max_pending_accept_resets: 32,
            max_local_error_resets: 256,
            reset_burst: 1_000,
            reset_rate: 200,
            control_burst: 4_000,
            control_rate: 500,
            connect_timeout_ms: 2_000,
            backoff_min_ms: 50,
            backoff_max_ms: 5_000,
            upstream_streams: 256,
            upstream_connections: 64,
            http1_idle_connections: 256,
            upstream_stream_window: 128 * 1024,
            upstream_connection_window: 256 * 128 * 1024,
            upstream_idle_timeout_ms: 600_000,
            keepalive_interval_ms: 300_000,
            keepalive_timeout_ms: 20_000,
            retries: 3,
            replay_bytes: 64 * 1024,
        }
    }
}

impl Limits {
    /// Threads to start: as asked for, else one for each CPU that this process may use.
    #[must_use]
    pub fn worker_count(&self) -> usize {
        match self.workers {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            workers => workers,
        }
    }

    /// [`Limits::detect_timeout_ms`] as a duration.
    #[must_use]
    pub const fn detect_timeout(&self) -> Duration {
        Duration::from_millis(self.detect_timeout_ms)
    }

    /// [`Limits::connect_timeout_ms`] as a duration.
    #[must_use]
    pub const fn connect_timeout(&self) -> Duration {
        Duration::from_millis(self.connect_timeout_ms)
    }

    /// How long, after a first backend could not be reached, others are tried for the same stream.
    #[must_use]
    pub fn search_time(&self) -> Duration {
        self.connect_timeout() * self.retries
    }

    /// The pause before connecting again after `failures` attempts in a row failed.
    #[must_use]
    pub fn backoff(&self, failures: u32) -> Duration {
        let doubled = self
            .backoff_min_ms
            .saturating_mul(1 << failures.saturating_sub(1).min(20));
        Duration::from_millis(doubled.min(self.backoff_max_ms))
    }

    /// A server-side `h2` builder with every limit set.
    pub(super) fn server_builder(&self) -> h2::server::Builder {
        let mut builder = h2::server::Builder::new();
        builder
            .max_concurrent_streams(self.max_streams)
            .initial_window_size(self.stream_window)
            .initial_connection_window_size(self.connection_window)
            .max_header_list_size(self.max_header_list)
            .max_frame_size(self.max_frame)
            .header_table_size(self.header_table)
            .max_concurrent_reset_streams(self.max_reset_streams)
            .max_pending_accept_reset_streams(self.max_pending_accept_resets)
            .max_local_error_reset_streams(Some(self.max_local_error_resets))
            .data_frame_budget(data_frame_budget(self.connection_window))
            .max_send_buffer_size(self.stream_window as usize);
        builder
    }

    /// A client-side `h2` builder with every limit set.
    ///
    /// No stream may be sent before the backend's SETTINGS have said how many it takes: 0 until then.
    pub(super) fn client_builder(&self) -> h2::client::Builder {
        let mut builder = h2::client::Builder::new();
        builder
            .enable_push(false)
            .initial_max_send_streams(0)
            .max_concurrent_streams(0)
            .initial_window_size(self.upstream_stream_window)
            .initial_connection_window_size(self.upstream_connection_window)
            .max_header_list_size(self.max_header_list)
            .max_frame_size(self.max_frame)
            .header_table_size(self.header_table)
            .max_concurrent_reset_streams(RESETS_REMEMBERED * self.upstream_streams as usize)
            .max_pending_accept_reset_streams(self.max_pending_accept_resets)
            .max_local_error_reset_streams(None)
            .data_frame_budget(data_frame_budget(self.upstream_connection_window))
            .max_send_buffer_size(self.upstream_stream_window as usize);
        builder
    }
}

/// At least what `h2` has by itself, which is half the connection's window.
fn data_frame_budget(connection_window: u32) -> usize {
    LEAST_DATA_FRAME_BUDGET.max(connection_window as usize / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_maximum() {
        let limits = Limits {
            backoff_min_ms: 50,
            backoff_max_ms: 300,
            ..Limits::default()
        };
        let pauses: Vec<u128> = (1..=5).map(|n| limits.backoff(n).as_millis()).collect();
        assert_eq!(pauses, [50, 100, 200, 300, 300]);
        assert_eq!(limits.backoff(u32::MAX).as_millis(), 300);
    }

    #[test]
    fn slow_streams_cannot_exhaust_the_connection_windows() {
        let limits = Limits::default();
        assert!(limits.connection_window >= limits.max_streams * limits.stream_window);
        assert!(
            limits.upstream_connection_window
                >= limits.upstream_streams * limits.upstream_stream_window
        );
    }
}
