"""A node's configuration as one frozen object; config_builder.py makes it from files, environment and command
line.

Keys, defaults and units are Kafka's (odradek.metadata.config_defs_broker), documented in config_docs.py
there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from odradek.broker.listeners import Listener, Voter
from odradek.metadata.configs import BrokerLayers, broker_layers


class StartupError(Exception):
    """The node cannot start, or not go on, and the text tells a person why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerConfig:
    """What a node is told at start. Fields carry the names of their keys with underscores for dots.

    Here is what the node and the controller read from here. The coordinators have configurations of their own, made
    from `static`; what can be changed while the node runs is read through `layers`.
    """

    # --- identity
    node_id: int
    """At least 0; unique in the cluster."""
    roles: frozenset[str]
    """`broker`, `controller` or both."""
    cluster_id: str | None
    """From CLUSTER_ID or `--cluster-id`; None takes the data directory's, or makes a new one."""
    broker_rack: str | None
    """Where the node stands, so that replicas are spread."""

    # --- addresses
    listeners: tuple[Listener, ...]
    """What the broker binds, controller listeners left out."""
    controller_listeners: tuple[Listener, ...]
    """What the controller binds; without any, the quorum is this process alone."""
    controller_advertised: tuple[Listener, ...]
    """Where other nodes reach the controller; a port of 0 stands for the port really bound."""
    advertised: tuple[Listener, ...]
    """What clients are told to connect to; a port of 0 stands for the port really bound."""
    controller_listener_names: tuple[str, ...]
    """Names in upper case, at least one."""
    inter_broker_listener: str
    """The name of the listener for other brokers."""
    voters: tuple[Voter, ...]
    """`controller.quorum.voters`; empty for a quorum of one in this process."""
    bootstrap_servers: tuple[tuple[str, int], ...]
    """`controller.quorum.bootstrap.servers`."""

    # --- storage
    log_dirs: tuple[str, ...]
    """Absolute or relative paths, at least one."""
    metadata_dir: str
    """Where `__cluster_metadata-0` lives: `metadata.log.dir`, else the first of `log_dirs`."""

    # --- connections and memory
    socket_request_max_bytes: int
    """The largest request frame; a larger one closes its connection."""
    queued_max_request_bytes: int
    """Bytes of all requests being received or handled, above which no connection is read; not positive: no
    limit.
    """
    odradek_connection_max_unsent_bytes: int
    """Bytes of responses a peer has not taken, above which its requests wait; at least 64 KiB."""
    max_connections: int
    """Connections of all listeners together; further ones are closed at once."""
    max_connections_per_ip: int
    """Connections from one address, unless overridden for it."""
    ip_connections: Mapping[str, int]
    """`max.connections.per.ip.overrides`."""
    connections_max_idle_ms: int
    """An idle connection is closed after this; negative: never."""
    socket_send_buffer_bytes: int
    """SO_SNDBUF; -1 leaves the system's."""
    socket_receive_buffer_bytes: int
    """SO_RCVBUF; -1 leaves the system's, and so does a key that is not set."""
    socket_listen_backlog_size: int
    """Connections waiting to be accepted; at least 1."""

    # --- requests
    fetch_max_bytes: int
    """The most one fetch returns, whatever it asks for; at least 1024."""
    max_incremental_fetch_session_cache_slots: int
    """Fetch sessions kept."""
    max_request_partition_size_limit: int
    """Partitions in one answer to DescribeTopicPartitions."""
    num_partitions: int
    """Partitions of a topic created without a number."""
    default_replication_factor: int
    """Replicas of a topic created without a number."""
    auto_create_topics_enable: bool
    """Whether asking for a topic's metadata creates it."""
    delete_topic_enable: bool
    """Whether topics can be deleted."""
    request_timeout_ms: int
    """How long the node waits for another."""
    producer_id_expiration_ms: int
    """A producer id idle for this long is forgotten by the partition."""

    # --- groups and their offsets
    offsets_topic_num_partitions: int
    """Partitions of `__consumer_offsets`; must not change once it exists."""
    offsets_topic_replication_factor: int
    """Replicas of `__consumer_offsets`."""
    offsets_topic_segment_bytes: int
    """Segment size of `__consumer_offsets`."""
    transaction_state_log_num_partitions: int
    """Partitions of `__transaction_state`."""
    transaction_state_log_replication_factor: int
    """Replicas of `__transaction_state`."""
    transaction_state_log_min_isr: int
    """In-sync replicas that `__transaction_state` needs."""

    # --- the log
    log_retention_check_interval_ms: int
    """How often segments past their retention are looked for."""
    log_flush_offset_checkpoint_interval_ms: int
    """How often recovery points are written down."""
    num_recovery_threads_per_data_dir: int
    """Segments of one directory that are scanned at a time after a crash."""
    replica_lag_time_max_ms: int
    """A follower that has not caught up for this long leaves the in-sync set."""

    # --- controller and metadata
    broker_heartbeat_interval_ms: int
    """Between heartbeats to the controller."""
    broker_session_timeout_ms: int
    """Without a heartbeat for this long a broker is fenced."""
    controller_quorum_election_timeout_ms: int
    """How long a candidate waits for votes."""
    controller_quorum_election_backoff_max_ms: int
    """The longest wait before the next try."""
    controller_quorum_fetch_timeout_ms: int
    """A voter that fetched nothing for this long seeks election."""
    metadata_log_max_record_bytes_between_snapshots: int
    """Bytes of records after which a snapshot is made."""
    metadata_log_max_snapshot_interval_ms: int
    """Time after which a snapshot is made if anything is new; 0: never."""

    # --- seen from outside
    odradek_metrics_host: str
    """Where /metrics and /health are bound."""
    odradek_metrics_port: int
    """The port of /metrics and /health; 0 takes any, -1 serves none."""
    odradek_replication_port: int
    """Where a node without the controller role serves other nodes; 0: one above its first listener."""
    odradek_log_format: str
    """`text`, `json`, or `auto`: text for a terminal."""
    odradek_log_level: str
    """`debug`, `info`, `warning` or `error`."""

    # --- all of it
    static: Mapping[str, str]
    """Every key that was set, as it was written, for DescribeConfigs and for the defaults of topics."""
    warnings: tuple[str, ...] = ()
    """Lines to log once at start."""

    @property
    def alone(self) -> bool:
        """Whether this process is the whole cluster: both roles, and no address where others could join."""
        return self.roles == {"broker", "controller"} and not self.controller_listeners

    @property
    def standalone(self) -> bool:
        """Whether this controller, where its log names no voters, is the first and only one.

        Its own address may be the one of `controller.quorum.bootstrap.servers`, as in the file that comes with Kafka.
        """
        own = {(each.host, each.port) for each in (*self.controller_advertised, *self.controller_listeners)}
        ports = {port for _, port in own}
        here = ("localhost", "127.0.0.1", "::1")
        strangers = [
            (host, port)
            for host, port in self.bootstrap_servers
            if (host, port) not in own and not (host in here and port in ports)
        ]
        return "controller" in self.roles and not self.voters and not strangers

    @property
    def internal_address(self) -> tuple[str, int]:
        """Where other nodes reach this one: a controller's own listener, else `odradek.replication.port`."""
        if self.controller_listeners:
            return self.controller_listeners[0].host, self.controller_listeners[0].port
        first = self.listeners[0]
        default = first.port + 1 if first.port else 0
        return first.host, self.odradek_replication_port or default

    def layers(self, image_configs: Mapping[tuple[int, str], Mapping[str, str]]) -> BrokerLayers:
        """This broker's settings together with the dynamic ones of the metadata image."""
        return broker_layers(image_configs, self.node_id, self.static)

    def bootstrap(self, bound_ports: Mapping[str, int] | None = None) -> str:
        """What a client puts into `bootstrap.servers`; `bound_ports` by listener name where port 0 was
        asked for.
        """
        ports = bound_ports or {}
        shown = (str(each._replace(port=each.port or ports.get(each.name, 0))) for each in self.advertised)
        return ",".join(each.partition("://")[2] for each in shown)


_NOT_KEYS = frozenset(
    (
        *(
            "roles",
            "cluster_id",
            "listeners",
            "controller_listeners",
            "controller_advertised",
            "advertised",
            "controller_listener_names",
        ),
        *(
            "inter_broker_listener",
            "voters",
            "bootstrap_servers",
            "log_dirs",
            "metadata_dir",
            "ip_connections",
        ),
        *("static", "warnings"),
    )
)
KEY_FIELDS = {
    field.name: field.name.replace("_", ".") for field in fields(BrokerConfig) if field.name not in _NOT_KEYS
}
"""Fields that are a key's value and nothing more, and their key."""
