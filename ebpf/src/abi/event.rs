//! What the data path counts beside flows, packets, bytes and streams: drops by reason, and what is worth a name.

/// Entries of `EVENTS` (per CPU `u64`): every drop, and every pass that somebody may want to know of, by reason.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Dropped: a header is cut short or contradicts itself.
    DropMalformed = 0,
    /// Dropped: the service has no backend that takes new flows.
    DropNoBackend = 1,
    /// Dropped: no NAT port was free within the bounded number of tries.
    DropNatPortsExhausted = 2,
    /// Dropped: no route to the next hop (unreachable, blackhole, prohibit).
    DropNoRoute = 3,
    /// Dropped: packet larger than the next hop's MTU.
    DropTooBig = 4,
    /// Dropped: the flow table refused an entry.
    DropFlowTable = 5,
    /// Dropped: TTL or hop limit ran out.
    DropTtlExpired = 6,
    /// Dropped: the helper that rewrites or redirects failed.
    DropRewriteFailed = 7,
    /// Passed to the stack: IP fragment; only the first has ports.
    PassFragment = 8,
    /// Passed to the stack or the next hook: neighbour unresolved.
    PassNoNeighbour = 9,
    /// Passed to the stack: IP forwarding is disabled on the interface.
    PassForwardingDisabled = 10,
    /// Passed to the stack: belongs to the local proxy.
    PassLocal = 11,
    /// A lost half of a flow's pair of entries was put back by the other half.
    PairRepaired = 12,
    /// An ICMP error was translated and forwarded.
    IcmpTranslated = 13,
    /// An ICMP error for a service address belonged to no flow.
    IcmpUnmatched = 14,
    /// The frame walker lost the boundary (gap, reordering) and searched.
    WalkerResync = 15,
    /// The frame walker reached its bound of frames in one packet.
    WalkerBound = 16,
    /// A SYN arrived on a flow that was closed: recorded anew.
    FlowReused = 17,
    /// `steer` found no listening socket of the proxy for an `l7` service.
    SteerNoSocket = 18,
    /// Dropped: the first fragment of a packet for a flow on a backend. The stack would put it together and
    /// answer with a reset.
    DropFragment = 19,
    /// Dropped: a segment that belongs to no flow and begins none: a reset, for which nobody waits, or one without ACK, which
    /// every host drops (RFC 9293 section 3.10.7.4).
    DropNoFlow = 20,
    /// A segment was not walked: another processor worked on the flow for longer than the walker waits.
    WalkerBusy = 21,
    /// A flow was evicted that was not closed: the table was full, and of the entries near by it was silent for longest.
    FlowEvicted = 22,
    /// The same for a reply half; the flow puts it back, see [`Event::PairRepaired`].
    ReplyEvicted = 23,
    /// A connection of the proxy to a backend came without its beginning, and is counted from here: it was evicted because
    /// `limits.upstreams` was reached, or is older than the programs.
    UpstreamAdopted = 24,
    /// Passed to the stack, which resets it: a packet of a flow that is moved from its backend to the proxy.
    PassMoved = 25,
    /// A flow was forgotten that was not closed: it was silent for `flows.idle_timeout`, or never got as far as being
    /// established (or is half closed, or on a removed backend) and was for `flows.transitory_timeout`.
    FlowExpired = 26,
    /// Passed from XDP to TC, which forwards it: the interface that it leaves by takes no frames from XDP.
    PassNotByXdp = 27,
    /// Sent: an ICMP error of our own, about a packet that was dropped as [`Event::DropTooBig`] or [`Event::DropTtlExpired`].
    IcmpSent = 28,
}

impl Event {
    /// Number of entries of `EVENTS`.
    pub const COUNT: u32 = 29;
    /// Names in order of the value, as shown by `evenkeel status`.
    pub const NAMES: [&'static str; Self::COUNT as usize] = [
        "drop_malformed",
        "drop_no_backend",
        "drop_nat_ports_exhausted",
        "drop_no_route",
        "drop_too_big",
        "drop_flow_table",
        "drop_ttl_expired",
        "drop_rewrite_failed",
        "pass_fragment",
        "pass_no_neighbour",
        "pass_forwarding_disabled",
        "pass_local",
        "pair_repaired",
        "icmp_translated",
        "icmp_unmatched",
        "walker_resync",
        "walker_bound",
        "flow_reused",
        "steer_no_socket",
        "drop_fragment",
        "drop_no_flow",
        "walker_busy",
        "flow_evicted",
        "reply_evicted",
        "upstream_adopted",
        "pass_moved",
        "flow_expired",
        "pass_not_by_xdp",
        "icmp_sent",
    ];
}
