"""Bounds and times of what goes on between nodes."""

from __future__ import annotations

from dataclasses import dataclass

KIB = 1024
MIB = 1024 * KIB

ChannelOption = tuple[str, int]


@dataclass(frozen=True, slots=True)
class RpcSettings:
    """Times in milliseconds, sizes in bytes. ValueError names what makes no sense."""

    backoff_ms_min: int = 50
    """Pause before the second attempt to reach a peer; it doubles up to `backoff_ms_max`."""
    backoff_ms_max: int = 200
    mismatch_backoff_ms: int = 2_000
    """Pause after a peer turned out to be another one than expected, or refused this node."""
    connect_timeout_ms: int = 1_000
    """How long the operating system may take to connect; a lost SYN is sent again after 1 s, a new attempt beats
    that.
    """
    handshake_timeout_ms: int = 2_000
    """How long a peer may take to say who it is: a stopped process still accepts connections."""
    keepalive_ms: int = 1_000
    """A ping after so much silence, also between streams."""
    keepalive_timeout_ms: int = 2_000
    """A connection whose ping stays unanswered for so long is closed. After a partition a fresh connection is there
    at once, while TCP would still be waiting for its next retransmission.
    """
    bulk_keepalive_timeout_ms: int = 5_000
    """The same for replication, where a ping may queue behind what a slow link has yet to carry."""
    message_bytes_max: int = MIB + 384 * KIB
    """The largest gRPC message: 1 MiB of batches, and what is said about them in 4,096 entries. Larger frames, which
    a single large batch makes, go in parts.
    """
    frame_bytes_max: int = 101 * MIB
    """The largest frame put together from parts: `socket.request.max.bytes` bounds what a batch can have."""
    outbox_bytes_max: int = 16 * MIB
    """Bytes that wait for one peer in one stream. Raft drops its oldest messages beyond it."""
    outbox_messages_max: int = 1_000
    asks_in_flight_max: int = 1_000
    """Questions to one controller that have no answer yet, and unanswered ones of one asker."""
    ask_timeout_ms: int = 5_000
    """How long an answer is waited for, unless the asker says."""
    down_bytes_high: int = 2 * MIB
    """A leader's stream to a follower is not writable while it holds so much that the network has not taken."""
    down_bytes_low: int = MIB
    """It is writable again from here on."""
    connections_max: int = 1_000
    """From other nodes; each has up to four, and whoever connects beyond is hung up on."""
    connection_idle_ms: int = 30_000
    """A connection without a stream is closed then; nodes keep streams open."""
    stop_ms: int = 300
    """How long a stopping node lets streams end by themselves."""

    def __post_init__(self) -> None:
        if not 0 < self.backoff_ms_min <= self.backoff_ms_max:
            raise ValueError("backoff_ms_min must be above 0 and not above backoff_ms_max")
        if not 0 < self.message_bytes_max <= self.frame_bytes_max:
            raise ValueError("message_bytes_max must be above 0 and not above frame_bytes_max")


def channel_options(settings: RpcSettings, keepalive_timeout_ms: int) -> list[ChannelOption]:
    """Of both ends of a connection. gRPC sets TCP_NODELAY itself."""
    wire_max = settings.message_bytes_max + KIB
    return [
        ("grpc.max_receive_message_length", wire_max),
        ("grpc.max_send_message_length", wire_max),
        ("grpc.keepalive_time_ms", settings.keepalive_ms),
        ("grpc.keepalive_timeout_ms", keepalive_timeout_ms),
        ("grpc.http2.ping_timeout_ms", keepalive_timeout_ms),  # a minute by default, whatever stands above
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # The peer pings as this end does; never hold it against it.
        ("grpc.http2.min_ping_interval_without_data_ms", settings.keepalive_ms),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", max(1, settings.keepalive_ms // 2)),
        ("grpc.http2.max_ping_strikes", 0),
    ]


def client_options(settings: RpcSettings, *, bulk: bool = False) -> list[ChannelOption]:
    timeout_ms = settings.bulk_keepalive_timeout_ms if bulk else settings.keepalive_timeout_ms
    return [
        *channel_options(settings, timeout_ms),
        # Channels with equal options would share a connection: bulk data would delay heartbeats.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
        ("grpc.enable_retries", 0),
        ("grpc.initial_reconnect_backoff_ms", settings.backoff_ms_min),
        ("grpc.max_reconnect_backoff_ms", settings.backoff_ms_max),
        # Despite its name: how long one attempt to connect may take.
        ("grpc.min_reconnect_backoff_ms", settings.handshake_timeout_ms),
    ]


def server_options(settings: RpcSettings) -> list[ChannelOption]:
    """A port that another process has is an error, not shared. One server serves all lanes. Strangers can connect, too:
    they must not take the descriptors that the log needs.
    """
    return [
        *channel_options(settings, settings.bulk_keepalive_timeout_ms),
        ("grpc.so_reuseport", 0),
        ("grpc.max_allowed_incoming_connections", settings.connections_max),
        ("grpc.max_connection_idle_ms", settings.connection_idle_ms),
    ]
