"""What the controller is told at start, in one frozen object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

from odradek.metadata.configs import BrokerLayers
from odradek.raft.config import RaftConfig

METADATA_VERSION = "metadata.version"
GROUP_VERSION = "group.version"
"""From 1 on the consumer protocol (KIP-848)."""
ELR_VERSION = "eligible.leader.replicas.version"
TRANSACTION_VERSION = "transaction.version"

METADATA_VERSION_LEVEL = 30
"""4.3-IV0."""

RECORDS_PER_REQUEST_MAX = 10_000
"""Kafka's bound on what one request may write, and on the partitions that one request may create."""

TOO_LARGE = "Unable to perform excessively large batch operation."
"""Kafka's words for a request beyond that bound."""

BATCH_BYTES_MAX = 7 << 20
"""Encoded records of one batch. Raft's bound of 8 MiB leaves room for the framing of so many records."""

PENDING_REQUESTS_MAX = 10_000
"""Requests that may wait for the metadata log at one time."""

PRODUCER_ID_BLOCK = 1_000

SUPPORTED_FEATURES: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        METADATA_VERSION: (METADATA_VERSION_LEVEL, METADATA_VERSION_LEVEL),
        ELR_VERSION: (1, 1),
        TRANSACTION_VERSION: (0, 2),
        GROUP_VERSION: (0, 1),
    }
)
"""What is really served, lowest and highest level: clients decide by the finalized levels."""


class NodeConfig(Protocol):
    """What the controller reads of a node's configuration; names are those of the keys."""

    @property
    def num_partitions(self) -> int: ...
    @property
    def default_replication_factor(self) -> int: ...
    @property
    def broker_session_timeout_ms(self) -> int: ...
    @property
    def request_timeout_ms(self) -> int: ...
    @property
    def controller_quorum_election_timeout_ms(self) -> int: ...
    @property
    def controller_quorum_election_backoff_max_ms(self) -> int: ...
    @property
    def controller_quorum_fetch_timeout_ms(self) -> int: ...
    @property
    def delete_topic_enable(self) -> bool: ...
    @property
    def metadata_log_max_record_bytes_between_snapshots(self) -> int: ...
    @property
    def metadata_log_max_snapshot_interval_ms(self) -> int: ...
    @property
    def static(self) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True)
class ControllerConfig:
    """Configuration of one controller. Names are Kafka's where Kafka has one. ValueError names the bad
    field.
    """

    node_id: int
    cluster_id: str
    num_partitions: int = 1
    """Partitions of a topic whose creator does not say."""
    default_replication_factor: int = 1
    broker_session_timeout_ms: int = 3_000
    """A broker that was not heard of for so long is fenced (Kafka: 9,000)."""
    request_timeout_ms: int = 30_000
    """How long a request of this node waits for the active controller, unless the request says less."""
    auto_leader_rebalance_enable: bool = True
    leader_imbalance_check_interval_ms: int = 300_000
    """leader.imbalance.check.interval.seconds: how often leadership is given back to preferred replicas."""
    unclean_election_interval_ms: int = 300_000
    """unclean.leader.election.interval.ms: how often leaders are looked for where there are none."""
    delete_topic_enable: bool = True
    snapshot_bytes_max: int = 20 << 20
    """metadata.log.max.record.bytes.between.snapshots: a snapshot is written once so many bytes of records
    came.
    """
    snapshot_interval_ms: int = 3_600_000
    """metadata.log.max.snapshot.interval.ms: or after this time, if anything is new; 0: only by size."""
    static_configs: Mapping[str, str] = field(default_factory=dict)
    """The node's own server.properties, as text: what topics without a configuration of their own fall back
    to.
    """

    def __post_init__(self) -> None:
        for name, low, high in (
            ("node_id", 0, 2**31 - 1),
            ("num_partitions", 1, RECORDS_PER_REQUEST_MAX),
            ("default_replication_factor", 1, 2**15 - 1),
            ("broker_session_timeout_ms", 100, 2**31 - 1),
            ("request_timeout_ms", 1, 2**31 - 1),
            ("leader_imbalance_check_interval_ms", 1, 2**63 - 1),
            ("unclean_election_interval_ms", 1, 2**63 - 1),
            ("snapshot_bytes_max", 1, 2**63 - 1),
            ("snapshot_interval_ms", 0, 2**63 - 1),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name} must be from {low} to {high}, not {value}")
        if not self.cluster_id:
            raise ValueError("cluster_id must not be empty")

    @classmethod
    def of_node(cls, node_id: int, cluster_id: str, config: NodeConfig) -> ControllerConfig:
        layers = BrokerLayers(static=config.static)

        def number(key: str, otherwise: int) -> int:
            return int(layers.get(key) or config.static.get(key) or otherwise)

        return cls(
            node_id=node_id,
            cluster_id=cluster_id,
            num_partitions=config.num_partitions,
            default_replication_factor=config.default_replication_factor,
            broker_session_timeout_ms=config.broker_session_timeout_ms,
            request_timeout_ms=config.request_timeout_ms,
            auto_leader_rebalance_enable=layers.get("auto.leader.rebalance.enable") == "true",
            leader_imbalance_check_interval_ms=1_000 * number("leader.imbalance.check.interval.seconds", 300),
            unclean_election_interval_ms=number("unclean.leader.election.interval.ms", 300_000),
            delete_topic_enable=config.delete_topic_enable,
            snapshot_bytes_max=config.metadata_log_max_record_bytes_between_snapshots,
            snapshot_interval_ms=config.metadata_log_max_snapshot_interval_ms,
            static_configs=config.static,
        )


def raft_config(config: NodeConfig) -> RaftConfig:
    """The quorum's settings out of the node's. What has no field there keeps the quorum's own default unless
    it was set, as they are lower than Kafka's; and a leader never holds a fetch for as long as the fetch, or
    the leader, would be given up.
    """
    base = RaftConfig()

    def number(key: str, otherwise: int) -> int:
        return max(1, int(config.static.get(key) or otherwise))

    fetch_timeout_ms = max(2, config.controller_quorum_fetch_timeout_ms)
    request_timeout_ms = max(2, number("controller.quorum.request.timeout.ms", base.request_timeout_ms))
    shortest_ms = min(fetch_timeout_ms, request_timeout_ms)
    return RaftConfig(
        election_timeout_ms=max(1, config.controller_quorum_election_timeout_ms),
        fetch_timeout_ms=fetch_timeout_ms,
        fetch_timeout_jitter_ms=min(base.fetch_timeout_jitter_ms, fetch_timeout_ms),
        election_backoff_max_ms=config.controller_quorum_election_backoff_max_ms,
        request_timeout_ms=request_timeout_ms,
        retry_backoff_ms=number("controller.quorum.retry.backoff.ms", base.retry_backoff_ms),
        fetch_max_wait_ms=max(1, min(base.fetch_max_wait_ms, shortest_ms // 2)),
        fetch_max_bytes=number("controller.quorum.fetch.max.bytes", base.fetch_max_bytes),
        snapshot_chunk_bytes=min(
            base.snapshot_chunk_bytes,
            number("controller.quorum.fetch.snapshot.max.bytes", base.snapshot_chunk_bytes),
        ),
    )
