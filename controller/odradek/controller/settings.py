"""What the controller is told at start, in one frozen object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

METADATA_VERSION = "metadata.version"
ELR_VERSION = "eligible.leader.replicas.version"

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
    }
)
"""What is really served, lowest and highest level: clients decide by the finalized levels. group.version
(the consumer protocol of KIP-848) and transaction.version join when they are served.
"""


class NodeConfig(Protocol):
    """What the controller reads of a node's configuration; names are those of the keys."""

    @property
    def num_partitions(self) -> int: ...
    @property
    def default_replication_factor(self) -> int: ...
    @property
    def broker_session_timeout_ms(self) -> int: ...
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
        return cls(
            node_id=node_id,
            cluster_id=cluster_id,
            num_partitions=config.num_partitions,
            default_replication_factor=config.default_replication_factor,
            broker_session_timeout_ms=config.broker_session_timeout_ms,
            delete_topic_enable=config.delete_topic_enable,
            snapshot_bytes_max=config.metadata_log_max_record_bytes_between_snapshots,
            snapshot_interval_ms=config.metadata_log_max_snapshot_interval_ms,
            static_configs=config.static,
        )
